"""State beside the stream: an entity per key, and an alert when a threshold is crossed.

    skerry run examples.talk -- 200000            # so many events per partition
    skerry export Alerts

A stream of purchases; each customer is an entity that adds them up. Who passes a limit is
reported once to the alerts of their region, another entity. No database, no lock: each
entity handles its own messages, one after the other.
"""

from msgspec import Struct

import skerry
from skerry import App, Entity, send
from skerry.sources import Generate

COUNT = int((skerry.args() or ["20000"])[0])
LIMIT = 5_000
REGIONS = ("north", "east", "south", "west")


class Purchase(Struct, frozen=True):
    """An event of the stream."""

    customer: str
    cents: int


class Customer(Entity):
    """What a customer has spent."""

    spent: int = 0
    purchases: int = 0
    reported: bool = False

    def bought(self, purchase: Purchase) -> None:
        """Add a purchase up; report the crossing of the limit, once."""
        self.spent += purchase.cents
        self.purchases += 1
        if self.spent > LIMIT and not self.reported:
            self.reported = True
            region = REGIONS[hash_of(self.key) % len(REGIONS)]
            send(Alerts.at(region).crossed, self.key, self.spent)


class Alerts(Entity):
    """Who crossed the limit in a region."""

    customers: dict[str, int] = {}

    def crossed(self, customer: str, spent: int) -> None:
        """Somebody crossed the limit."""
        assert customer not in self.customers, "each crossing is reported once"
        self.customers[customer] = spent


def hash_of(key: str) -> int:
    """A number that depends on the key only."""
    return int(key.removeprefix("customer-"))


def purchase(partition: str, position: int) -> Purchase:
    """The event at a position: the same each time it is asked for."""
    mixed = (position * 2_654_435_761 + int(partition) * 40_503) & 0xFFFF_FFFF
    return Purchase(f"customer-{mixed % 2000}", mixed % 97)


app = App("talk", entities=[Customer, Alerts])
(
    app.source(Generate(purchase, partitions=4, count=COUNT))
    .key_by(lambda purchase: purchase.customer)
    .to(Customer.bought)
)
