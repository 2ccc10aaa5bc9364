"""The app that the kill loop runs: money, counters and numbered messages at once.

Numbered messages come in two ways: sent by a handler, and as replies that flow on to a second stage.
"""

from typing import Any

from skerry import App, Entity, Failed, Rejected, ask, send
from skerry.sources import Generate

SENDERS, RECEIVERS = 6, 5


class Account(Entity):
    balance: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def transfer(self, to: str, amount: int) -> None:
        if amount > self.balance:
            raise Rejected("insufficient funds", balance=self.balance)
        self.balance -= amount
        ask(Account.at(to).deposit, amount).rejected(self._refund, amount).failed(
            self._refund, amount
        )

    def _refund(self, error: Rejected | Failed, amount: int) -> None:
        self.balance += amount


class Counter(Entity):
    count: int = 0

    def add(self) -> int:
        self.count += 1
        return self.count


class Sender(Entity):
    sent: int = 0

    def next(self) -> tuple[str, int]:
        self.sent += 1
        for receiver in range(RECEIVERS):
            send(Receiver.at(f"receiver-{receiver}").take, self.key, self.sent)
        return self.key, self.sent


class Receiver(Entity):
    last: dict[str, int] = {}
    heard: dict[str, int] = {}
    wrong: list[str] = []

    def take(self, sender: str, number: int) -> None:
        if number != self.last.get(sender, 0) + 1:
            self.wrong.append(f"{sender}: {number} after {self.last.get(sender, 0)}")
        self.last[sender] = number

    def hear(self, reply: tuple[str, int]) -> None:
        """Every reply of which the receiver is the one in turn."""
        sender, number = reply
        before = self.heard.get(sender, 0)
        if number not in range(before + 1, before + RECEIVERS + 1) or in_turn(reply) != self.key:
            self.wrong.append(f"{sender}: heard {number} after {before}")
        self.heard[sender] = number


def in_turn(reply: tuple[str, int]) -> str:
    return f"receiver-{reply[1] % RECEIVERS}"


def sender(partition: str, position: int) -> str:
    return f"sender-{partition}"


def witness(source: Any) -> App:
    """The app, with this source of numbered messages."""
    made = App("witness", entities=[Account, Counter, Sender, Receiver])
    replies = made.source(source).key_by(lambda name: name).to(Sender.next)
    replies.key_by(in_turn).to(Receiver.hear)
    return made


app = witness(Generate(sender, partitions=SENDERS))
