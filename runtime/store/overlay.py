"""Rows newer than the tree: what was sealed and is not in the B-tree yet.

Every commit's rows land here first, so that the hot path writes no tree page. There are two
layers. A sweep makes the upper one the lower one, as it stands; what is sealed from then on
lands in a new one above. The lower one never changes while it is carried down in sorted slices,
and is forgotten as a whole when reads of the tree see all of it. So no entry needs to remember
which commit wrote it. States are kept per type by key, as the shard asks for them; the keys of
the tree are made at checkpoint time only.

States come as one array of bytes per commit. A key's entry is that commit's group at first, the
same for all of its keys: an object of its own for each state is what a commit of thousands would
pay most for. An array is taken apart when somebody reads of it, or when it is carried down, and
then only what is newest in it: most of what is hit often is written over before.

Memory only. Idea: docs/log.md; the memtables of O'Neil et al., "The log-structured merge-tree",
1996. Asserts I6.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, Final, cast

from msgspec import Raw

from skerry.runtime.shard.events import Row, StateGroup, split


class Absent(enum.Enum):
    """No entry at all; None as an entry is a deletion."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
Entry = bytes | Raw | None
"""A `Raw` is a state that stands in its commit's array still."""


Groups = dict[int, StateGroup]
"""Each once, by its `id`."""


def _groups(entries: Iterable[Any]) -> Groups:
    return {id(entry): entry for entry in entries if type(entry) is StateGroup}


class States:
    """The newest states of one entity type."""

    __slots__ = ("_newest",)

    def __init__(self) -> None:
        self._newest: dict[str, StateGroup | Raw | None] = {}

    def add(self, group: StateGroup) -> None:
        """What a commit changed."""
        self._newest.update(zip(group.keys, repeat(group)))
        self._newest.update(zip(group.gone, repeat(None)))

    def keys(self) -> Collection[str]:
        """Of all entries."""
        return self._newest.keys()

    def get(self, keys: Sequence[str], otherwise: Iterable[Any]) -> list[Any]:
        """The newest entries of these keys, each an `Entry`; of those without any, what stands at
        its place in `otherwise`."""
        newest = self._newest.get
        found = list(map(newest, keys, otherwise))
        groups = _groups(found)
        for group in groups.values():
            self.take_apart(group)
        return list(map(newest, keys, found)) if groups else found

    def together(self, keys: Iterable[str]) -> Groups:
        """The groups that these keys are still in."""
        return _groups(map(self._newest.get, keys))

    def take_apart(self, group: StateGroup) -> None:
        """From now on what is newest in it stands for itself."""
        newest, keys = self._newest, group.keys
        for key, state, found in zip(keys, split(group.states), list(map(newest.get, keys))):
            if found is group:
                newest[key] = state

    def __len__(self) -> int:
        return len(self._newest)


class Layer:
    """Rows by table and key; the newest of each."""

    __slots__ = ("rows", "states")

    def __init__(self) -> None:
        self.states: dict[str, States] = {}
        self.rows: dict[int, dict[bytes, bytes | None]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.states.values())) + sum(map(len, self.rows.values()))


class Overlay:
    """Sealed rows by table and key: those of the newest commits over those that are carried down."""

    def __init__(self) -> None:
        self.upper, self.lower = Layer(), Layer()

    def add(self, states: list[StateGroup], rows: list[Row]) -> None:
        """What a commit changed."""
        upper = self.upper
        for group in states:
            of_type = upper.states.get(group.type)
            if of_type is None:
                of_type = upper.states[group.type] = States()
            of_type.add(group)
        for table, key, value in rows:
            of_table = upper.rows.get(table)
            if of_table is None:
                of_table = upper.rows[table] = {}
            of_table[key] = value

    def __len__(self) -> int:
        return len(self.upper) + len(self.lower)

    def state(self, type_name: str, key: str) -> Entry | Absent:
        """The newest entry of a state."""
        [found] = self.states_at(type_name, [key])
        return cast("Entry | Absent", found)

    def states_at(self, type_name: str, keys: Sequence[str]) -> list[Any]:
        """The newest entries of these keys, each an `Entry` or ABSENT."""
        found: list[Any] = [ABSENT] * len(keys)
        for layer in (self.lower, self.upper):
            of_type = layer.states.get(type_name)
            if of_type is not None:
                found = of_type.get(keys, found)
        return found

    def row(self, table: int, key: bytes) -> bytes | Absent | None:
        """The newest entry of a row."""
        for layer in (self.upper, self.lower):
            kept = layer.rows.get(table)
            if kept is not None and key in kept:
                return kept[key]
        return ABSENT

    def states_of(self, type_name: str) -> dict[str, Entry]:
        """The newest entries of a type."""
        newest: dict[str, Entry] = {}
        for layer in (self.lower, self.upper):
            if type_name in layer.states:
                of_type = layer.states[type_name]
                keys = list(of_type.keys())
                newest.update(zip(keys, of_type.get(keys, repeat(ABSENT))))
        return newest

    def in_table(self, table: int, prefix: bytes) -> Iterator[tuple[bytes, bytes | None]]:
        """The newest entries of a table with this prefix, sorted."""
        kept = self.lower.rows.get(table, {}) | self.upper.rows.get(table, {})
        yield from sorted((key, value) for key, value in kept.items() if key.startswith(prefix))

    # ── sweeping ──

    def sink(self) -> Layer:
        """A sweep begins: what stands now is what it carries."""
        assert not len(self.lower), "I6: what an earlier sweep carried is still needed by reads"
        self.upper, self.lower = Layer(), self.upper
        return self.lower

    def swept(self) -> None:
        """Who reads the tree sees all that the sweep carried."""
        self.lower = Layer()


def tree_key(table: int, key: bytes) -> bytes:
    """The key of a row in the tree."""
    return bytes((table,)) + key
