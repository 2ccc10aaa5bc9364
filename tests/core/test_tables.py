"""What every table promises: one suite over all of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct, structs
from msgspec.msgpack import encode

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Outcome, Request, Row, Table, Written
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.tables.asks import Ask, Asks
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.names import Names
from skerry.runtime.core.tables.outputs import Outputs, home
from skerry.runtime.core.tables.positions import Positions, partition_slot
from skerry.runtime.core.tables.requests import FloorRow, Requests
from skerry.runtime.core.tables.retention import LIFETIME_NS
from skerry.runtime.core.tables.table import SlotTable, Stamp, StoredRow
from skerry.runtime.core.tables.timers import Timer, Timers, timer_key
from skerry.turn import Turn

PLACES = 6
"""Entities, or partitions, that a table has something of; each lives in a slot of its own."""


class Stored:
    """The rows of a store."""

    def __init__(self) -> None:
        self.rows: dict[tuple[int, bytes], bytes] = {}

    def read(self, table: int, key: bytes) -> bytes | None:
        return self.rows.get((table, key))

    def scan(
        self, table: int, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        for (of, key), value in sorted(self.rows.items()):
            if of == table and key.startswith(prefix) and key > after:
                yield key, value

    def write(self, rows: list[Row]) -> None:
        for table, key, value in rows:
            if value is None:
                del self.rows[table, key]
            else:
                self.rows[table, key] = value

    def of(self, table: SlotTable, *, without: int | None = None) -> list[StoredRow]:
        """The rows that a table loads, but for those of a slot."""
        prefix = b"" if without is None else without.to_bytes(2, "big")
        return [
            (id, key, value)
            for id in table.ids
            for key, value in self.scan(id)
            if not prefix or not key.startswith(prefix)
        ]


class Kind:
    """A kind of table: how it is made, changed and looked at."""

    forgets: tuple[str, ...] = ()
    """What memory holds of it that no row says."""

    def __init__(self) -> None:
        self.stored = Stored()
        self.ids = count(1)

    def make(self) -> Any:
        raise NotImplementedError

    def change(self, table: Any, place: int, step: int) -> None:
        """Change something of a place; some steps add, some remove."""
        raise NotImplementedError

    def slot(self, place: int) -> int:
        return slot_of("Shop", f"k{place}")

    def look(self, table: Any) -> object:
        """What memory holds."""
        held = {name: value for name, value in vars(table).items() if name not in self.forgets}
        return {name: plain(value) for name, value in held.items() if not callable(value)}


def plain(value: Any) -> Any:
    """A value as one that can be compared, without what is empty."""
    if isinstance(value, dict):
        found = {key: plain(one) for key, one in value.items()}
        return {key: one for key, one in found.items() if one not in ({}, [])}
    if isinstance(value, list | tuple | deque):
        return [plain(one) for one in value]
    if isinstance(value, Struct):
        return plain(structs.astuple(value))
    if slots := getattr(type(value), "__slots__", None):
        return [plain(getattr(value, name)) for name in slots]
    return value


class OfTimers(Kind):
    forgets = ("_heap", "_order")

    def make(self) -> Timers:
        return Timers()

    def change(self, table: Timers, place: int, step: int) -> None:
        key = f"k{place}"
        if step == 4:
            table.cancel_all("Shop", key)
            return
        row_key = timer_key("Shop", key, f"t{step % 2}")
        if step < 2:
            table.set(
                row_key, Timer("named", next(self.ids), "Shop", key, f"t{step}", 1, 2, b"\x90")
            )
        else:
            table.cancel(row_key)


class OfAsks(Kind):
    forgets = ("late",)

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[int, list[bytes]] = {}

    def make(self) -> Asks:
        return Asks()

    def change(self, table: Asks, place: int, step: int) -> None:
        asked = self.asked.setdefault(place, [])
        if step < 3:
            slot = slot_prefix(slot_of("Shop", f"k{place}"))
            asked.append(slot + next(self.ids).to_bytes(24, "big"))
            table.add(Ask("Shop", f"k{place}", asked[-1], True, None, None, None))
        elif step == 3 and asked:
            table.take("Shop", f"k{place}", asked.pop())
        else:
            table.take_all("Shop", f"k{place}")


class OfPositions(Kind):
    def make(self) -> Positions:
        return Positions()

    def slot(self, place: int) -> int:
        return partition_slot("file", str(place))

    def change(self, table: Positions, place: int, step: int) -> None:
        table.move("file", str(place), next(self.ids))


class Outlet:
    """Hands every item to one sink."""

    ends = 1

    def emitted(self, item: object) -> bytes:
        raise NotImplementedError

    def apply(self, items: Any) -> Any:
        return [(0, items)]


class OfOutputs(Kind):
    def make(self) -> Outputs:
        return Outputs({"out": Outlet()}, "", self.stored.read)

    def slot(self, place: int) -> int:
        return slot_of(home("out"), str(place))

    def change(self, table: Outputs, place: int, step: int) -> None:
        if step < 3:
            table.take("out", str(place), b"item %d" % next(self.ids))
            return
        for write in table.offer(1 << 62):
            table.written(Written(write.output, write.sink, write.partition, write.written.upto))

    def look(self, table: Outputs) -> object:
        """The commit of an item, and what a sink has under way, are of this life only."""
        return {
            where: [end.number, [(row.first, row.count) for row in end.rows]]
            for where, end in table._ends.items()
        }, table.unwritten


class OfDeadLetters(Kind):
    forgets = ("_turn", "_names", "added")

    def make(self) -> DeadLetters:
        return DeadLetters(Turn(), lambda: next(self.ids).to_bytes(24, "big"), {})

    def change(self, table: DeadLetters, place: int, step: int) -> None:
        prefix = self.slot(place).to_bytes(2, "big")
        there = [key for (_, key) in self.stored.rows if key.startswith(prefix) and len(key) > 2]
        if step > 2 and there and not table.is_gone(there[0]):
            table.remove(there[0])
        else:
            table.bury("Shop", f"k{place}", "raised")


class OfRequests(Kind):
    def make(self) -> Requests:
        return Requests(self.stored, Limits())  # type: ignore[arg-type]

    def change(self, table: Requests, place: int, step: int) -> None:
        session = table.session(bytes([step]) * 16)
        number = next(self.ids)
        table.ran(session, "done", [number], [self.slot(place)], [Raw(b"%c" % (number % 100))])

    def look(self, table: Requests) -> object:
        """Each outcome, and where it is kept."""
        found = {}
        for step in range(5):
            id = bytes([step]) * 16
            session = table.session(id) if table.knows(id) else None
            for slot, rows in session.kept.items() if session else ():
                outcomes = {n: row.outcome(n) for row in rows for n in row.numbers}
                found[step, slot] = outcomes
        table.undo()
        return found


class OfNames(Kind):
    """Its memory holds nothing but the open batch, so that it is judged by what it answers."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[Request, int]] = []

    def make(self) -> Names:
        return Names(self.stored)  # type: ignore[arg-type]

    def change(self, table: Names, place: int, step: int) -> None:
        slot, number = self.slot(place), next(self.ids)
        if step == 4:
            table.expire(slot, 2 * LIFETIME_NS)
            return
        name = number.to_bytes(16, "big")
        request = Request(None, name, True, "Shop", "buy", True, 0, 1, 0, f"k{place}", Raw(b"\x90"))
        table.ran(request, slot, Outcome("done", encode(number)))
        self.asked.append((request, slot))

    def look(self, table: Names) -> object:
        """The outcome of each request that has one."""
        told = {request.session: table.judge(request, slot, 0) for request, slot in self.asked}
        return {name: outcome for name, outcome in told.items() if outcome is not None}


