"""Looks at a shard's newest sealed rows: states, counts, dead letters, in slices.

Slots may come and go between two slices. A look reads those that are served when it comes to them,
and its answer says which these were. It is None when none of them is: others have them by now.

No I/O but the store's reads; no clock. Idea: docs/ideas/clients.md, "Order and reads".
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Generator, Iterator
from itertools import chain
from typing import Any

import msgspec

from skerry.runtime.core.commit import slot_of_letter, slot_prefix
from skerry.runtime.core.events import SLOTS, Table
from skerry.runtime.core.ownership import Ownership, slot_of, slots_of
from skerry.runtime.core.stored import schema_id_of
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.runtime.gateway.protocol import ALL_SLOTS, PAGE_ROWS, as_bits, slots_in
from skerry.runtime.ports import Committed

SLICE_ROWS = 2000
"""Rows that a look reads per round, so that nobody waits for it."""

PAGE_BYTES = 1 << 20
"""Bytes that a look reads per round, and the size of a page. One row may exceed it."""

Found = tuple[Any, int]
"""What is answered, and how many bytes it is about."""

Look = Generator[None, None, Found]
"""Does a slice of its work per step."""


class _Walk:
    """The slots that one look goes through, in their order.

    Args:
        asked: as `protocol.Slots`.
        begun: the slot that the page before has ended in.
    """

    __slots__ = ("_here", "_left", "_ownership", "read")

    def __init__(self, ownership: Ownership, asked: bytes, begun: int = -1) -> None:
        self._ownership = ownership
        self._left = {slot for slot in slots_in(asked) if slot >= begun}
        if begun >= 0 and not ownership.serves(begun):
            self._left.clear()
        self._here: list[int] = []
        self.read: set[int] = set()
        """Those that were read to their end."""

    @property
    def over(self) -> bool:
        """Whether it has come to its end."""
        return not self._left

    def here(self) -> list[int]:
        """List the slots that are left and are served now."""
        self._here = sorted(self._left & self._ownership.served)
        return self._here

    def stopped(self, slot: int) -> None:
        """Note that those which were served are read up to this slot, which is begun."""
        self.read.update(each for each in self._here if each < slot)
        self._left = {each for each in self._left if each >= slot}

    def found(self, rows: Any, *more: Any) -> list[Any] | None:
        """The answer: what was found, and in which slots; None when none of them is served here."""
        return [rows, *more, as_bits(self.read)] if self.read or rows else None

    def lost(self, slot: int) -> bool:
        """Tell whether a slot that is begun is no longer served; then it is skipped."""
        lost = not self._ownership.serves(slot)
        if lost:
            self._left.discard(slot)
        return lost


class Rows:
    """The rows of a shard, as callers see them."""

    def __init__(self, store: Committed, ownership: Ownership) -> None:
        self._store, self._ownership = store, ownership

    def state(self, type_name: str, key: str) -> Found:
        """The state of an entity, and its schema."""
        if not self._ownership.serves(slot_of(type_name, key)):
            return None, 0
        state = self._store.state(type_name, key)
        return [state, self._schema_of(state)], len(state or b"")

    def _schema_of(self, state: bytes | None) -> bytes | None:
        if state is None:
            return None
        return self._store.read(Table.SCHEMA, schema_id_of(state).to_bytes(8, "big"))

    def states(
        self, type_name: str, prefix: str, after: str, limit: int, slots: bytes = ALL_SLOTS
    ) -> Look:
        """A page of states, and their schemas."""
        yield from ()  # It is read at once, but when its turn has come.
        walk = _Walk(self._ownership, slots, slot_of(type_name, after) if after else -1)
        rows: list[tuple[str, bytes]] = []
        schemas: dict[int, bytes | None] = {}
        stopped, size = SLOTS, 0
        for key, state in self._store.states(type_name, prefix, after, walk.here()):
            rows.append((key, state))
            size += len(key) + len(state)
            id = schema_id_of(state)
            if id not in schemas:
                schemas[id] = self._schema_of(state)
            if len(rows) >= min(limit, SLICE_ROWS) or size >= PAGE_BYTES:
                stopped = slot_of(type_name, key)
                break
        walk.stopped(stopped)
        return walk.found(rows, schemas), size

    def count(self, type_name: str, slots: bytes = ALL_SLOTS) -> Look:
        """How many states there are."""
        walk, counts, after = _Walk(self._ownership, slots), Counter[int](), ""
        while not walk.over:
            if after and walk.lost(begun := slot_of(type_name, after)):
                after = ""
                del counts[begun]
            stopped, size, keys = SLOTS, 0, list[str]()
            for key, state in self._store.states(type_name, "", after, walk.here()):
                keys.append(key)
                size += len(state)
                if len(keys) >= SLICE_ROWS or size >= PAGE_BYTES:
                    stopped, after = slot_of(type_name, key), key
                    break
            walk.stopped(stopped)
            counts.update(slots_of(type_name, keys))
            yield
        return walk.found(counts.total()), 0

    # ── dead letters ──

    def letter(self, id: bytes) -> Found:
        """One dead letter whole."""
        if not self._ownership.serves(slot_of_letter(id)):
            return None, 0
        row = self._store.read(Table.DEAD, id)
        return [] if row is None else [[id, _letter(row)]], len(row or b"")

    def _letters(self, slots: list[int], after: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the dead letters of slots behind an id, in the order of the store."""
        wanted, behind, more = set(slots), after, True
        while more:
            more = False
            for id, row in self._store.scan(Table.DEAD, b"", behind):
                if more := (slot := slot_of_letter(id)) not in wanted:
                    behind = slot_prefix(slot + 1)
                    break
                yield bytes(id), row

    def letters(self, after: bytes, limit: int, slots: bytes) -> Look:
        """A page of dead letters in the order of the store, without tracebacks."""
        yield from ()
        walk = _Walk(self._ownership, slots, slot_of_letter(after) if after else -1)
        letters, stopped, size = list[Any](), SLOTS, 0
        for id, row in self._letters(walk.here(), after):
            letters.append([id, _letter(row, whole=False)])
            size += len(row)
            if len(letters) >= min(limit, SLICE_ROWS) or size >= PAGE_BYTES:
                stopped = slot_of_letter(id)
                break
        walk.stopped(stopped)
        return walk.found(letters), size

    def oldest_letters(self, limit: int, slots: bytes) -> Look:
        """The oldest dead letters, without tracebacks, fewer when they are large; and how many there
        are."""
        walk, counts = _Walk(self._ownership, slots), Counter[int]()
        found: list[tuple[int, bytes]] = []
        after = b""
        while not walk.over:
            if after and walk.lost(begun := slot_of_letter(after)):
                after = b""
                del counts[begun]
            stopped, size, seen = SLOTS, 0, list[tuple[int, bytes]]()
            for id, row in self._letters(walk.here(), after):
                seen.append((_letter(row).time_ns, id))
                size += len(row)
                if len(seen) >= SLICE_ROWS or size >= PAGE_BYTES:
                    stopped, after = slot_of_letter(id), id
                    break
            walk.stopped(stopped)
            counts.update(slot_of_letter(id) for _, id in seen)
            found = heapq.nsmallest(min(limit, PAGE_ROWS), chain(found, seen))
            yield
        # The rows of those that have left meanwhile are gone.
        walk.read &= self._ownership.served
        letters, size = list[Any](), 0
        for _, id in found:
            if size >= PAGE_BYTES or slot_of_letter(id) not in walk.read:
                continue
            if (kept := self._store.read(Table.DEAD, id)) is not None:
                letters.append([id, _letter(kept, whole=False)])
                size += len(kept)
        total = sum(counts[slot] for slot in walk.read)
        return walk.found(letters, total), size


def _letter(row: bytes, *, whole: bool = True) -> DeadLetter:
    letter = msgspec.msgpack.decode(row, type=DeadLetter)
    return letter if whole else msgspec.structs.replace(letter, traceback="")
