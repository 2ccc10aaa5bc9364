"""Rows newer than the tree: what was sealed and is not in the B-tree yet.

Every commit's rows land here first, so that the hot path writes no tree page. There are two
layers. A sweep makes the upper one the lower one, as it stands; what is sealed from then on
lands in a new one above. The lower one never changes while it is carried down in sorted slices,
and is forgotten as a whole when reads of the tree see all of it. So no entry needs to remember
which commit wrote it. States are kept per type by key, as the shard asks for them; the keys of
the tree are made at checkpoint time only.

States come as one array of bytes per commit. An entry is that commit's group at first, the same
for all of its keys: an object of its own for each state is what a commit of thousands would pay
most for. An array is taken apart when somebody reads of it, or when it is carried down, and then
only what is newest in it: most of what is hit often is written over before.

To find the entry of a key among a million costs three places that no cache holds. The entity that
changes is at hand; so it is told the number of its entry, and is looked up once in a sweep, not
in each commit. A number that is less than all of a layer's is from before it.

Memory only. Idea: docs/log.md; the memtables of O'Neil et al., "The log-structured merge-tree",
1996. Asserts I6.
"""

from __future__ import annotations

import enum
import heapq
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, groupby, islice, repeat
from typing import Any, Final, cast

from msgspec import Raw, Struct

from skerry.runtime.core.events import Live, Row, StateGroup
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.core.stored import split
from skerry.runtime.store.order import K, Order, slots_of_rows

PIECE_KEYS = 256
"""Keys whose states are looked up at once while a type is looked through."""


class Absent(enum.Enum):
    """No entry at all; None as an entry is a deletion."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
Entry = bytes | Raw | None
"""A `Raw` is a state that stands in its commit's array still."""


class Group(Struct, gc=False):
    """The states that one commit brought."""

    numbers: list[int]
    """Of the entries that they were put in."""
    states: Raw
    """A msgpack array, as `StateGroup` has it."""


Groups = dict[int, Group]
"""Each once, by its `id`."""


def _groups(entries: Iterable[Any]) -> Groups:
    return {id(entry): entry for entry in entries if type(entry) is Group}


class States:
    """The newest states of one entity type. Each key has one entry here, and each entry a number."""

    __slots__ = ("_entries", "_first", "_numbers", "order")

    def __init__(self, type_name: str, first: int) -> None:
        self._first = first
        """The number of the first entry; those of layers below are less."""
        self._numbers: dict[str, int] = {}
        self.order = Order(self._numbers, partial(slots_of, type_name))
        self._entries: list[Group | Raw | None] = []

    @property
    def above(self) -> int:
        """More than any number that was given away."""
        return self._first + len(self._entries)

    def add(self, changed: StateGroup, live: Sequence[Live]) -> None:
        """What a commit changed. A live entity that has an entry here knows its number: to look
        up a million keys costs more than all else that is done here."""
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
        for number in self._numbered(changed.gone):
            entries[number - first] = None

    def _numbered(self, keys: list[str]) -> list[int]:
        """The numbers of these keys' entries, which are made where there are none."""
        new = range(self.above, self.above + len(keys))
        numbers = list(map(self._numbers.setdefault, keys, new))
        # A known key keeps its number. The one that it was offered is nobody's, since it costs
        # eight bytes, and less to leave than to use again.
        self._entries.extend(repeat(None, len(keys)))
        return numbers

    def pieces(self, size: int) -> Iterator[tuple[list[str], list[Any]]]:
        """All keys and their entries as they stand, so many at a time."""
        keys, numbers = iter(self._numbers), iter(self._numbers.values())
        while piece := list(islice(keys, size)):
            yield piece, self._at(islice(numbers, size))

    def groups(self, size: int) -> Iterator[Groups]:
        """The groups that entries are in, of so many entries at a time."""
        for at in range(0, len(self._entries), size):
            yield _groups(self._entries[at : at + size])

    def keys(self) -> Collection[str]:
        """Of all entries."""
        return self._numbers.keys()

    def _at(self, numbers: Iterable[int]) -> list[Any]:
        first, entries = self._first, self._entries
        return [entries[number - first] for number in numbers]

    def get(self, keys: Sequence[str], otherwise: Iterable[Any]) -> list[Any]:
        """The newest entries of these keys, each an `Entry`; of those without any, what stands at
        its place in `otherwise`."""
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
        """From now on what is newest in it stands for itself."""
        first, entries = self._first, self._entries
        for number, state in zip(group.numbers, split(group.states)):
            if entries[number - first] is group:
                entries[number - first] = state

    def __len__(self) -> int:
        return len(self._numbers)


