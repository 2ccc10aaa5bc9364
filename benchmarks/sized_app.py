"""A counter of any size: partitions, keys, items per partition, as `skerry.args()` say.

All partitions together walk through the keys in an order that looks random, and come to each
key equally often. Many keys are computed and not kept, so that ten million of them take no
memory of the workers; few are kept, since to write one anew costs as much as half a turn.
"""

import skerry
from skerry import App, Entity, Generate, query

PARTITIONS, KEYS, COUNT = map(int, [*skerry.args(), "4", "1000", "0"][:3])
STEP = 2_654_435_761
"""A prime above any number of keys: steps of it meet each key once before they repeat one."""

KEPT_MAX = 100_000


class Counter(Entity):
    count: int = 0

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    @query
    def look(self) -> int:
        return self.count


def name(number: int) -> str:
    """A key by its number."""
    return f"e{number:08d}"


KEPT = list(map(name, range(KEYS))) if KEYS <= KEPT_MAX else []
FIRST = {str(partition): partition * COUNT for partition in range(PARTITIONS)}


def key(partition: str, position: int) -> str:
    """The key of an item."""
    number = (FIRST[partition] + position) * STEP % KEYS
    return KEPT[number] if KEPT else name(number)


app = App("sized", entities=[Counter])
if COUNT:
    items = app.source(Generate(key, partitions=PARTITIONS, count=COUNT))
    items.key_by(lambda found: found).map(lambda found: 1).to(Counter.add)
