"""State beside a stream: an entity per customer, and an alert when a threshold is crossed.

    skerry run examples.talk -- 200000            # number of events per partition
    skerry export Alerts

The stream consists of purchases, and each customer is an entity that adds them up. A customer who
passes a limit is reported once, to the alerts of the region, which are another entity. There is no
database and no lock: each entity handles its own messages, one after the other.
"""

from msgspec import Struct

import skerry
from skerry import App, Entity, send
from skerry.sources import Generate

COUNT = int((skerry.args() or ["20000"])[0])
LIMIT = 5_000
REGIONS = ("north", "east", "south", "west")


class Purchase(Struct, frozen=True):
    """An event of the stream: a customer spends money."""

    customer: str
    cents: int


class Customer(Entity):
    """A customer, and what they have spent."""

    spent: int = 0
    purchases: int = 0
    reported: bool = False

    def bought(self, purchase: Purchase) -> None:
        """Add a purchase; report the customer once when the sum passes the limit."""
        self.spent += purchase.cents
        self.purchases += 1
        if self.spent > LIMIT and not self.reported:
            self.reported = True
            region = REGIONS[hash_of(self.key) % len(REGIONS)]
            send(Alerts.at(region).crossed, self.key, self.spent)


class Alerts(Entity):
    """The customers of a region who passed the limit."""

    customers: dict[str, int] = {}

    def crossed(self, customer: str, spent: int) -> None:
        """Note a customer who passed the limit."""
        assert customer not in self.customers, "each crossing is reported once"
        self.customers[customer] = spent


def hash_of(key: str) -> int:
    """A number that depends only on the key."""
    return int(key.removeprefix("customer-"))


def purchase(partition: str, position: int) -> Purchase:
    """The event at a position, always the same one."""
    mixed = (position * 2_654_435_761 + int(partition) * 40_503) & 0xFFFF_FFFF
    return Purchase(f"customer-{mixed % 2000}", mixed % 97)


app = App("talk", entities=[Customer, Alerts])
(
    app.source(Generate(purchase, partitions=4, count=COUNT))
    .key_by(lambda purchase: purchase.customer)
    .to(Customer.bought)
)
