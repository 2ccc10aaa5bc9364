"""How far each partition of a source has been read.

A partition lives in a slot, like an entity: its position is a row of that slot, in the commit
of the items up to it. What a batch moves is staged until it is sealed.

No I/O, no clock. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import xxhash
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import SLOTS, Row, SlotId, Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.tables.table import Stamp, StoredRow

_encode = msgspec.msgpack.Encoder().encode


class PositionRow(Struct, array_like=True, frozen=True):
    """A row of the POSITION table."""

    source: str
    partition: str
    position: Any


_row = msgspec.msgpack.Decoder(PositionRow)


def partition_slot(source: str, partition: str) -> SlotId:
    """Return the slot of a source partition.

    Numbered partitions are dealt out in turn: hashes of a few of them would not spread evenly.
    """
    if partition.isdecimal():
        return SlotId((slot_of("source", source) + int(partition)) % SLOTS)
    return slot_of(f"source {source}", partition)


def _key(source: str, partition: str) -> bytes:
    slot = slot_prefix(partition_slot(source, partition))
    return slot + xxhash.xxh3_128_digest(_encode((source, partition)))


class Positions:
    """The positions of a shard's partitions, and those that the open batch moves."""

    ids = (Table.POSITION,)

    def __init__(self) -> None:
        self._sealed: dict[int, dict[tuple[str, str], Any]] = {}
        """Position of each (source, partition), by slot."""
        self._new: dict[tuple[str, str], Any] = {}

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory."""
        for _, _, value in rows:
            row = _row.decode(value)
            self._set(row.source, row.partition, row.position)

    def newest(self, source: str, partition: str) -> Any:
        """Return a partition's position as the open batch sees it; None: nothing was read yet."""
        where = source, partition
        if where in self._new:
            return self._new[where]
        return self._sealed.get(partition_slot(source, partition), {}).get(where)

    def of(self, slots: Iterable[int]) -> dict[tuple[str, str], Any]:
        """Return the sealed positions of these slots."""
        return {
            where: position
            for slot in slots
            for where, position in self._sealed.get(slot, {}).items()
        }

    def move(self, source: str, partition: str, position: Any) -> None:
        """Move a partition's position."""
        self._new[source, partition] = position

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes."""
        for (source, partition), position in self._new.items():
            row = PositionRow(source, partition, position)
            yield Table.POSITION, _key(source, partition), _encode(row)

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for where, position in self._new.items():
            self._set(*where, position)
        self._new.clear()

    def undo(self) -> None:
        """Forget the batch's changes."""
        self._new.clear()

    def drop(self, slot: int) -> None:
        """Forget the positions of a slot."""
        self._sealed.pop(slot, None)

    def stats(self) -> dict[str, int]:
        """Return no numbers: a partition's size is its source's to know."""
        return {}

    def _set(self, source: str, partition: str, position: Any) -> None:
        of_slot = self._sealed.setdefault(partition_slot(source, partition), {})
        of_slot[source, partition] = position
