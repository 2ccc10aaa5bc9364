"""Rows newer than the tree: what was sealed and is not in the B-tree yet.

Every commit's rows land here first, so that the hot path writes no tree page. A sweep
carries them down in sorted slices; an entry leaves only when the commit that wrote it is
the one that was carried. States are kept per type by key, as the shard asks for them;
the keys of the tree are made at checkpoint time only.

Memory only. Idea: docs/log.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

from skerry.runtime.shard.events import Commit, Row, StateGroup

Entry = tuple[int, bytes | None]
"""(commit that wrote it, value or None for a deletion)."""


class Overlay:
    """Sealed rows by table and key."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Entry]] = {}
        self.rows: dict[int, dict[bytes, Entry]] = {}

    def add(self, no: int, states: list[StateGroup], rows: list[Row]) -> None:
        """What a commit changed."""
        for group in states:
            kept = self.states.get(group.type)
            if kept is None:
                kept = self.states[group.type] = {}
            kept.update(zip(group.keys, zip(repeat(no), group.values)))
        for table, key, value in rows:
            of_table = self.rows.get(table)
            if of_table is None:
                of_table = self.rows[table] = {}
            of_table[key] = (no, value)

    def add_commit(self, commit: Commit) -> None:
        """What a commit changed."""
        self.add(commit.no, commit.states, commit.rows)

    def __len__(self) -> int:
        return sum(map(len, self.states.values())) + sum(map(len, self.rows.values()))

    def state(self, type_name: str, key: str) -> Entry | None:
        """The entry of a state."""
        kept = self.states.get(type_name)
        return None if kept is None else kept.get(key)

    def row(self, table: int, key: bytes) -> Entry | None:
        """The entry of a row."""
        kept = self.rows.get(table)
        return None if kept is None else kept.get(key)

    def drop(self, carried: list[Carried]) -> None:
        """These entries are in the tree that reads see: forget those that are still the same."""
        for tree, no, _, type_name, key in carried:
            kept: dict[str, Entry] | dict[bytes, Entry] | None
            kept = self.rows.get(tree[0]) if type_name is None else self.states.get(type_name)
            if kept is not None:
                entry = kept.get(key)  # type: ignore[arg-type]
                if entry is not None and entry[0] == no:
                    del kept[key]  # type: ignore[arg-type]

    def in_table(self, table: int, prefix: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """Entries of a table with this prefix, sorted."""
        kept = self.rows.get(table, {})
        yield from sorted((k, e[1]) for k, e in list(kept.items()) if k.startswith(prefix))


Carried = tuple[bytes, int, bytes | None, str | None, str | bytes]
"""(key in the tree, commit, value, entity type of a state, key in the overlay)."""


def tree_key(table: int, key: bytes) -> bytes:
    """The key of a row in the tree."""
    return bytes((table,)) + key
