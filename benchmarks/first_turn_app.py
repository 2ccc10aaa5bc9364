"""One item and one turn, which says through a pipe that it has begun."""

from pathlib import Path

import skerry
from skerry import App, Entity, Generate

PIPE = (skerry.args() or [""])[0]


class First(Entity):
    turns: int = 0

    def run(self) -> None:
        self.turns += 1
        if PIPE:
            Path(PIPE).write_bytes(b"1")


app = App("first", entities=[First])
items = app.source(Generate(lambda partition, position: position, partitions=1, count=1))
items.key_by(lambda item: "one").to(First.run)
