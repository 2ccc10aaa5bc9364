"""An entity with a handler of each shape of arguments."""

from __future__ import annotations

from typing import Any

from skerry import Entity
from skerry.arguments import Args


class Thing(Entity):
    """Its handlers are named for the shapes of their arguments."""

    def none(self) -> None: ...
    def bare(self, n: int) -> None: ...
    def several(self, n: int, text: str) -> None: ...
    def packed(self, numbers: list[int]) -> None: ...


HANDLERS = Thing.__skerry__.handlers
NAMES = sorted(HANDLERS)


def args_of(name: str, number: int = 7) -> Args:
    """Arguments for a handler, as a verb would have checked them; with the number, if it takes any."""
    given: dict[str, tuple[Any, ...]] = {
        "none": (), "bare": (number,), "several": (number, "x"), "packed": ([number, number],),
    }  # fmt: skip
    return HANDLERS[name].bind(given[name], {})
