"""A checkpoint: the rows of a frozen layer of the memtable, carried down to the tree in slices.

All rows go down in the order of the tree. Then each page of the tree is written once per
checkpoint, where rows in any other order would write a page for nearly every row. Sorting
everything at once would make the shard wait; the memtable keeps its rows by slot, so each slot is
sorted when its turn comes.

Rows of one slot travel as columns, so what is done to each row is done by loops in C.

What is sealed meanwhile plays no part: the frozen layer does not change. Knows LMDB transactions
and bytes, and nothing of threads. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from operator import itemgetter
from typing import Any

from msgspec import Struct

from skerry.runtime.core import commit as records
from skerry.runtime.core.events import SLOTTED, Table
from skerry.runtime.store.environment import Environment
from skerry.runtime.store.memtable import Entry, Groups, Layer, States, TableRows, tree_key
from skerry.runtime.store.tree import SHARD_SLOT, note, sealed

STEP_ROWS = 4096
"""States split off their commits' arrays in one step: about 2 ms of the worker's thread."""

STEP_COST = STEP_ROWS // 4
"""What a step costs, in rows that are written."""


class SortedRun(Struct, frozen=True, gc=False):
    """Rows of one table and slot, in the order of the tree."""

    slot: int
    keys: list[bytes]
    """The keys in the tree."""
    values: list[Entry]
    """None: the row is deleted."""


class Slices:
    """All rows of a layer, in the order of the tree."""

    def __init__(self, layer: Layer) -> None:
        self._runs = _in_order(layer)

    def take(self, rows: int) -> list[SortedRun] | None:
        """Take about `rows` rows' worth of work; it may bring none yet. None: all were taken."""
        taken: list[SortedRun] = []
        for run in self._runs:
            if run is None:
                rows -= STEP_COST
            else:
                taken.append(run)
                rows -= len(run.keys)
            if rows <= 0:
                return taken
        return taken or None


def _in_order(layer: Layer) -> Iterator[SortedRun | None]:
    """Yield the rows, sorted within each table; None is a step that brings no rows."""
    for states in layer.states.values():
        yield from _take_apart(states)
    table = tree_key(Table.STATE, b"")
    named = ((records.type_id(name), states) for name, states in layer.states.items())
    types = sorted(named, key=itemgetter(0))
    for slot in sorted(set(chain.from_iterable(states.slots for _, states in types))):
        for type_id, states in types:
            keys, entries = states.in_slot(slot)
            if keys:
                head = table + records.slot_prefix(slot) + type_id
                # Text sorts as its UTF-8 bytes do.
                yield SortedRun(slot, list(map(head.__add__, map(str.encode, keys))), entries)
    for number, rows in layer.rows.items():
        yield from _rows_in_order(number, rows)


def _take_apart(states: States) -> Iterator[None]:
    """Split the commits' arrays, and so let go of them, in bounded steps."""
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


def _rows_in_order(number: int, rows: TableRows) -> Iterator[SortedRun]:
    table = tree_key(number, b"")
    for prefix in sorted(rows.slots):
        keys = rows.slots.keys(prefix)
        slot = int.from_bytes(prefix, "big") if number in SLOTTED else SHARD_SLOT
        values = list(map(rows.__getitem__, keys))
        yield SortedRun(slot, list(map(table.__add__, keys)), values)


def write(txn: Any, files: Environment, runs: Iterable[SortedRun]) -> None:
    """Put rows into the tree, and update the fingerprints of their slots."""
    cursor = txn.cursor(db=files.rows)
    for run in runs:
        keys, values = run.keys, run.values
        old = cursor.getmulti(keys)
        if type(None) in set(map(type, values)):
            staying = {key: value for key, value in zip(keys, values) if value is not None}
            for key, _ in old:
                if key not in staying:
                    txn.delete(key, db=files.rows)
            keys, values = list(staying), list(staying.values())
        new = sealed(keys, list(map(_bytes, values)))
        cursor.putmulti(zip(keys, new))
        note(txn, files.slots, run.slot, [stored for _, stored in old], new, files.path)


_bytes: Callable[[Any], bytes] = bytes
"""Copies what a `Raw` stands for, too."""
