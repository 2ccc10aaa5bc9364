"""The rows of a slot as they travel: cut into chunks at one shard, taken at the other.

A slot's rows go in the ordinary stream, so each chunk comes once and in order. Behind them come
the changes of rows that were copied already. After a crash of either shard, its row on moves says
how far it was. The last chunk holds how many rows and changes there were, and the exclusive or of
their hashes, so that one that was lost on the way is noticed.

A receiver does not serve the slot, so nothing reads the rows there before all have come.

No I/O but the store's reads. Idea: docs/ideas/moves.md. Asserts I6.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

import msgspec
from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core.commit import slot_in, slot_prefix
from skerry.runtime.core.events import SLOTTED, Row, StateGroup, Table
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.core.progress import Change, Copy, Place, Tally
from skerry.runtime.ports import Committed

CHUNK_BYTES = 512 << 10
"""Target size of a chunk. One row may exceed it."""


class Chunk(Struct, array_like=True, frozen=True):
    """A part of a slot's rows, or changes of them."""

    rows: list[Change]
    schemas: list[tuple[bytes, bytes]]
    """What the ids in them mean; with the first chunk that a process sends of a slot."""
    time_ns: int
    """The sender's time, which the receiver's must not be behind."""
    since: int
    """The version of the placement that the copy began with."""
    whole: Tally | None = None
    """What all chunks held together; only the last one says it."""


chunk_of = msgspec.msgpack.Decoder(Chunk).decode


def groups(changes: Iterable[Change]) -> list[StateGroup]:
    """Return the changes of states among these, as a commit has them."""
    states = [(at, value) for at, value in changes if at[0] == Table.STATE]
    return [
        StateGroup.of(name, [(at[2].decode(), value) for at, value in own])
        for name, own in groupby(states, lambda row: row[0][1])
    ]


def others(changes: Iterable[Change]) -> list[Row]:
    """Return the changes of all other rows among these, as a commit has them."""
    return [(table, key, value) for (table, _, key), value in changes if table != Table.STATE]


def changes_of(
    copies: Mapping[int, Copy], states: Iterable[StateGroup], rows: Iterable[Row]
) -> dict[int, list[Change]]:
    """Find what a commit changes in rows that are copied already, by slot."""
    found: dict[int, list[Change]] = {}

    def note(slot: int, place: Place, value: bytes | None) -> None:
        if slot in copies and place <= copies[slot].upto:
            found.setdefault(slot, []).append((place, value))

    for group in states:
        slots = slots_of(group.type, [*group.keys, *group.gone])
        if not copies.keys().isdisjoint(slots):
            for slot, (key, state) in zip(slots, group.each()):
                note(slot, (Table.STATE, group.type, key.encode()), state)
    for table, row_key, value in rows:
        if table in SLOTTED:
            note(slot_in(row_key), (table, "", bytes(row_key)), value)
    return found


def cut(
    store: Committed, types: Iterable[str], slot: int, after: Place, bytes_max: int
) -> tuple[list[Change], bool]:
    """Read rows of a slot, behind a place; and whether these were the last."""
    found: list[Change] = []
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


def parts(changes: list[Change]) -> Iterator[list[Change]]:
    """Yield changes in parts of about a chunk each."""
    part: list[Change] = []
    size = 0
    for change in changes:
        part.append(change)
        size += len(change[1] or b"")
        if size > CHUNK_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


def check(slot: int, taken: Tally, whole: Tally) -> None:
    """Raise StoreDamaged when rows of a slot were lost on their way."""
    if taken != whole:
        raise StoreDamaged(
            f"I6: slot {slot} has come with {taken.rows} rows and changes, and was sent with "
            f"{whole.rows}; or one is another. Restore all shards together."
        )
