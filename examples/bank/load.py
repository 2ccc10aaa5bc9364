"""Drive the bank: make random transfers, then check that no money was made or lost.

python -m examples.bank.load --data /tmp/bank --accounts 100 --transfers 10000
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator

import skerry
from examples.bank import Account
from skerry import Failed, Rejected, message

START = 1000
"""The money that each account begins with."""


def chunks(count: int, size: int) -> Iterator[int]:
    """Sizes that add up to `count`."""
    while count > 0:
        yield min(size, count)
        count -= size


def main() -> int:
    """Run the load. Returns an exit code: 0 if the money adds up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="the app's data directory")
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--transfers", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    names = [f"account-{n}" for n in range(given.accounts)]
    with skerry.Client(given.data) as client:
        before = sum(account.balance for _, account in client.scan(Account))
        opened = client.ask_many([message(Account.at(name).deposit, START) for name in names])
        assert all(isinstance(balance, int) for balance in opened)
        started, refused = time.perf_counter(), 0
        for size in chunks(given.transfers, 1000):
            outcomes = client.ask_many(
                [
                    message(
                        Account.at(rng.choice(names)).transfer,
                        rng.choice(names),
                        rng.randint(1, 50),
                    )
                    for _ in range(size)
                ]
            )
            refused += sum(isinstance(outcome, Rejected | Failed) for outcome in outcomes)
        seconds = time.perf_counter() - started
        expected = before + START * given.accounts
        # Until the second half of each transfer has arrived, the sum is too low.
        while (total := sum(account.balance for _, account in client.scan(Account))) < expected:
            pass
    rate = given.transfers / seconds
    print(f"{given.transfers} transfers in {seconds:.2f} s ({rate:,.0f}/s), {refused} refused")
    print(f"total {total}, expected {expected}: {'right' if total == expected else 'WRONG'}")
    return 0 if total == expected else 1


if __name__ == "__main__":
    sys.exit(main())
