"""Accounts and transfers: money moves between entities and is never lost or made.

    skerry run examples.bank --data /tmp/bank --serve &
    python -m examples.bank.load --data /tmp/bank

A transfer takes money out here and asks the other account to take it in. The two are
never changed in one transaction: what is uncertain between them is known to the first.
"""

from skerry import App, Entity, Failed, Rejected, ask


class Account(Entity):
    """Who holds what. An account exists as soon as it is named."""

    balance: int = 0
    refunds: int = 0

    def deposit(self, amount: int) -> int:
        """Put money in; the new balance."""
        self.balance += amount
        return self.balance

    def withdraw(self, amount: int) -> int:
        """Take money out, or refuse."""
        if amount > self.balance:
            raise Rejected("insufficient funds", balance=self.balance)
        self.balance -= amount
        return self.balance

    def transfer(self, to: str, amount: int) -> None:
        """Take money out here, and have it put in there; take it back when that fails."""
        self.withdraw(amount)
        ask(Account.at(to).deposit, amount).rejected(self._refund, amount).failed(
            self._refund, amount
        )

    def _refund(self, error: Rejected | Failed, amount: int) -> None:
        self.balance += amount
        self.refunds += 1


app = App("bank", entities=[Account])
