"""What goes out to sinks: numbered once, kept until its sink has it.

    emit -> stream to the partition's shard -> stages -> number, row -> durable -> Write -> Written

A partition of an output lives in a slot, like an entity: its items are rows of that slot, and so
is the number of its newest item. An item has its number from the commit that took it, so it has
the same one each time that it is handed out; after a crash all that is still a row is handed out
again, and a sink that keeps the number of what it has drops the repeats. One write of a
partition is under way at a time, so its items leave in order.

What is restored from a backup has other items under the numbers that came after it. So each
life of an app but the first numbers its items anew, in partitions of its own: "0-5be1c0de" beside
"0", where what the backup still held goes on.

What a batch takes is staged until it is sealed. No I/O, no clock. Idea: docs/sinks.md.
Asserts I1, I3 for what leaves by sinks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import msgspec
import xxhash
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Row, Table, Write, Written
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Outlet
from skerry.runtime.core.tables.table import Stamp, StoredRow

WRITE_ITEMS = 2000
WRITE_BYTES = 1 << 20
"""What one write holds, about: rows are handed out whole, and a row holds one item at least."""

UNWRITTEN_MAX = 200_000
"""Items that no sink has yet; above, intake from outside pauses (I7)."""

_encode = msgspec.msgpack.Encoder().encode


Where = tuple[str, int, str]
"""(output, sink, partition)."""


def home(output: str) -> str:
    """The type name under which the partitions of an output live in slots."""
    return f"output {output}"


class NumberRow(Struct, array_like=True, frozen=True):
    """The number of the newest item of a partition at a sink."""

    output: str
    sink: int
    partition: str
    number: int


class _Kept(Struct):
    """A row of items, as memory knows it."""

    key: bytes
    first: int
    count: int
    bytes: int
    commit: int


class _End:
    """One partition at one sink."""

    __slots__ = ("number", "output", "rows", "sink", "writing")

    def __init__(self, output: str, sink: int) -> None:
        self.output, self.sink, self.number = output, sink, 0
        self.rows: deque[_Kept] = deque()
        self.writing = 0
        """The newest number of the write that is under way; 0 for none."""


class Outputs:
    """The outputs whose partitions live on one shard."""

    ids = (Table.OUTPUT_NUMBER, Table.OUTPUT)

    def __init__(
        self, outlets: dict[str, Outlet], life: str, read: Callable[[int, bytes], bytes | None]
    ) -> None:
        self._outlets, self._life, self._read = outlets, life, read
        self._ends: dict[Where, _End] = {}
        self._new: dict[Where, list[list[bytes]]] = {}
        """What the batch took: the rows that it will be, and of each newest one its bytes."""
        self._filled: dict[Where, int] = {}
        self._gone: list[tuple[_End, int]] = []
        self.unwritten = 0
        """Items that no sink has yet."""

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory, numbers before items."""
        by_key: dict[bytes, _End] = {}
        for table, key, value in rows:
            if table == Table.OUTPUT_NUMBER:
                row = msgspec.msgpack.decode(value, type=NumberRow)
                where = row.output, row.sink, row.partition
                end = self._ends[where] = by_key[bytes(key)] = _End(row.output, row.sink)
                end.number = row.number
                continue
            end = by_key[bytes(key[:18])]
            outlet = self._outlets.get(end.output)
            if outlet is None or end.sink >= outlet.ends:
                continue  # This release has no way out for it: it stays until one has.
            items = msgspec.msgpack.decode(value, type=list[bytes])
            first = int.from_bytes(key[18:], "big")
            end.rows.append(_Kept(bytes(key), first, len(items), len(value), 0))
            self.unwritten += len(items)

    # ── within a batch ──

    def take(self, output: str, partition: str, item: bytes) -> None:
        """An item has come. Raises whatever its stages raise; then nothing was taken."""
        outlet = self._outlets.get(output)
        if outlet is None:
            raise LookupError(f"this release has no output {output!r}")
        if self._life:
            partition = f"{partition}-{self._life}"
        for sink, items in outlet.apply([item]):
            where = output, sink, partition
            for out in items:
                filled = self._filled.get(where, WRITE_BYTES) + len(out)
                if filled > WRITE_BYTES:
                    self._new.setdefault(where, []).append([])
                    filled = len(out)
                self._new[where][-1].append(out)
                self._filled[where] = filled

    def written(self, event: Written) -> None:
        """A sink has everything up to this number."""
        end = self._ends.get((event.output, event.sink, event.partition))
        if end is not None and end.writing == event.upto:
            self._gone.append((end, event.upto))

    def undo(self) -> None:
        """The batch is thrown away."""
        self._new.clear()
        self._filled.clear()
        self._gone.clear()

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """What the batch's commit says of outputs."""
        for where, taken in self._new.items():
            end, key = self._ends.get(where), _key(where)
            number = end.number if end is not None else 0
            for items in taken:
                yield Table.OUTPUT, key + (number + 1).to_bytes(8, "big"), _encode(items)
                number += len(items)
            yield Table.OUTPUT_NUMBER, key, _encode(NumberRow(*where, number))
        for end, upto in self._gone:
            for kept in end.rows:
                if kept.first > upto:
                    break
                yield Table.OUTPUT, kept.key, None

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for end, upto in self._gone:
            while end.rows and end.rows[0].first <= upto:
                self.unwritten -= end.rows.popleft().count
            end.writing = 0
        for where, taken in self._new.items():
            end = self._ends.setdefault(where, _End(*where[:2]))
            key = _key(where)
            for items in taken:
                first, count = end.number + 1, len(items)
                row = key + first.to_bytes(8, "big")
                end.rows.append(_Kept(row, first, count, sum(map(len, items)), stamp.no))
                end.number += count
                self.unwritten += count
        self._new.clear()
        self._filled.clear()
        self._gone.clear()

    # ── between batches ──

    def drop(self, slot: int) -> None:
        """Forget the partitions of a slot."""
        for where, end in list(self._ends.items()):
            if _slot(where) == slot:
                self.unwritten -= sum(kept.count for kept in end.rows)
                del self._ends[where]

    def stats(self) -> dict[str, int]:
        """Return how many items wait for their sinks."""
        return {"unwritten": self.unwritten}

    def offer(self, durable: int) -> list[Write]:
        """What sinks may have now: of each partition that has none under way, in order."""
        writes = []
        for where, end in self._ends.items():
            if end.writing or not end.rows or end.rows[0].commit > durable:
                continue
            first, items, size = end.rows[0].first, list[bytes](), 0
            for kept in end.rows:
                size += kept.bytes
                full = len(items) >= WRITE_ITEMS or (items and size > WRITE_BYTES)
                if kept.commit > durable or full:
                    break
                assert kept.first == first + len(items), f"I1: a gap before item {kept.first}"
                stored = self._read(Table.OUTPUT, kept.key)
                assert stored is not None, f"I1: the row of item {kept.first} is gone"
                items += msgspec.msgpack.decode(stored, type=list[bytes])
            end.writing = first + len(items) - 1
            writes.append(Write(*where, first, items))
        return writes

    @property
    def pressed(self) -> bool:
        """Whether intake from outside should pause: sinks are far behind."""
        return self.unwritten > UNWRITTEN_MAX


def _slot(where: Where) -> int:
    output, _, partition = where
    return slot_of(home(output), partition.partition("-")[0])


def _key(where: Where) -> bytes:
    return slot_prefix(_slot(where)) + xxhash.xxh3_128_digest(_encode(where))


def partition_of(type_name: str, key: str, partitions: int) -> str:
    """Where an entity's items go: always to the same partition, so that they stay in order."""
    return str(slot_of(type_name, key) % partitions)
