"""The memtable: rows that are sealed and not in the B-tree yet.

Every commit's rows land here first, so the hot path writes no tree page. There are two layers.
A checkpoint freezes the active layer, and what is sealed from then on lands in a new one. The
frozen layer never changes while it is carried down in sorted slices, and is dropped as a whole
once reads of the tree see all of it. So no entry has to remember which commit wrote it.

A key is dealt to its slot when it comes. A slot is sorted when a scan or a checkpoint has come to
it, so neither ever sorts a whole layer, and writers sort nothing.

States come as one array of bytes per commit. Each of a commit's keys first points to that whole
array, because an object per state is what a commit of thousands would pay most for. An array is
split when one of its states is read or carried down, and then only for the states that are still
the newest: frequently written entities replace most of theirs before that.

To find a key among a million misses the processor's cache three times. An entity in memory therefore
remembers the number of its entry: its key is looked up once per checkpoint, not once per commit.
Numbers below a layer's first one belong to older layers.

Memory only. Idea: docs/ideas/log.md; the memtables of O'Neil et al., "The log-structured merge-tree",
1996. Asserts I6.
"""

from __future__ import annotations

import enum
import heapq
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, islice, repeat, takewhile
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar, cast

from msgspec import Raw, Struct

from skerry.runtime.core.events import Live, Row, StateGroup
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.core.stored import split

K = TypeVar("K", str, bytes)
S = TypeVar("S", int, bytes)

PIECE_KEYS = 256
"""States that a scan looks up at once, and new keys that are dealt to their slots at once."""


class Absent(enum.Enum):
    """No entry at all; an entry that is None is a deletion."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
Entry = bytes | Raw | None
"""A `Raw` is a state inside its commit's array."""


class Slots(Generic[S, K]):
    """Keys by slot. A slot's keys are sorted when somebody asks for them, and not by who adds them."""

    __slots__ = ("_keys", "_new", "_slots_of", "_unsorted")

    def __init__(self, slots_of: Callable[[Sequence[K]], Sequence[S]]) -> None:
        self._slots_of: Callable[[Sequence[K]], Sequence[S]] = slots_of
        self._keys: defaultdict[S, list[K]] = defaultdict(list)
        self._new: list[K] = []
        """Keys that are not dealt to their slots yet: a few at once cost less than each alone."""
        self._unsorted: set[S] = set()

    def add(self, keys: Sequence[K]) -> None:
        """Add keys that are not here yet."""
        self._new += keys
        if len(self._new) >= PIECE_KEYS:
            self._deal()

    def _deal(self) -> None:
        of, slots = self._keys, self._slots_of(self._new)
        for slot, key in zip(slots, self._new):
            of[slot].append(key)
        self._unsorted.update(slots)
        self._new.clear()

    def __iter__(self) -> Iterator[S]:
        self._deal()
        return iter(self._keys)

    def keys(self, slot: S) -> list[K]:
        """List the keys of a slot in order."""
        self._deal()
        keys = self._keys.get(slot, [])
        if slot in self._unsorted:
            self._unsorted.discard(slot)
            keys.sort()
        return keys

    def after(self, slot: S, prefix: K, after: K) -> Iterator[K]:
        """Yield a slot's keys that begin with `prefix` and are greater than `after`, in order."""
        keys = self.keys(slot)
        first = max(bisect_left(keys, prefix), bisect_right(keys, after) if after else 0)
        return takewhile(lambda key: key.startswith(prefix), keys[first:])


class Group(Struct, gc=False):
    """The states that one commit brought for one type."""

    numbers: list[int]
    """The numbers of the entries that they were put in."""
    states: Raw
    """A msgpack array, from `StateGroup`."""


Groups = dict[int, Group]
"""Distinct groups, by `id`."""


def _groups(entries: Iterable[Any]) -> Groups:
    return {id(entry): entry for entry in entries if type(entry) is Group}


