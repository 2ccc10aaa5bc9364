"""A sweep: what the overlay holds, carried down to the tree, a bounded piece at a time.

Rows go down in the order of the tree, all of them and not some at a time: then each page is
written once in a sweep, where rows in any order would write a page for nearly every row. To
sort them all at once would make the shard wait, so they are dealt out by slot first, some
thousands a step, and a slot is sorted when its turn has come.

A sweep never looks at what is sealed meanwhile: the layer that it carries does not change.
Knows LMDB transactions and bytes; nothing of threads. Idea: docs/log.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from skerry.runtime.shard import commit as records
from skerry.runtime.shard.events import SLOTTED, Table
from skerry.runtime.shard.placement import slots_of
from skerry.runtime.store.files import Environment
from skerry.runtime.store.overlay import Entry, Layer, tree_key
from skerry.runtime.store.tree import note, sealed

T = TypeVar("T")

STEP_ROWS = 4096
"""Rows dealt out in a step: about two milliseconds of the worker's thread."""

STEP_COST = STEP_ROWS // 4
"""What a step costs, in rows that are written."""

Carried = tuple[bytes, Entry]
"""(key in the tree, value or None for a deletion)."""

KEY = itemgetter(0)


class Sweep:
    """What a layer holds, in the order of the tree."""

    def __init__(self, layer: Layer, covers: int) -> None:
        self.covers = covers
        """When all of it is in the tree, so is every commit up to this one."""
        self._chunks = _in_order(layer)

    def take(self, rows: int) -> list[Carried] | None:
        """Work for about so many rows, sorted; may be none yet. None: all were taken."""
        carried: list[Carried] = []
        while rows > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                return carried or None
            carried += chunk
            rows -= len(chunk) or STEP_COST
        return carried


def _in_order(layer: Layer) -> Iterator[list[Carried]]:
    """Sorted chunks, each behind the one before it but for the table; an empty one is a step."""
    by_slot: dict[int, list[tuple[str, list[str]]]] = {}
    for type_name, states in layer.states.items():
        known = states.by_key()
        own: dict[int, list[str]] = {}
        for keys in _pieces(known):
            for slot, key in zip(slots_of(type_name, keys), keys):
                own.setdefault(slot, []).append(key)
            yield []
        for slot, keys in own.items():
            by_slot.setdefault(slot, []).append((type_name, keys))
    table = tree_key(Table.STATE, b"")
    for slot in sorted(by_slot):
        chunk: list[Carried] = []
        for type_name, keys in by_slot[slot]:
            known = layer.states[type_name].by_key()
            head = table + records.slot_prefix(slot) + records.type_id(type_name)
            chunk += [(head + key.encode(), known[key]) for key in keys]
        yield sorted(chunk, key=KEY)
    for number, rows in layer.rows.items():
        yield from _rows_in_order(number, rows)


def _rows_in_order(number: int, rows: dict[bytes, bytes | None]) -> Iterator[list[Carried]]:
    dealt: dict[bytes, list[bytes]] = {}
    for keys in _pieces(rows):
        for key in keys:
            dealt.setdefault(key[:2] if number in SLOTTED else b"", []).append(key)
        yield []
    table = tree_key(number, b"")
    for prefix in sorted(dealt):
        yield [(table + key, rows[key]) for key in sorted(dealt[prefix])]


def _pieces(whole: Iterable[T]) -> Iterator[Sequence[T]]:
    rest = iter(whole)
    while piece := list(islice(rest, STEP_ROWS)):
        yield piece


def write(txn: Any, files: Environment, carried: list[Carried]) -> None:
    """Rows into the tree, sorted, of any tables; the fingerprints follow."""
    start = 0
    while start < len(carried):
        table = carried[start][0][0]
        end = start + sum(1 for key, _ in carried[start:] if key[0] == table)
        _write_table(txn, files, carried[start:end])
        start = end


def _write_table(txn: Any, files: Environment, carried: list[Carried]) -> None:
    cursor = txn.cursor(db=files.rows)
    old = cursor.getmulti([key for key, _ in carried])
    new = sealed((key, bytes(value)) for key, value in carried if value is not None)
    cursor.putmulti(new)
    for key in {key for key, value in carried if value is None}.intersection(dict(old)):
        txn.delete(key, db=files.rows)
    note(txn, files.slots, old, new)
