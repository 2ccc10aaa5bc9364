"""A sweep: what the overlay holds, carried down to the tree, a bounded piece at a time.

Rows go down in the order of the tree, all of them and not some at a time: then each page is
written once in a sweep, where rows in any order would write a page for nearly every row. To
sort them all at once would make the shard wait, so they are dealt out by slot first, some
thousands a step, and a slot is sorted when its turn has come.

Rows of one slot travel as columns, so that what is done to each is done by loops in C.

A sweep never looks at what is sealed meanwhile: the layer that it carries does not change.
Knows LMDB transactions and bytes; nothing of threads. Idea: docs/log.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from msgspec import Struct

from skerry.runtime.core import commit as records
from skerry.runtime.core.events import SLOTTED, Table
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.store.environment import Environment
from skerry.runtime.store.memtable import Entry, Groups, Layer, States, tree_key
from skerry.runtime.store.tree import HOUSE_SLOT, note, sealed

T = TypeVar("T")

STEP_ROWS = 4096
"""Rows dealt out, or states taken apart, in a step: about two milliseconds of the worker's thread."""

STEP_COST = STEP_ROWS // 4
"""What a step costs, in rows that are written."""


class Rows(Struct, frozen=True, gc=False):
    """Rows of one table and slot, in the order of the tree."""

    slot: int
    keys: list[bytes]
    """As the tree has them."""
    values: list[Entry]
    """None: the row goes."""


class Sweep:
    """What a layer holds, in the order of the tree."""

    def __init__(self, layer: Layer) -> None:
        self._chunks = _in_order(layer)

    def take(self, rows: int) -> list[Rows] | None:
        """Work for about so many rows; may be none yet. None: all were taken."""
        carried: list[Rows] = []
        for chunk in self._chunks:
            if chunk is None:
                rows -= STEP_COST
            else:
                carried.append(chunk)
                rows -= len(chunk.keys)
            if rows <= 0:
                return carried
        return carried or None


def _in_order(layer: Layer) -> Iterator[Rows | None]:
    """Rows, each behind those before them but for the table; None is a step without any."""
    by_slot: dict[int, list[tuple[bytes, list[Any]]]] = {}
    for type_name, states in layer.states.items():
        yield from _take_apart(states)
        own: defaultdict[int, list[Any]] = defaultdict(list)  # A key, its entry, a key, …
        for keys, entries in states.pieces(STEP_ROWS):
            for slot, pair in zip(slots_of(type_name, keys), zip(keys, entries)):
                own[slot].extend(pair)
            yield None
        for slot, dealt in own.items():
            by_slot.setdefault(slot, []).append((records.type_id(type_name), dealt))
    table = tree_key(Table.STATE, b"")
    for slot in sorted(by_slot):
        for type_id, dealt in sorted(by_slot.pop(slot), key=itemgetter(0)):
            entry_of = dict(zip(dealt[::2], dealt[1::2]))
            keys = sorted(entry_of)  # As texts they stand in the order of their bytes in UTF-8.
            head = table + records.slot_prefix(slot) + type_id
            found = list(map(entry_of.__getitem__, keys))
            yield Rows(slot, list(map(head.__add__, map(str.encode, keys))), found)
    for number, rows in layer.rows.items():
        yield from _rows_in_order(number, rows)


def _take_apart(states: States) -> Iterator[None]:
    """Each state for itself. What is apart lets go of its commit."""
    together: Groups = {}
    for groups in states.groups(STEP_ROWS):
        together |= groups
        yield None
    apart = 0
    while together:
        _, group = together.popitem()
        states.take_apart(group)
        apart += len(group.numbers)
        if apart > STEP_ROWS:
            apart = 0
            yield None


def _rows_in_order(number: int, rows: dict[bytes, bytes | None]) -> Iterator[Rows | None]:
    slotted = number in SLOTTED
    dealt: dict[bytes, list[bytes]] = {}
    for keys in _pieces(rows):
        for key in keys:
            dealt.setdefault(key[:2] if slotted else b"", []).append(key)
        yield None
    table = tree_key(number, b"")
    for prefix in sorted(dealt):
        keys = sorted(dealt[prefix])
        slot = int.from_bytes(prefix, "big") if slotted else HOUSE_SLOT
        yield Rows(slot, list(map(table.__add__, keys)), list(map(rows.__getitem__, keys)))


def _pieces(whole: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(whole)
    while piece := list(islice(rest, STEP_ROWS)):
        yield piece


def write(txn: Any, files: Environment, carried: Iterable[Rows]) -> None:
    """Rows into the tree; the fingerprints of their slots follow."""
    cursor = txn.cursor(db=files.rows)
    for rows in carried:
        keys, values = rows.keys, rows.values
        old = cursor.getmulti(keys)
        if type(None) in set(map(type, values)):
            staying = {key: value for key, value in zip(keys, values) if value is not None}
            for key, _ in old:
                if key not in staying:
                    txn.delete(key, db=files.rows)
            keys, values = list(staying), list(staying.values())
        new = sealed(keys, list(map(_bytes, values)))
        cursor.putmulti(zip(keys, new))
        note(txn, files.slots, rows.slot, [stored for _, stored in old], new, files.path)


_bytes: Callable[[Any], bytes] = bytes
"""Of a `Raw`, too: a copy of what it stands for."""
