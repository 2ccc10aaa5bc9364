"""Prove order and exactly-once: many senders send numbered messages to many receivers.

    skerry run examples.sequence -- 8 1000        # 8 senders, 1,000 rounds each
    skerry export Receiver

Each sender sends 1, 2, 3... to every receiver. A receiver keeps the last four numbers of each
sender and refuses everything but the next one, so a single lost, doubled or overtaken message would
be among the dead letters.
"""

import skerry
from skerry import App, Entity, Rejected, send
from skerry.sources import Generate

SENDERS, ROUNDS = (int(arg) for arg in [*skerry.args(), "8", "1000"][:2])
RECEIVERS = 5


class Sender(Entity):
    """A sender of numbers to all receivers."""

    sent: int = 0

    def next(self) -> None:
        """Send the next number to every receiver."""
        self.sent += 1
        for receiver in range(RECEIVERS):
            send(Receiver.at(f"receiver-{receiver}").take, self.key, self.sent)


class Receiver(Entity):
    """A receiver, which takes the numbers of each sender in order or not at all."""

    last: dict[str, list[int]] = {}

    def take(self, sender: str, number: int) -> None:
        """Take the next number of a sender. Raises Rejected: it is another number."""
        seen = self.last.get(sender, [0])
        if number != seen[-1] + 1:
            raise Rejected("out of order", sender=sender, number=number, last=seen)
        self.last[sender] = [*seen, number][-4:]


def sender_of(partition: str, position: int) -> str:
    """The sender that an item of a partition sets off."""
    return f"sender-{partition}"


app = App("sequence", entities=[Sender, Receiver])
(
    app.source(Generate(sender_of, partitions=SENDERS, count=ROUNDS))
    .key_by(lambda sender: sender)
    .to(Sender.next)
)
