"""Report every tenth sighting of a bird: the wrong way to write it down, and the right way.

    skerry run examples.milestones
    pytest tests/examples/test_milestones.py

Emitted items reach a sink at least once: after a kill, a worker hands over the newest items again,
under the same numbers. `HastyBook` ignores the numbers, and occasionally writes a line twice. No
unit test shows this; a simulation does. `Book` drops the items that it has.
"""

from collections.abc import Sequence

from skerry import App, Entity, Output, emit, sinks
from skerry.sources import Generate

milestones: Output[list[str | int]] = Output("milestones")


class Bird(Entity):
    """A bird, and how often it was seen."""

    seen: int = 0

    def see(self) -> None:
        """Count a sighting, and report every tenth."""
        self.seen += 1
        if self.seen % 10 == 0:
            emit(milestones, [self.key, self.seen])


class HastyBook:
    """A sink that is wrong: it writes whatever it is handed."""

    def __init__(self) -> None:
        self.lines: list[str | int] = []

    def write(self, partition: str, sequence: int, items: Sequence[list[str | int]]) -> None:
        """Write the items."""
        self.lines += [f"{name} {count}" for name, count in items]


class Book(HastyBook):
    """A sink that is right: it knows the number of its newest item, and drops repeats.

    A real sink must store that number together with the lines; `sinks.JsonLines` counts its lines.
    """

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[str, int] = {}

    def write(self, partition: str, sequence: int, items: Sequence[list[str | int]]) -> None:
        """Write the items that are new."""
        have = self.newest.get(partition, 0)
        super().write(partition, sequence, items[max(0, have + 1 - sequence) :])
        self.newest[partition] = max(have, sequence + len(items) - 1)


BIRDS = ("gull", "tern", "auk", "puffin", "skua")


def sight(partition: str, position: int) -> str:
    """The bird that a watcher saw at a position."""
    return BIRDS[(position * 7 + int(partition)) % len(BIRDS)]


app = App("milestones", entities=[Bird], outputs=[milestones])
app.source(Generate(sight, partitions=3, count=100)).key_by(lambda bird: bird).to(Bird.see)
app.stream(milestones).sink(sinks.JsonLines("milestones"))