KINDS = (OfTimers, OfAsks, OfPositions, OfOutputs, OfDeadLetters, OfRequests, OfNames)
MakeKind = Callable[[], Kind]
every_kind = pytest.mark.parametrize("make", KINDS, ids=lambda kind: kind.__name__[2:].lower())
CHANGES = st.lists(st.tuples(st.integers(0, PLACES - 1), st.integers(0, 4)), max_size=12)
BATCHES = st.lists(CHANGES, max_size=4)


def run(kind: Kind, table: SlotTable, changes: list[tuple[int, int]]) -> None:
    for place, step in changes:
        kind.change(table, place, step)


def seal(kind: Kind, table: SlotTable, no: int) -> None:
    stamp = Stamp(no, no)
    kind.stored.write(list(table.rows(stamp)))
    table.sealed(stamp)


def filled(kind: Kind, batches: list[list[tuple[int, int]]]) -> SlotTable:
    """A table after some batches."""
    table: SlotTable = kind.make()
    for no, changes in enumerate(batches, 1):
        run(kind, table, changes)
        seal(kind, table, no)
    return table


@every_kind
@settings(max_examples=40)
@given(batches=BATCHES)
def test_a_table_that_is_loaded_from_its_rows_is_the_same(
    make: MakeKind, batches: list[list[tuple[int, int]]]
) -> None:
    kind = make()
    table, again = filled(kind, batches), kind.make()
    again.load(kind.stored.of(again))
    assert kind.look(again) == kind.look(table)


@every_kind
@settings(max_examples=40)
@given(batches=BATCHES, changes=CHANGES)
def test_a_batch_that_is_thrown_away_leaves_a_table_as_it_was(
    make: MakeKind, batches: list[list[tuple[int, int]]], changes: list[tuple[int, int]]
) -> None:
    kind = make()
    table = filled(kind, batches)
    before = kind.look(table)
    run(kind, table, changes)
    list(table.rows(Stamp(99, 99)))
    table.undo()
    assert kind.look(table) == before
    assert not list(table.rows(Stamp(99, 99)))


@every_kind
@settings(max_examples=40)
@given(batches=BATCHES, place=st.integers(0, PLACES - 1))
def test_a_slot_that_is_dropped_leaves_nothing_and_all_others_stay(
    make: MakeKind, batches: list[list[tuple[int, int]]], place: int
) -> None:
    kind = make()
    table, never = filled(kind, batches), kind.make()
    slot = kind.slot(place)
    table.drop(slot)
    never.load(kind.stored.of(never, without=slot))
    assert kind.look(table) == kind.look(never)
    assert table.stats().keys() == never.stats().keys()


@every_kind
def test_rows_of_a_slot_begin_with_it(make: MakeKind) -> None:
    """So a slot's rows are one scan, and moving them is moving the slot."""
    for place in range(PLACES):
        kind = make()
        table: SlotTable = kind.make()
        kind.change(table, place, 0)
        rows = list(table.rows(Stamp(1, 1)))
        assert rows
        assert {key[:2] for _, key, _ in rows} == {kind.slot(place).to_bytes(2, "big")}


def test_a_mark_is_read_anew_when_its_slot_was_dropped_and_comes_back() -> None:
    """Meanwhile another shard may have answered requests, and forgotten what was confirmed."""
    kind, id, slot = OfRequests(), bytes(16), 5
    table = kind.make()
    assert table.session(id).mark(slot) == 0
    table.undo()
    table.drop(slot)
    kind.stored.rows[Table.FLOOR, slot.to_bytes(2, "big") + id] = encode(FloorRow(7, 1))
    assert table.session(id).mark(slot) == 7
