"""An app whose source ends, and is long enough to be half read when a backup is taken."""

from skerry import App, Entity, Generate, set_timer

KEYS, PARTITIONS, COUNT = 100, 4, 600_000


class Tally(Entity):
    total: int = 0
    rung: int = 0

    def add(self, n: int) -> int:
        self.total += n
        return self.total

    def ring_later(self) -> None:
        set_timer("ring", 1, self._ring)

    def _ring(self) -> None:
        self.rung += 1


def item(partition: str, position: int) -> int:
    return position


def total(key: int) -> int:
    """What the tally of a key comes to."""
    return PARTITIONS * sum(range(key, COUNT, KEYS))


app = App("half", entities=[Tally])
numbers = app.source(Generate(item, partitions=PARTITIONS, count=COUNT))
replies = numbers.key_by(lambda n: f"k{n % KEYS}").to(Tally.add)
replies.key_by(lambda total: f"{total % 7}").reduce(0, lambda count, _: count + 1, name="replies")
