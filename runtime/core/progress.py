"""How far the moves of slots are at one shard: a row, which outlives the shard's process.

Data and its rules. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import xxhash
from msgspec import Struct

from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.placement import Placement
from skerry.runtime.ports import Committed

KEY = b"moves"
"""Of the row in META."""

_encode = msgspec.msgpack.Encoder().encode

Place = tuple[int, str, bytes]
"""(table, type, key) of a row. Only states have a type, and their key is that of the entity."""


class Tally(Struct, array_like=True, frozen=True):
    """How many rows, and the exclusive or of their hashes."""

    rows: int = 0
    hashes: int = 0

    def with_(self, found: Iterable[tuple[Place, bytes]]) -> Tally:
        """Count these rows, too."""
        rows, hashes = self.rows, self.hashes
        for (table, type_name, key), value in found:
            rows += 1
            hashes ^= xxhash.xxh3_64_intdigest(_encode((table, type_name, key, value)))
        return Tally(rows, hashes)


class Progress(Struct, array_like=True, frozen=True):
    """The row that says how far a shard is: the version it goes by, and what is on its way."""

    placement: Placement
    awaited: list[int] = []
    """Members whose marks end what comes for the leaving slots."""
    marked: list[int] = []
    """Those whose mark has come."""
    leaving: list[int] = []
    """Slots that are served here until then."""
    stopped: list[int] = []
    """Slots that are served nowhere, whose rows go over, one slot after the other."""
    sealed: dict[int, int] = {}
    """The newest frame to each peer when they were stopped: all up to it must be acked first."""
    sent: Tally = Tally()
    """What has left of the first of them."""
    arriving: dict[int, Tally] = {}
    """Slots on their way here, and what has come of each."""
    complete: list[int] = []
    """Those of which all has come."""

    @property
    def busy(self) -> bool:
        """Whether any slot is on its way from here or to here."""
        return bool(self.leaving or self.stopped or self.arriving)

    @property
    def away(self) -> set[int]:
        """Slots on their way: of some or all of them this shard has rows."""
        return {*self.leaving, *self.stopped, *self.arriving}

    def ownership(self, me: int) -> Ownership:
        """The placement as this shard sees it."""
        return Ownership(me, self.placement, leaving=self.leaving, arriving=[*self.arriving])


def stored(store: Committed, placement: Placement) -> Progress:
    """Return how far a shard was when it was last open. `placement`: of a store that knows none."""
    row = store.read(Table.META, KEY)
    return Progress(placement) if row is None else progress_of(row)


progress_of = msgspec.msgpack.Decoder(Progress).decode
