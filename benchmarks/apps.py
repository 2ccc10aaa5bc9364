"""The apps that are measured. `skerry.args()`: which, keys, items per partition.

Keys are drawn at random from all of them, as the ceiling's are: before the run, since it is the
runtime that is measured; each item is looked up, and its key found, inside the run.
"""

import random

import skerry
from skerry import App, Entity, Generate, ask, send

PARTITIONS = 4
WHICH, KEYS, COUNT = ([*skerry.args(), "counter", "10000", "1000"])[:3]
NAMES = [f"a{number:07d}" for number in range(int(KEYS))]
DRAWN = NAMES * -(-(1 << 17) // len(NAMES))
"""Each name equally often, at random places."""
random.Random(1).shuffle(DRAWN)
STARTS = {str(number): number * len(DRAWN) // PARTITIONS for number in range(PARTITIONS)}


class Account(Entity):
    balance: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def transfer(self, to: str) -> None:
        self.balance -= 1
        send(Account.at(to).deposit, 1)

    def pay(self, to: str) -> None:
        ask(Account.at(to).deposit, 1).then(self._paid)

    def _paid(self, balance: int) -> None:
        self.balance -= 1


def key(partition: str, position: int) -> str:
    """The key of an item, the same each time."""
    return DRAWN[(position + STARTS[partition]) % len(DRAWN)]


def other(name: str) -> str:
    """Another key."""
    return NAMES[(int(name[1:]) * 7919 + 1) % len(NAMES)]


app = App("bench", entities=[Account])
if WHICH != "serve":
    items = app.source(Generate(key, partitions=PARTITIONS, count=int(COUNT)))
    if WHICH == "counter":
        items.key_by(lambda name: name).map(lambda name: 1).to(Account.deposit)
    else:
        handler = Account.transfer if WHICH == "transfers" else Account.pay
        items.key_by(lambda name: name).map(other).to(handler)
