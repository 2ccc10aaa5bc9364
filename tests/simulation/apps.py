"""What the simulated shards run: money, numbered messages, timers, refusals, broken handlers."""

from collections.abc import Sequence
from datetime import UTC, datetime

from skerry import (
    App,
    Entity,
    Failed,
    Output,
    Rejected,
    ask,
    cancel_timer,
    emit,
    forget,
    now,
    query,
    send,
    send_later,
    set_timer,
)
from skerry.runtime.simulator.faults import Died, Hung
from skerry.sources import Generate
from tests.simulation.program import Node

RECEIVERS = 5
MIRRORS = 3
taken: Output[list[str | int]] = Output("taken", partitions=3)
"""What receivers took."""


class Account(Entity):
    balance: int = 0
    refunds: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        if self.key == "broken":
            raise ValueError("this account takes nothing")
        return self.balance

    def transfer(self, to: str, amount: int) -> None:
        if amount > self.balance:
            raise Rejected("insufficient funds", balance=self.balance)
        self.balance -= amount
        (
            ask(Account.at(to).deposit, amount)
            .then(self._paid, to)
            .rejected(self._refund, amount)
            .failed(self._refund, amount)
        )

    def _paid(self, balance: int, to: str) -> None:
        assert balance >= 0

    def _refund(self, error: Rejected | Failed, amount: int) -> None:
        self.balance += amount
        self.refunds += 1

    @query
    def worth(self) -> int:
        return self.balance


class Sender(Entity):
    sent: int = 0

    def begin(self, rounds: int) -> None:
        for _ in range(3):
            self._send()
        if rounds:
            send(self.begin, rounds - 1)
        set_timer("again", 0.05, self.again)

    def again(self) -> None:
        self._send()

    def next(self) -> tuple[str, int]:
        self._send()
        return self.key, self.sent

    def _send(self) -> None:
        self.sent += 1
        for receiver in range(RECEIVERS):
            send(Receiver.at(f"r{receiver}").take, self.key, self.sent)


class Receiver(Entity):
    last: dict[str, int] = {}

    def take(self, sender: str, number: int) -> None:
        emit(taken, [self.key, sender, number])
        if number != self.last.get(sender, 0) + 1:
            raise Rejected("out of order", sender=sender, number=number)
        self.last[sender] = number


class Mirror(Entity):
    """Hears what senders reply, and replies itself."""

    last: dict[str, int] = {}
    count: int = 0

    def hear(self, reply: tuple[str, int]) -> int:
        sender, number = reply
        if number <= self.last.get(sender, 0):
            raise Rejected("out of order", sender=sender, number=number)
        self.last[sender] = number
        self.count += 1
        return self.count


class Alarm(Entity):
    rung: list[str] = []
    cancelled: list[str] = []

    def arm(self, name: str, delay_s: float) -> None:
        set_timer(name, delay_s, self.ring, name)

    def disarm(self, name: str) -> bool:
        stood = cancel_timer(name)
        if stood:
            self.cancelled.append(name)
        return stood

    def later(self, to: str, name: str) -> None:
        send_later(0.02, Alarm.at(to).ring, name)

    def vanish(self) -> None:
        forget()

    def ring(self, name: str) -> None:
        self.rung.append(name)


class Memo(Entity):
    """Keeps what it was told; sends a list and goes on changing it."""

    items: list[str] = []

    def note(self, item: str, to: str) -> None:
        self.items.append(item)
        send(Memo.at(to).receive, self.items)
        self.items.append("after")

    def receive(self, items: list[str]) -> None:
        self.items = items


class Tally(Entity):
    """Each answer names its place among all: what a linearizable counter gives."""

    count: int = 0
    newest: datetime = datetime(1970, 1, 1, tzinfo=UTC)

    def next(self) -> int:
        assert now() >= self.newest, "I10: time went back"
        self.newest = now()
        self.count += 1
        return self.count


class Mayfly(Entity):
    """Forgets itself at its third message; only who lives on is ever rung."""

    lived: int = 0
    rung: int = 0

    def live(self) -> int:
        self.lived += 1
        set_timer("ring", 60, self._ring)
        if self.lived == 3:
            forget()
        return self.lived

    def _ring(self) -> None:
        self.rung += 1


class Bomb(Entity):
    """Takes its worker with it."""

    lit: int = 0

    def light(self, how: str) -> None:
        self.lit += 1
        raise Died if how == "dies" else Hung


class Dropped:
    """A sink that nobody calls: the simulator sees what would come to it."""

    def write(self, partition: str, sequence: int, items: Sequence[object]) -> None:
        raise AssertionError("a simulation does not call an app's own sinks")


def drum(partition: str, position: int) -> str:
    if position == 7:
        return ""  # An empty key: this item alone must become a dead letter.
    return f"drum-{partition}"


def flute(partition: str, position: int) -> tuple[str, int]:
    return partition, position


def app(*, drums: int = 0, beats: int = 30) -> App:
    """The app, with or without a source."""
    made = App(
        "simulated",
        entities=[Account, Sender, Receiver, Alarm, Memo, Tally, Mayfly, Bomb, Node, Mirror],
        outputs=[taken],
    )
    made.stream(taken).filter(lambda item: item[2] != 5).sink(Dropped())
    made.stream(taken).flat_map(lambda item: [item, item]).sink(Dropped())
    if drums:
        source = Generate(drum, partitions=drums, count=beats)
        replies = made.source(source).key_by(lambda name: name).to(Sender.next)
        heard = replies.key_by(lambda reply: f"m{reply[1] % MIRRORS}").to(Mirror.hear)
        heard.reduce(0, lambda n, count: n + 1, name="heard")
        made.changes(Mirror).map(lambda change: 1).reduce(0, lambda n, one: n + one, name="changes")
        # Straight from a source to sinks: by its partitions, and by keys.
        straight = made.source(Generate(flute, partitions=drums, count=beats), name="flutes")
        straight.sink(Dropped())
        straight.flat_map(lambda tone: [tone, tone]).key_by(lambda tone: f"{tone[1] % 5}").sink(
            Dropped()
        )
    return made
