"""Items on their way to sinks: each numbered once, and kept until its sink has it.

    emit -> stream to the partition's shard -> stages -> number, row -> durable -> Write -> Written

A partition of an output lives in a slot, like an entity: its items are rows of that slot, and so
is the number of its newest item. An item has its number from the commit that took it, so it has
the same one each time that it is handed out; after a crash all that is still a row is handed out
again, and a sink that keeps the number of what it has drops the repeats. One write of a
partition is under way at a time, so its items leave in order.

An app that is restored from a backup gives other items the numbers that came after it. So each
life of an app but the first numbers its items anew, in partitions of its own: "0-5be1c0de" beside
"0", where the items go on that the backup still held.

What a batch takes is staged until it is sealed. No I/O, no clock. Idea: docs/ideas/sinks.md.
Asserts I1, I3 for what leaves by sinks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile

import msgspec
import xxhash
from msgspec import Struct

from skerry.runtime.core.commit import slot_in, slot_prefix
from skerry.runtime.core.events import Row, Table, Write, Written
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Outlet
from skerry.runtime.core.tables.table import Stamp, StoredRow

WRITE_ITEMS = 2000
WRITE_BYTES = 1 << 20
"""Target size of a write: rows are handed out whole, and a row holds one item at least."""

UNWRITTEN_MAX = 200_000
"""Items that no sink has yet; above, sources and clients pause (I7)."""

_encode = msgspec.msgpack.Encoder().encode


Where = tuple[str, int, str]
"""(output, sink, partition)."""


def home(output: str) -> str:
    """Return the type name under which the partitions of an output live in slots."""
    return f"output {output}"


class NumberRow(Struct, array_like=True, frozen=True):
    """A row of the OUTPUT_NUMBER table: the number of the newest item of a partition at a sink."""

    output: str
    sink: int
    partition: str
    number: int


class _Items(Struct):
    """A row of items, which stays in the store."""

    key: bytes
    first: int
    count: int
    bytes: int
    commit: int


class _End:
    """A partition at a sink, and what the open batch does to it."""

    __slots__ = ("filled", "gone", "key", "number", "rows", "taken", "where", "writing")

    def __init__(self, where: Where) -> None:
        output, _, partition = where
        slot = slot_of(home(output), partition.partition("-")[0])
        self.where = where
        self.key = slot_prefix(slot) + xxhash.xxh3_128_digest(_encode(where))
        self.number = 0
        """The number of the newest item."""
        self.rows: deque[_Items] = deque()
        self.writing = 0
        """The newest number of the write that is under way; 0: none is."""
        self.unstage()

    @property
    def slot(self) -> int:
        """The slot that it lives in."""
        return slot_in(self.key)

    def unstage(self) -> None:
        """Forget what the open batch has done."""
        self.taken: list[list[bytes]] = []
        """Items that were taken, as the rows that they will be."""
        self.filled = WRITE_BYTES
        """Bytes in the last of these rows."""
        self.gone = 0
        """The number up to which the sink has all items."""

    def take(self, item: bytes) -> None:
        """Add an item to the rows of the open batch."""
        self.filled += len(item)
        if self.filled > WRITE_BYTES:
            self.taken.append([])
            self.filled = len(item)
        self.taken[-1].append(item)

    def items(self) -> Iterator[tuple[_Items, list[bytes]]]:
        """Yield the rows of the open batch."""
        first = self.number + 1
        for items in self.taken:
            key = self.key + first.to_bytes(8, "big")
            yield _Items(key, first, len(items), sum(map(len, items)), 0), items
            first += len(items)

    def written(self) -> Iterator[_Items]:
        """Yield the rows that the sink has."""
        return takewhile(lambda row: row.first <= self.gone, self.rows)


class Outputs:
    """The outputs whose partitions live on one shard.

    Args:
        outlets: the stages between each output and its sinks.
        life: names the life of the app; empty in its first.
        read: reads a row of the newest commit.
    """

    ids = (Table.OUTPUT_NUMBER, Table.OUTPUT)

    def __init__(
        self, outlets: dict[str, Outlet], life: str, read: Callable[[int, bytes], bytes | None]
    ) -> None:
        self._outlets, self._life, self._read = outlets, life, read
        self._ends: dict[Where, _End] = {}
        self._changed: dict[Where, _End] = {}
        """Ends that the open batch changes; new ones among them."""
        self.unwritten = 0
        """Items that no sink has yet."""

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory, numbers before items."""
        by_key: dict[bytes, _End] = {}
        for table, key, value in rows:
            if table == Table.OUTPUT_NUMBER:
                known = msgspec.msgpack.decode(value, type=NumberRow)
                where = known.output, known.sink, known.partition
                end = self._ends[where] = by_key[bytes(key)] = _End(where)
                end.number = known.number
                continue
            end = by_key[bytes(key[:18])]
            output, sink, _ = end.where
            outlet = self._outlets.get(output)
            if outlet is None or sink >= outlet.ends:
                continue  # This release has no way out for it: it stays until one has.
            count = len(msgspec.msgpack.decode(value, type=list[bytes]))
            first = int.from_bytes(key[18:], "big")
            end.rows.append(_Items(bytes(key), first, count, len(value), 0))
            self.unwritten += count

    # ── within a batch ──

    def take(self, output: str, partition: str, item: bytes) -> None:
        """Take an item. Raises whatever its stages raise; then nothing was taken."""
        outlet = self._outlets.get(output)
        if outlet is None:
            raise LookupError(f"this release has no output {output!r}")
        if self._life:
            partition = f"{partition}-{self._life}"
        for sink, items in outlet.apply([item]):
            where = output, sink, partition
            end = self._changed.get(where)
            if end is None:
                end = self._changed[where] = self._ends.get(where) or _End(where)
            for out in items:
                end.take(out)

    def written(self, event: Written) -> None:
        """Note that a sink has all items up to a number."""
        where = event.output, event.sink, event.partition
        end = self._ends.get(where)
        if end is not None and end.writing == event.upto:
            end.gone = event.upto
            self._changed[where] = end

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes."""
        for end in self._changed.values():
            newest = end.number
            for row, items in end.items():
                yield Table.OUTPUT, row.key, _encode(items)
                newest += row.count
            if newest > end.number:
                yield Table.OUTPUT_NUMBER, end.key, _encode(NumberRow(*end.where, newest))
            for row in end.written():
                yield Table.OUTPUT, row.key, None

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for where, end in self._changed.items():
            for row in list(end.written()):
                end.rows.popleft()
                self.unwritten -= row.count
            if end.gone:
                end.writing = 0
            for row, _ in list(end.items()):
                row.commit = stamp.no
                end.rows.append(row)
                end.number += row.count
                self.unwritten += row.count
            end.unstage()
            self._ends[where] = end
        self._changed.clear()

    def undo(self) -> None:
        """Forget the batch's changes."""
        for end in self._changed.values():
            end.unstage()
        self._changed.clear()

    # ── between batches ──

    def offer(self, durable: int, leaving: frozenset[int] = frozenset()) -> list[Write]:
        """Return the writes that may begin: of each partition that has none under way, in order; of
        slots that leave none, since their new owner begins with these items."""
        writes = []
        for where, end in self._ends.items():
            if leaving and end.slot in leaving:
                continue
            if end.writing or not end.rows or end.rows[0].commit > durable:
                continue
            first, items, size = end.rows[0].first, list[bytes](), 0
            for row in end.rows:
                size += row.bytes
                full = len(items) >= WRITE_ITEMS or (items and size > WRITE_BYTES)
                if row.commit > durable or full:
                    break
                assert row.first == first + len(items), f"I1: a gap before item {row.first}"
                stored = self._read(Table.OUTPUT, row.key)
                assert stored is not None, f"I1: the row of item {row.first} is gone"
                items += msgspec.msgpack.decode(stored, type=list[bytes])
            end.writing = first + len(items) - 1
            writes.append(Write(*where, first, items))
        return writes

    def writing(self, slots: frozenset[int]) -> set[int]:
        """Those of these slots of which a partition is being written."""
        return {end.slot for end in self._ends.values() if end.writing and end.slot in slots}

    @property
    def pressed(self) -> bool:
        """Whether sources and clients should pause: sinks are far behind."""
        return self.unwritten > UNWRITTEN_MAX

    def drop(self, slot: int) -> None:
        """Forget the partitions of a slot."""
        for where, end in list(self._ends.items()):
            if end.key.startswith(slot_prefix(slot)):
                self.unwritten -= sum(row.count for row in end.rows)
                del self._ends[where]

    def stats(self) -> dict[str, int]:
        """Return how many items wait for their sinks."""
        return {"unwritten": self.unwritten}


def partition_of(type_name: str, key: str, partitions: int) -> str:
    """Return the partition of an entity's items: always the same, so that they stay in order."""
    return str(slot_of(type_name, key) % partitions)
