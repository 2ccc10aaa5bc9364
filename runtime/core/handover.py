"""The rows of a slot as they travel: cut into chunks at one shard, taken at the other.

A slot's rows go in the ordinary stream, so each chunk comes once and in order. Its commit at the
sender deletes the rows that it carries, its commit at the receiver writes them: after a crash of
either, the rows say how far it was. The last chunk holds how many rows there were, and the
exclusive or of their hashes, so that a row that was lost on the way is noticed.

A receiver does not serve the slot, so nothing reads the rows there before all have come.

No I/O but the store's reads. Idea: docs/ideas/moves.md. Asserts I6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

import msgspec
from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import SLOTTED, Row, StateGroup, Table
from skerry.runtime.core.progress import Place, Tally
from skerry.runtime.ports import Committed

CHUNK_BYTES = 512 << 10
"""Target size of a chunk. One row may exceed it."""

_encode = msgspec.msgpack.Encoder().encode

START: Place = (0, "", b"")


class Chunk(Struct, array_like=True, frozen=True):
    """A part of a slot's rows."""

    rows: list[tuple[Place, bytes]]
    schemas: list[tuple[bytes, bytes]]
    """What the ids in them mean; with the first chunk that a process sends of a slot."""
    time_ns: int
    """The sender's time, which the receiver's must not be behind."""
    whole: Tally | None = None
    """What all chunks held together; only the last one says it."""

    def groups(self, *, gone: bool = False) -> list[StateGroup]:
        """Its states, as a commit writes or deletes them."""
        states = [(at, value) for at, value in self.rows if at[0] == Table.STATE]
        return [
            StateGroup.of(name, [(at[2].decode(), None if gone else value) for at, value in own])
            for name, own in groupby(states, lambda row: row[0][1])
        ]

    def others(self, *, gone: bool = False) -> list[Row]:
        """Its other rows, as a commit writes or deletes them."""
        return [
            (table, key, None if gone else value)
            for (table, _, key), value in self.rows
            if table != Table.STATE
        ]


chunk_of = msgspec.msgpack.Decoder(Chunk).decode


def cut(
    store: Committed, types: Iterable[str], slot: int, after: Place, bytes_max: int
) -> tuple[list[tuple[Place, bytes]], bool]:
    """Read rows of a slot, behind a place; and whether these were the last."""
    found: list[tuple[Place, bytes]] = []
    size = 0
    for at, value in _rows(store, types, slot, after):
        if found and size + len(value) > bytes_max:
            return found, False
        found.append((at, value))
        size += len(at[2]) + len(value)
    return found, True


def _rows(
    store: Committed, types: Iterable[str], slot: int, after: Place
) -> Iterator[tuple[Place, bytes]]:
    """Yield the rows of a slot in order of their place, behind one of them."""
    first, first_type, first_key = after
    for name in sorted(types) if first <= Table.STATE else ():
        if (Table.STATE, name) >= (first, first_type):
            behind = first_key.decode() if name == first_type else ""
            for key, state in store.states(name, "", behind, [slot]):
                yield (Table.STATE, name, key.encode()), state
    for table in sorted(SLOTTED - {Table.STATE}):
        if table >= first:
            key_after = first_key if table == first else b""
            for row_key, value in store.scan(table, slot_prefix(slot), key_after):
                yield (table, "", bytes(row_key)), bytes(value)


def check(slot: int, taken: Tally, whole: Tally) -> None:
    """Raise StoreDamaged when rows of a slot were lost on their way."""
    if taken != whole:
        raise StoreDamaged(
            f"I6: slot {slot} has come with {taken.rows} rows, and was sent with {whole.rows}; or a "
            f"row is another. Restore all shards together."
        )
