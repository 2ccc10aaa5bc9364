"""How far the moves of slots are at one shard: a row, which outlives the shard's process.

Data and its rules. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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

START: Place = (0, "", b"")
"""Before all rows."""

END: Place = (1 << 8, "", b"")
"""Behind all rows."""

Change = tuple[Place, bytes | None]
"""A row, or its deletion."""


class Tally(Struct, array_like=True, frozen=True):
    """How many changes, and the exclusive or of their hashes."""

    rows: int = 0
    hashes: int = 0

    def with_(self, found: Iterable[Change]) -> Tally:
        """Count these changes, too."""
        rows, hashes = self.rows, self.hashes
        for (table, type_name, key), value in found:
            rows += 1
            hashes ^= xxhash.xxh3_64_intdigest(_encode((table, type_name, key, value)))
        return Tally(rows, hashes)


class Copy(Struct, array_like=True, frozen=True):
    """A slot's rows at the shard that will own it, as that shard or the one that sends them knows them."""

    since: int
    """The version of the placement that it began with. Tells it from a copy that was given up."""
    upto: Place = START
    """The sender's rows up to this place are in it, and their changes follow."""
    tally: Tally = Tally()
    """What was sent, or taken."""


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
    arriving: list[int] = []
    """Slots on their way here."""
    complete: list[int] = []
    """Those of which all has come."""
    sent: dict[int, Copy] = {}
    """Copies of slots at their next owners, of slots that are served here or stopped."""
    taken: dict[int, Copy] = {}
    """Copies of slots of others here: of those on their way, and of those that are to come."""
    gone: list[int] = []
    """Slots whose rows are deleted here: they have left, or their copy was given up."""

    @property
    def moving(self) -> bool:
        """Whether any slot is on its way from here or to here."""
        return bool(self.leaving or self.stopped or self.arriving)

    @property
    def copying(self) -> list[int]:
        """Slots of which there are rows that are not copied yet."""
        return [slot for slot, copy in self.sent.items() if copy.upto != END]

    @property
    def busy(self) -> bool:
        """Whether there is anything left to do before the next version."""
        return self.moving or bool(self.gone or self.copying)

    @property
    def away(self) -> set[int]:
        """Slots of which this shard has some or all rows, though it may not own them."""
        return {*self.leaving, *self.stopped, *self.arriving, *self.taken, *self.gone}

    def stop(self, slots: frozenset[int], sealed: dict[int, int]) -> Progress:
        """Return the progress once leaving slots have stopped, after these frames to each peer."""
        left = sorted(slots.symmetric_difference(self.leaving))
        return msgspec.structs.replace(
            self,
            leaving=left,
            marked=self.marked if left else [],
            awaited=self.awaited if left else [],
            stopped=sorted(slots.union(self.stopped)),
            sealed=sealed,
        )

    def copies(
        self, ownership: Ownership, coming: Mapping[int, int]
    ) -> tuple[dict[int, Copy], dict[int, Copy]]:
        """What is sent and what is taken when the next version begins: of new copies nothing yet.

        Args:
            ownership: by the next version.
            coming: what this version has named.
        """
        placement, me = ownership.placement, ownership.me
        going = {slot: placement.slots[slot] for slot in ownership.leaving | ownership.arriving}
        sent, taken, new = dict[int, Copy](), dict[int, Copy](), Copy(placement.version)
        for slot, taker in sorted((going | placement.coming).items()):
            goes_on = coming.get(slot) == taker
            if taker == me:
                taken[slot] = self.taken[slot] if goes_on else new
            elif slot in ownership.served:
                sent[slot] = self.sent[slot] if goes_on else new
        return sent, taken

    def ownership(self, me: int) -> Ownership:
        """The placement as this shard sees it."""
        return Ownership(me, self.placement, leaving=self.leaving, arriving=self.arriving)


def stored(store: Committed, placement: Placement) -> Progress:
    """Return how far a shard was when it was last open. `placement`: of a store that knows none."""
    row = store.read(Table.META, KEY)
    return Progress(placement) if row is None else progress_of(row)


progress_of = msgspec.msgpack.Decoder(Progress).decode
