"""Alerts on transactions, in three ways: from one alone, from what an account has done, from a sum.

    skerry run examples.alerts
    pytest tests/examples/test_alerts.py

A single large payment alerts by itself: no entity is asked. An account alerts when its balance falls
below zero: the entity replies with an alert, which flows on. Shops are summed where transactions
are read, before the sums travel; one alerts each time that it has turned over another million.
"""

from msgspec import Struct

from skerry import App, Entity, sinks
from skerry.sources import Generate

LARGE, MILLION = 9_900, 1_000_000
ACCOUNTS, SHOPS = 50, 3


class Transaction(Struct, frozen=True):
    """Money that an account gets, or pays to a shop."""

    account: str
    shop: str
    amount: int


class Account(Entity):
    """An account, and what it has."""

    balance: int = 0

    def book(self, transaction: Transaction) -> str | None:
        """Book a transaction; reply with an alert when the balance falls below zero."""
        before = self.balance
        self.balance += transaction.amount
        if self.balance < 0 <= before:
            return f"{self.key}: overdrawn by {-self.balance}"
        return None


def transaction(partition: str, position: int) -> Transaction:
    """One that looks random, and is the same each time."""
    drawn = (position * 7919 + int(partition) * 104_729) % 20_011
    account, shop = f"account-{drawn % ACCOUNTS}", f"shop-{drawn % SHOPS}"
    return Transaction(account, shop, drawn - 10_000)


def add(turnover: int, paid: Transaction) -> int:
    """Add what was paid."""
    return turnover - paid.amount


def millions(turnover: int) -> int:
    """How many millions a shop has turned over."""
    return turnover // MILLION


class Milestone(Entity):
    """A shop, and the last million that it was congratulated on."""

    reached: int = 0

    def passed(self, millions: int) -> str | None:
        """Reply with an alert when there is another million."""
        if millions <= self.reached:
            return None
        self.reached = millions
        return f"{self.key}: {millions} million"


single, overdrawn, turnover = (
    sinks.Text(f"alerts/{name}") for name in ("single", "overdrawn", "turnover")
)
app = App("alerts", entities=[Account, Milestone])
transactions = app.source(Generate(transaction, partitions=4, count=5000), name="transactions")
paid, received = transactions.branch(lambda each: each.amount < 0)
paid.filter(lambda each: -each.amount > LARGE).map(
    lambda each: f"{each.account}: paid {-each.amount}"
).sink(single)
paid.merge(received).key_by(lambda each: each.account).to(Account.book).sink(overdrawn)
sums = paid.key_by(lambda each: each.shop).reduce(0, add, combine=int.__add__, name="turnover")
sums.map(millions).to(Milestone.passed).sink(turnover)