class States:
    """The newest states of one entity type. Each key has one entry here, and each entry a number."""

    __slots__ = ("_entries", "_first", "_numbers", "slots")

    def __init__(self, type_name: str, first: int) -> None:
        self._first = first
        """The number of the first entry; older layers have smaller ones."""
        self._numbers: dict[str, int] = {}
        self.slots: Slots[int, str] = Slots(partial(slots_of, type_name))
        self._entries: list[Group | Raw | None] = []

    @property
    def end(self) -> int:
        """A number above all that were given out."""
        return self._first + len(self._entries)

    def add(self, changed: StateGroup, live: Sequence[Live]) -> None:
        """Add what a commit changed. `live`: the entities whose states these are, if in memory.

        A live entity that has an entry here knows its number: looking up a million keys costs
        more than all else that is done here.
        """
        first, entries = self._first, self._entries
        numbers = [entity._store_entry for entity in live]
        if min(numbers, default=first) < first:
            unknown = [entity for entity in live if entity._store_entry < first]
            for entity, number in zip(unknown, self._numbered([entity._key for entity in unknown])):
                entity._store_entry = number
            numbers = [entity._store_entry for entity in live]
        group = Group(numbers if live else self._numbered(changed.keys), changed.states)
        for number in group.numbers:
            entries[number - first] = group
        if changed.gone:
            for number in self._numbered(changed.gone):
                entries[number - first] = None

    def _numbered(self, keys: list[str]) -> list[int]:
        """Return the numbers of these keys' entries; make entries for keys that have none."""
        end = self.end
        numbers = list(map(self._numbers.setdefault, keys, range(end, end + len(keys))))
        # A known key keeps its number, and the one that it was offered stays unused: leaving
        # eight bytes empty costs less than reusing them.
        self._entries.extend(repeat(None, len(keys)))
        if new := [key for key, number in zip(keys, numbers) if number >= end]:
            self.slots.add(new)
        return numbers

    def groups(self, size: int) -> Iterator[Groups]:
        """Yield the groups that entries are in, for `size` entries at a time."""
        for at in range(0, len(self._entries), size):
            yield _groups(self._entries[at : at + size])

    def in_slot(self, slot: int) -> tuple[list[str], list[Any]]:
        """Return a slot's keys in order, and their entries as they stand."""
        keys = self.slots.keys(slot)
        return keys, self._at(map(self._numbers.__getitem__, keys))

    def _at(self, numbers: Iterable[int]) -> list[Any]:
        first, entries = self._first, self._entries
        return [entries[number - first] for number in numbers]

    def get(self, keys: Sequence[str], otherwise: Iterable[Any]) -> list[Any]:
        """Return the newest `Entry` of each key, or what stands at its place in `otherwise`."""
        numbers = list(map(self._numbers.get, keys))
        if numbers.count(None) < len(numbers):
            for group in _groups(self._at(filter(None, numbers))).values():
                self.take_apart(group)
        first, entries = self._first, self._entries
        return [
            other if number is None else entries[number - first]
            for number, other in zip(numbers, otherwise)
        ]

    def take_apart(self, group: Group) -> None:
        """Give each state of a group that is still the newest an entry of its own."""
        first, entries = self._first, self._entries
        for number, state in zip(group.numbers, split(group.states)):
            if entries[number - first] is group:
                entries[number - first] = state

    def __len__(self) -> int:
        return len(self._numbers)


class TableRows(dict[bytes, bytes | None]):
    """The newest rows of one table."""

    __slots__ = ("slots",)

    def __init__(self) -> None:
        self.slots: Slots[bytes, bytes] = Slots(_prefixes)
        """By the first two bytes of their keys: the slot, where rows of the table have one."""


def _prefixes(keys: Sequence[bytes]) -> list[bytes]:
    return [key[:2] for key in keys]


class Layer:
    """The newest states and rows, by type and table."""

    __slots__ = ("first", "rows", "states")

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of the first entry of each type. Zero is no entry's."""
        self.states: dict[str, States] = {}
        self.rows: dict[int, TableRows] = {}

    def add(
        self, states: list[StateGroup], rows: list[Row], live: Iterable[Sequence[Live]]
    ) -> None:
        """Add what a commit changed."""
        for group, entities in zip(states, chain(live, repeat(()))):
            of_type = self.states.get(group.type)
            if of_type is None:
                of_type = self.states[group.type] = States(group.type, self.first)
            of_type.add(group, entities)
        for table, of_one in groupby(rows, itemgetter(0)):
            of_table = self.rows.get(table)
            if of_table is None:
                of_table = self.rows[table] = TableRows()
            changed = {key: value for _, key, value in of_one}
            of_table.slots.add([key for key in changed if key not in of_table])
            of_table.update(changed)

    def __len__(self) -> int:
        return sum(map(len, self.states.values())) + sum(map(len, self.rows.values()))


