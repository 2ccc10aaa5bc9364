"""The life of a table: loaded, changed by a batch, sealed with it or thrown away with it.

    load(rows)     what the store holds: all of it at a start, one slot's when a slot arrives
    (its verbs)    what turns and callers change; staged, until the batch is over
    rows(stamp)    the staged changes, for the batch's commit
    sealed(stamp)  the commit counts from now on        undo()  the batch is thrown away
    drop(slot)     the slot has left this shard: memory keeps nothing of it

A shard holds its tables as a tuple, and opens, seals and undoes them in a loop: so none can be
forgotten, and a new kind of row is a new file here and an entry there. Keys of rows begin with
the slot, and so does what memory holds of them: one slot can be dropped, or sent, without a
look at any other.

Pure: imports the vocabulary only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from skerry.runtime.core.events import Row

StoredRow = tuple[int, bytes, bytes]
"""(table, key, value) of a row as a store holds it."""


class Stamp(NamedTuple):
    """The commit that a batch becomes."""

    no: int
    time_ns: int


class SlotTable(Protocol):
    """Rows of a kind that belong to slots: what memory knows of them, and what a batch changes."""

    @property
    def ids(self) -> tuple[int, ...]:
        """The numbers of the tables that are loaded into memory, in this order."""
        ...

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory, beside those that are there."""
        ...

    def rows(self, stamp: Stamp) -> Iterable[Row]:
        """Return the batch's changes. Asked once for a batch, before `sealed`."""
        ...

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        ...

    def undo(self) -> None:
        """Forget the batch's changes."""
        ...

    def drop(self, slot: int) -> None:
        """Forget the rows of a slot, which stay in the store. Never within a batch."""
        ...

    def stats(self) -> dict[str, int]:
        """Return numbers for people, by name."""
        ...
