"""An app whose sinks are looked at from outside: files, and one that fails at first."""

import os
from collections.abc import Sequence
from pathlib import Path

from skerry import App, Entity, Output, emit, sinks
from skerry.sources import Generate

FOLDER = Path(os.environ.get("SKERRY_WITNESS", "witness"))
COUNT = 20_000
STRAIGHT = 5_000
seen: Output[list[str | int]] = Output("seen", partitions=3)


class Key(Entity):
    count: int = 0

    def see(self) -> None:
        self.count += 1
        emit(seen, [self.key, self.count])


class Reluctant:
    """Raises until it is asked the third time."""

    def __init__(self) -> None:
        self.tries = 0

    def write(self, partition: str, sequence: int, items: Sequence[object]) -> None:
        self.tries += 1
        if self.tries == 1:
            raise ConnectionError("not yet")
        if self.tries == 2:
            raise SystemExit("a library that gives up")
        sinks.JsonLines(FOLDER / "reluctant").write(partition, sequence, items)


app = App("seen", entities=[Key], outputs=[seen])
(
    app.source(Generate(lambda p, n: f"k{n % 50}", partitions=2, count=COUNT // 2))
    .key_by(lambda key: key)
    .to(Key.see)
)
app.stream(seen).sink(sinks.JsonLines(FOLDER / "files"))
app.stream(seen).filter(lambda item: item[1] == 1).sink(Reluctant())

straight = app.source(Generate(lambda p, n: (p, n), partitions=3, count=STRAIGHT), name="straight")
straight.sink(sinks.JsonLines(FOLDER / "straight"))
