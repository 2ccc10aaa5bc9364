"""Tell the world of every tenth sight of a bird: a wrong way to write it down, and the right one.

    skerry run examples.milestones
    pytest tests/examples/test_milestones.py

What entities emit comes to a sink at least once: a worker that is killed hands the newest items
over again, under the numbers that they had. `HastyBook` ignores the numbers, and now and then a
line stands there twice. No unit test shows it, a simulation does. `Book` drops what it has.
"""

from collections.abc import Sequence

from skerry import App, Entity, JsonLines, Output, emit
from skerry.sources import Generate

milestones: Output[list[str | int]] = Output("milestones")


class Bird(Entity):
    """How often it was seen."""

    seen: int = 0

    def see(self) -> None:
        """Once more."""
        self.seen += 1
        if self.seen % 10 == 0:
            emit(milestones, [self.key, self.seen])


class HastyBook:
    """Wrong: writes whatever it is handed."""

    def __init__(self) -> None:
        self.lines: list[str | int] = []

    def write(self, partition: str, sequence: int, items: Sequence[list[str | int]]) -> None:
        """Keep the items."""
        self.lines += [f"{name} {count}" for name, count in items]


class Book(HastyBook):
    """Right: knows the number of what it has, and drops what is handed over again.

    In real life that number must be kept with the lines, as `JsonLines` does by counting them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[str, int] = {}

    def write(self, partition: str, sequence: int, items: Sequence[list[str | int]]) -> None:
        """Keep the items that are new."""
        have = self.newest.get(partition, 0)
        super().write(partition, sequence, items[max(0, have + 1 - sequence) :])
        self.newest[partition] = max(have, sequence + len(items) - 1)


BIRDS = ("gull", "tern", "auk", "puffin", "skua")


def sight(partition: str, position: int) -> str:
    """The bird that this watcher saw."""
    return BIRDS[(position * 7 + int(partition)) % len(BIRDS)]


app = App("milestones", entities=[Bird], outputs=[milestones])
app.source(Generate(sight, partitions=3, count=100)).key_by(lambda bird: bird).to(Bird.see)
app.stream(milestones).sink(JsonLines("milestones"))
