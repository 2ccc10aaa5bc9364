"""Columns: what passes over many items make of them, one column for each of their ends.

Pure data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from skerry.handler import Handler


class Exit(NamedTuple):
    """Where a stream ends in a sink."""

    output: str
    partitions: int
    sink: int
    """The sink's place among the output's sinks."""


Columns = tuple["Handler | Exit", list[str], Sequence[Any]]
"""(where to, keys, a column of arguments as `Handler.column` makes it, or of items' bytes). Keys
of messages are not checked yet: most are known from before, and a known key was (`check_keys`)."""

Pass = Callable[[list[str] | None, list[Any]], list[Columns]]
"""Takes items, and the key of each; None while they have none."""