class Layer:
    """Rows by table and key; the newest of each."""

    __slots__ = ("first", "orders", "rows", "states")

    def __init__(self, first: int) -> None:
        self.first = first
        """The number of the first entry of each type. Zero is nobody's."""
        self.states: dict[str, States] = {}
        self.rows: dict[int, dict[bytes, bytes | None]] = {}
        self.orders: dict[int, Order[bytes]] = {}
        """Of the tables that somebody has looked through."""

    def order(self, table: int) -> Order[bytes] | None:
        """Of all rows of a table that are here; None when there are none."""
        rows = self.rows.get(table)
        if rows is None:
            return None
        order = self.orders.get(table)
        if order is None:
            order = self.orders[table] = Order(rows, slots_of_rows)
        order.learn()
        return order

    def __len__(self) -> int:
        return sum(map(len, self.states.values())) + sum(map(len, self.rows.values()))


class Overlay:
    """Sealed rows by table and key: those of the newest commits over those that are carried down."""

    def __init__(self) -> None:
        self.upper, self.lower = Layer(1), Layer(1)

    def add(
        self, states: list[StateGroup], rows: list[Row], live: Iterable[Sequence[Live]] = ()
    ) -> None:
        """What a commit changed. `live`: as `Commit.live`."""
        upper = self.upper
        for group, entities in zip(states, chain(live, repeat(()))):
            of_type = upper.states.get(group.type)
            if of_type is None:
                of_type = upper.states[group.type] = States(group.type, upper.first)
            of_type.add(group, entities)
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

    def learn(self, type_name: str, most: int = sys.maxsize) -> bool:
        """Put so many keys of a type that came since in their order. Whether all are: then to look
        through the type costs what is found."""
        for layer in (self.lower, self.upper):
            of_type = layer.states.get(type_name)
            if of_type is not None and of_type.order.learn(most):
                return False
        return True

    def layers_of(self, type_name: str) -> list[States]:
        """All that is here of a type, in its order: for `states_in`."""
        self.learn(type_name)
        layers = (self.lower, self.upper)
        return [layer.states[type_name] for layer in layers if type_name in layer.states]

    def in_table(
        self, table: int, prefix: bytes, after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes | None]]:
        """The newest entries of a table with this prefix and behind `after`, sorted."""
        lower, upper = (layer.rows.get(table, {}) for layer in (self.lower, self.upper))
        orders = [order for layer in (self.lower, self.upper) if (order := layer.order(table))]
        slots = {slot for order in orders for slot in order.slots}
        begins = int.from_bytes(after[:2], "big")
        if len(prefix) >= 2:
            slots &= {int.from_bytes(prefix[:2], "big")}
        for slot in sorted(slot for slot in slots if slot >= begins):
            for key in _each_once([order.keys(slot, prefix, after) for order in orders]):
                yield key, upper[key] if key in upper else lower[key]

    # ── sweeping ──

    def sink(self) -> Layer:
        """A sweep begins: what stands now is what it carries."""
        assert not len(self.lower), "I6: what an earlier sweep carried is still needed by reads"
        self.lower = self.upper
        used = (of_type.above for of_type in self.lower.states.values())
        self.upper = Layer(max(used, default=self.lower.first))
        return self.lower

    def swept(self) -> None:
        """Who reads the tree sees all that the sweep carried."""
        self.lower = Layer(1)


def states_in(
    layers: list[States], slot: int, prefix: str, after: str
) -> Iterator[tuple[str, Entry]]:
    """The newest entries of a slot, in order of their keys; the last layer's are newest."""
    keys = _each_once([states.order.keys(slot, prefix, after) for states in layers])
    while piece := list(islice(keys, PIECE_KEYS)):
        entries: list[Any] = [ABSENT] * len(piece)
        for states in layers:
            entries = states.get(piece, entries)
        yield from zip(piece, entries)


def _each_once(found: list[Iterator[K]]) -> Iterator[K]:
    """Keys of sorted runs as one."""
    return (key for key, _ in groupby(heapq.merge(*found)))


def tree_key(table: int, key: bytes) -> bytes:
    """The key of a row in the tree."""
    return bytes((table,)) + key
