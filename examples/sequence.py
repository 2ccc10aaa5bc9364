"""The witness of order and exactly-once: numbered messages from many senders to many receivers.

    skerry run examples.sequence -- 8 1000        # 8 senders, 1,000 rounds each
    skerry export Receiver

Each sender sends 1, 2, 3... to every receiver. A receiver keeps the last four numbers of
each sender and refuses anything but the next one: one lost, doubled or overtaken message
would stand in the dead letters.
"""

import skerry
from skerry import App, Entity, Rejected, send
from skerry.sources import Generate

SENDERS, ROUNDS = (int(arg) for arg in [*skerry.args(), "8", "1000"][:2])
RECEIVERS = 5


class Sender(Entity):
    """Sends numbers to all receivers."""

    sent: int = 0

    def next(self) -> None:
        """Send the next number to everybody."""
        self.sent += 1
        for receiver in range(RECEIVERS):
            send(Receiver.at(f"receiver-{receiver}").take, self.key, self.sent)


class Receiver(Entity):
    """Takes the numbers of every sender, in order or not at all."""

    last: dict[str, list[int]] = {}

    def take(self, sender: str, number: int) -> None:
        """Take the next number of a sender."""
        seen = self.last.get(sender, [0])
        if number != seen[-1] + 1:
            raise Rejected("out of order", sender=sender, number=number, last=seen)
        self.last[sender] = [*seen, number][-4:]


def sender_of(partition: str, position: int) -> str:
    """Every partition of the source is one sender's drum."""
    return f"sender-{partition}"


app = App("sequence", entities=[Sender, Receiver])
(
    app.source(Generate(sender_of, partitions=SENDERS, count=ROUNDS))
    .key_by(lambda sender: sender)
    .to(Sender.next)
)
