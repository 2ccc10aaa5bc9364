"""A shard's rows: the memtable above the tree, read as one.

A read looks in the memtable first, and then, for rows that are not there, in LMDB's tree as one
reading transaction sees it. The transaction is renewed now and then; only then does the memtable
drop what a checkpoint has carried down. So every row is found in one place or the other.

Idea: docs/ideas/log.md, "Where a read looks".
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import lmdb

from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import slot_prefix, type_id
from skerry.runtime.core.events import Table
from skerry.runtime.ports import EVERY_SLOT
from skerry.runtime.store.environment import Environment
from skerry.runtime.store.memtable import ABSENT, K, Memtable, states_in, tree_key
from skerry.runtime.store.tree import unseal


class Rows:
    """The newest sealed rows; see `ports.Committed` for the promises."""

    def __init__(self, environment: Environment) -> None:
        self._files = environment
        self._env = environment.env
        self.memtable = Memtable()
        self._reader = self._env.begin()

    def state(self, type: str, key: str) -> bytes | None:
        """Return the newest sealed state of an entity."""
        entry = self.memtable.state(type, key)
        if entry is not ABSENT:
            return None if entry is None else bytes(entry)
        return self._tree(tree_key(Table.STATE, records.state_key(type, key)))

    def states_at(self, type: str, keys: Sequence[str], slots: Sequence[int]) -> list[bytes | None]:
        """Return the newest sealed states of many entities, each given with its slot."""
        entries = self.memtable.states_at(type, keys)
        unknown = [place for place, entry in enumerate(entries) if entry is ABSENT]
        row_keys = records.state_keys(
            type, map(keys.__getitem__, unknown), map(slots.__getitem__, unknown)
        )
        tree_keys = list(map(tree_key(Table.STATE, b"").__add__, row_keys))
        try:
            # Sorted, so that neighbours are found on the page that was just read.
            stored = dict(self._reader.cursor(db=self._files.rows).getmulti(sorted(tree_keys)))
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error
        for place, key in zip(unknown, tree_keys):
            row = stored.get(key)
            entries[place] = None if row is None else unseal(key, row, self._files.path)
        return [entry if entry is None else bytes(entry) for entry in entries]

    def read(self, table: int, key: bytes) -> bytes | None:
        """Return the newest sealed row of a table."""
        entry = self.memtable.row(table, key)
        return entry if entry is not ABSENT else self._tree(tree_key(table, key))

    def scan(
        self, table: int, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a table, tree and memtable merged."""
        low = tree_key(table, after) if after else b""
        tree = ((key[1:], 1, value) for key, value in self._tree_rows(tree_key(table, prefix), low))
        newer = ((key, 0, value) for key, value in self.memtable.rows_in(table, prefix, after))
        yield from _newest(newer, tree)

    def states(
        self, type: str, prefix: str = "", after: str = "", slots: Sequence[int] = EVERY_SLOT
    ) -> Iterator[tuple[str, bytes]]:
        """Yield the states of a type, slot by slot."""
        low = tree_key(Table.STATE, records.state_key(type, after)) if after else b""
        first = int.from_bytes(low[1:3], "big")
        begins = type_id(type) + prefix.encode()
        # The memtable first: what it has dropped by now is in the tree as we see it.
        layers = self.memtable.of_type(type)
        recent = set().union(*(states.slots for states in layers))
        with self._env.begin() as txn:
            cursor = txn.cursor(db=self._files.rows)
            for slot in slots[bisect_left(slots, first) :]:
                begin = tree_key(Table.STATE, slot_prefix(slot) + begins)
                if slot not in recent and not self._is_at(cursor, begin):
                    continue  # Most slots, when the type has few entities.
                tree = (
                    (records.key_of_state(key[1:]), 1, value)
                    for key, value in self._rows_at(cursor, begin, low)
                )
                behind = after if slot == first else ""
                newer = (
                    (key, 0, None if value is None else bytes(value))
                    for key, value in states_in(layers, slot, prefix, behind)
                )
                yield from _newest(newer, tree)

    # ── the tree ──

    def renew(self) -> None:
        """See the tree as it is now."""
        self._reader.abort()
        self._reader = self._env.begin()

    def release(self) -> None:
        """End the reading transaction."""
        self._reader.abort()

    def _tree(self, key: bytes) -> bytes | None:
        try:
            stored = self._reader.get(key, db=self._files.rows)
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error
        return None if stored is None else unseal(key, stored, self._files.path)

    def _tree_rows(self, prefix: bytes, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield rows of the tree, in a transaction of their own: a scan may last long."""
        with self._env.begin() as txn:
            yield from self._rows_at(txn.cursor(db=self._files.rows), prefix, after)

    def _rows_at(self, cursor: Any, prefix: bytes, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            if not cursor.set_range(max(prefix, after)):
                return
            for key, stored in cursor.iternext(keys=True, values=True):
                if not key.startswith(prefix):
                    return
                if key > after:
                    yield bytes(key), unseal(bytes(key), stored, self._files.path)
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error

    def _is_at(self, cursor: Any, prefix: bytes) -> bool:
        """Tell whether the tree has rows with this prefix."""
        try:
            return bool(cursor.set_range(prefix) and cursor.key().startswith(prefix))
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error


def _newest(
    newer: Iterator[tuple[K, int, bytes | None]], tree: Iterator[tuple[K, int, bytes]]
) -> Iterator[tuple[K, bytes]]:
    """Merge two sorted runs. Of one key the newer entry counts, and a deletion hides the row."""
    previous = None
    for key, _, value in heapq.merge(newer, tree):
        if key != previous and value is not None:
            yield key, value
        previous = key
