"""The app that skerry is measured with. `skerry.args()`: counter, transfers or serve; a count.

That of benchmarks/apps.py, with the load that the peers are given.
"""

import skerry
from benchmarks.peers import figure, load
from skerry import App, Entity, Generate, send

WHICH, COUNT = ([*skerry.args(), "serve", "0"])[:2]


class Account(Entity):
    """One key."""

    balance: int = 0

    def deposit(self, amount: int) -> int:
        """Its state."""
        self.balance += amount
        return self.balance

    def transfer(self, to: str) -> None:
        """Take one, send it to another key."""
        self.balance -= 1
        send(Account.at(to).deposit, 1)


app = App("peer", entities=[Account])
if WHICH != "serve":
    items = app.source(Generate(load.key, partitions=figure.PARTITIONS, count=int(COUNT)))
    if WHICH == "counter":
        items.key_by(lambda name: name).map(lambda name: 1).to(Account.deposit)
    else:
        items.key_by(lambda name: name).map(load.other).to(Account.transfer)
