"""Accounts and transfers: money moves between entities, and none is lost or made.

    skerry run examples.bank --data /tmp/bank --serve &
    python -m examples.bank.load --data /tmp/bank

A transfer withdraws money from one account and asks the other to deposit it. No transaction spans
the two; the first account handles every outcome of the second.
"""

from skerry import App, Entity, Failed, Rejected, ask


class Account(Entity):
    """An account. It exists as soon as somebody names it."""

    balance: int = 0
    refunds: int = 0

    def deposit(self, amount: int) -> int:
        """Put money in. Returns the new balance."""
        self.balance += amount
        return self.balance

    def withdraw(self, amount: int) -> int:
        """Take money out. Raises Rejected: there is not enough."""
        if amount > self.balance:
            raise Rejected("insufficient funds", balance=self.balance)
        self.balance -= amount
        return self.balance

    def transfer(self, to: str, amount: int) -> None:
        """Move money to another account; take it back if that account refuses or fails."""
        self.withdraw(amount)
        ask(Account.at(to).deposit, amount).rejected(self._refund, amount).failed(
            self._refund, amount
        )

    def _refund(self, error: Rejected | Failed, amount: int) -> None:
        self.balance += amount
        self.refunds += 1


app = App("bank", entities=[Account])
