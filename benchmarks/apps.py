"""The apps that are measured. `skerry.args()`: which, keys, items per partition."""

import skerry
from skerry import App, Entity, Generate, send

PARTITIONS = 4
WHICH, KEYS, COUNT = ([*skerry.args(), "counter", "10000", "1000"])[:3]
NAMES = [f"a{number:07d}" for number in range(int(KEYS))]


class Account(Entity):
    balance: int = 0

    def deposit(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def transfer(self, to: str) -> None:
        self.balance -= 1
        send(Account.at(to).deposit, 1)


def key(partition: str, position: int) -> str:
    """A key as if drawn at random, the same each time."""
    return NAMES[(position * 2_654_435_761 + int(partition) * 97) % len(NAMES)]


def other(name: str) -> str:
    """Another key."""
    return NAMES[(int(name[1:]) * 7919 + 1) % len(NAMES)]


app = App("bench", entities=[Account])
if WHICH != "serve":
    items = app.source(Generate(key, partitions=PARTITIONS, count=int(COUNT)))
    if WHICH == "counter":
        items.key_by(lambda name: name).map(lambda name: 1).to(Account.deposit)
    else:
        items.key_by(lambda name: name).map(other).to(Account.transfer)