class Memtable:
    """Sealed rows by table and key: an active layer above one that a checkpoint has frozen."""

    def __init__(self) -> None:
        self.active, self.frozen = Layer(1), Layer(1)

    def add(
        self, states: list[StateGroup], rows: list[Row], live: Iterable[Sequence[Live]] = ()
    ) -> None:
        """Add what a commit changed. `live` is `Commit.live`."""
        self.active.add(states, rows, live)

    def __len__(self) -> int:
        return len(self.active) + len(self.frozen)

    def state(self, type_name: str, key: str) -> Entry | Absent:
        """Return the newest entry of a state."""
        [found] = self.states_at(type_name, [key])
        return cast("Entry | Absent", found)

    def states_at(self, type_name: str, keys: Sequence[str]) -> list[Any]:
        """Return the newest entry of each key, an `Entry` or ABSENT."""
        found: list[Any] = [ABSENT] * len(keys)
        for layer in (self.frozen, self.active):
            of_type = layer.states.get(type_name)
            if of_type is not None:
                found = of_type.get(keys, found)
        return found

    def row(self, table: int, key: bytes) -> bytes | Absent | None:
        """Return the newest entry of a row."""
        for layer in (self.active, self.frozen):
            of_table = layer.rows.get(table)
            if of_table is not None and key in of_table:
                return of_table[key]
        return ABSENT

    def of_type(self, type_name: str) -> list[States]:
        """List the states of a type by layer, the newest last: for `states_in`."""
        layers = (self.frozen, self.active)
        return [layer.states[type_name] for layer in layers if type_name in layer.states]

    def rows_in(
        self, table: int, prefix: bytes, after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """Yield the newest entries of a table whose keys begin with `prefix` and are greater than
        `after`, in order of key."""
        layers = [layer.rows[table] for layer in (self.active, self.frozen) if table in layer.rows]
        slots = {slot for rows in layers for slot in rows.slots if slot.startswith(prefix[:2])}
        for slot in sorted(slot for slot in slots if slot >= after[:2]):
            for key in _distinct([rows.slots.after(slot, prefix, after) for rows in layers]):
                yield key, next(rows[key] for rows in layers if key in rows)

    # ── checkpoints ──

    def freeze(self) -> Layer:
        """Begin a checkpoint: freeze what it carries down, and go on in a new layer."""
        assert not len(self.frozen), "I6: reads still need what an earlier checkpoint carried"
        self.frozen = self.active
        ends = (of_type.end for of_type in self.frozen.states.values())
        self.active = Layer(max(ends, default=self.frozen.first))
        return self.frozen

    def drop_frozen(self) -> None:
        """Drop the frozen layer: whoever reads the tree sees all that the checkpoint carried."""
        self.frozen = Layer(1)


def states_in(
    layers: list[States], slot: int, prefix: str, after: str
) -> Iterator[tuple[str, Entry]]:
    """Yield the newest entries of a slot in order of key. The last of `layers` is the newest."""
    keys = _distinct([states.slots.after(slot, prefix, after) for states in layers])
    while piece := list(islice(keys, PIECE_KEYS)):
        entries: list[Any] = [ABSENT] * len(piece)
        for states in layers:
            entries = states.get(piece, entries)
        yield from zip(piece, entries)


def _distinct(runs: list[Iterator[K]]) -> Iterator[K]:
    """Merge sorted runs of keys, and yield each key once."""
    return (key for key, _ in groupby(heapq.merge(*runs)))


def tree_key(table: int, key: bytes) -> bytes:
    """Return the key of a row in the tree."""
    return bytes((table,)) + key
