"""Reads partitions of sources, batch by batch, so that the worker never waits.

A source that offers `batches` promises not to block, and is read in the worker's own loop, which is
fastest; of its partitions, which may be thousands of files, only some are open at once. Any other
source is read ahead by a thread per partition, behind a queue of a few batches. Either way the
shard is told which position a batch follows, and asks for a rewind when that is not the newest.

Does the I/O of sources and nothing else. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from skerry.errors import SkerryError
from skerry.runtime.core.events import Items
from skerry.stream.ends import BadRow

BATCH_ITEMS = 2048
"""Items that are read at once. A batch of turns takes as many of them as it has time for."""

QUEUED_BATCHES = 4
"""Batches that a thread reads ahead; more would only use memory."""

OPEN_MAX = 64
"""Partitions that the worker's loop reads in turn, while others wait: each may be an open file, of
which a process has few."""

SLICE_BATCHES = 64
"""Batches of a partition before one that waits takes its place: to open a partition costs time."""

Batch = tuple[Sequence[Any], Sequence[Any]]
"""Positions and the items at them."""

END: Batch = ((), ())


class Partition:
    """The reading end of one partition."""

    def __init__(
        self, name: str, source: Any, partition: str, after: Any, wake: Callable[[], None]
    ) -> None:
        if type(partition) is not str:
            raise SkerryError(f"Source {name}: a partition's name is a str, not {partition!r}.")
        self.name, self.partition = name, partition
        self.source, self._wake = source, wake
        self.inline = hasattr(source, "batches")
        """Whether the worker's loop can read the partition without waiting for a thread."""
        self.start_at(after)

    def start_at(self, after: Any) -> None:
        """Go on behind this position."""
        self.position = after
        self.finished = False
        self._rest: Batch | None = None
        """The part of a batch that was read and not wanted yet."""
        self.taken = 0
        """Batches since the partition was opened."""
        if self.inline:
            self._batches = self.source.batches(self.partition, after, BATCH_ITEMS)
            self._next = self._next_inline
        else:
            self._thread = _Thread(self.source, self.partition, after, self._wake)
            self._next = self._thread.poll

    def _next_inline(self) -> Batch | None:
        return next(self._batches, END)

    def next(self, items_max: int) -> Items | None:
        """Return the next batch of at most this many items; None: there is none now. Raises what the
        source raised."""
        if self.finished:
            return None
        batch, self._rest = self._rest or self._next(), None
        if batch is None:
            return None
        positions, items = batch
        if len(positions) != len(items):
            raise SkerryError(
                f"Source {self.name}, partition {self.partition}: a batch has {len(positions)} "
                f"positions and {len(items)} items. Give each item its own."
            )
        if not positions:
            self.finished = True
            return None
        if len(positions) > items_max:
            self._rest = positions[items_max:], items[items_max:]
            positions, items = positions[:items_max], items[:items_max]
        follows, self.position = self.position, self._stored(positions[-1])
        self.taken += 1
        return Items(self.name, self.partition, follows, positions, items)

    def _stored(self, position: Any) -> Any:
        """Return the position as it comes back from the store. Raises SkerryError if that differs."""
        if type(position) is int:
            return position
        back = msgspec.msgpack.decode(msgspec.msgpack.encode(position))
        if type(back) is not type(position) or back != position:
            raise SkerryError(
                f"Source {self.name}, partition {self.partition}: the position {position!r} comes "
                f"back as {back!r} after a restart. Give positions as numbers, texts or lists."
            )
        return position

    def size(self) -> float | None:
        """Return the size of the partition in units of its positions; None: the source does not know."""
        size = getattr(self.source, "size", None)
        return None if size is None else size(self.partition)


class _Thread:
    """Reads a partition that may block, ahead of the worker. An empty batch is the end."""

    def __init__(self, source: Any, partition: str, after: Any, wake: Callable[[], None]) -> None:
        self._queue: queue.Queue[Batch | Exception] = queue.Queue(QUEUED_BATCHES)
        self._wake = wake
        reading = threading.Thread(
            target=self._read, args=(source.read(partition, after),), daemon=True
        )
        reading.start()

    def _read(self, items: Iterator[tuple[Any, Any]]) -> None:
        try:
            positions, batch = list[Any](), list[Any]()
            for position, item in items:
                bad = type(item) is BadRow
                if bad and batch:
                    self._put((positions, batch))
                    positions, batch = [], []
                positions.append(position)
                batch.append(item)
                # An idle worker gets what there is at once; a busy one gets full batches.
                if bad or len(batch) >= BATCH_ITEMS or self._queue.empty():
                    self._put((positions, batch))
                    positions, batch = [], []
            if batch:
                self._put((positions, batch))
            self._put(END)
        except Exception as error:  # Handed to the worker, which names the source and stops.
            self._put(error)

    def _put(self, batch: Batch | Exception) -> None:
        self._queue.put(batch)
        self._wake()

    def poll(self) -> Batch | None:
        """Return the next batch; None: there is none now."""
        try:
            batch = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(batch, Exception):
            raise batch
        return batch


class Readers:
    """All partitions that a worker reads."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._partitions: dict[tuple[str, str], Partition] = {}
        self._reading = deque[Partition]()
        self._waiting = deque[Partition]()
        """Partitions that are not open yet, or closed for a while."""
        self._size: float | None = None
        """The size of all partitions. Measured once: the supervisor asks ten times a second."""
        self._measured = False
        self._read = 0.0
        """The sum of the positions, once the size is known."""
        self.items = 0
        self.failure: Exception | None = None
        """What a source raised. Nothing more is read: what was read before has to count first."""

    def open(self, name: str, source: Any, partition: str, after: Any) -> None:
        """Read a partition from now on, behind a position."""
        if (name, partition) in self._partitions:
            raise SkerryError(f"Source {name} has two partitions called {partition!r}. Rename one.")
        opened = Partition(name, source, partition, after, self._wake)
        self._partitions[name, partition] = opened
        room = sum(reading.inline for reading in self._reading) < OPEN_MAX
        (self._reading if room or not opened.inline else self._waiting).append(opened)
        self._measured, self._size, self._read = False, None, 0.0

    def close(self, name: str, partition: str) -> None:
        """Read a partition no longer."""
        closed = self._partitions.pop((name, partition))
        for queued in (self._reading, self._waiting):
            if closed in queued:
                queued.remove(closed)
        self._measured, self._size, self._read = False, None, 0.0
        if self._waiting and not self._reading:
            self._reading.append(self._waiting.popleft())

    def next(self, items_max: int) -> list[Items]:
        """Return batches of at most this many items together, from as many partitions as possible."""
        found: list[Items] = []
        missing, idle = items_max, 0
        while missing > 0 and idle < len(self._reading) and self.failure is None:
            partition = self._reading.popleft()
            before = partition.position
            try:
                items = partition.next(missing)
            except Exception as error:
                self.failure, items = error, None
            idle = 0 if items is not None else idle + 1
            if items is not None:
                found.append(items)
                missing -= len(items.items)
                self._moved(before, partition.position)
            self._put_back(partition)
        self.items += items_max - missing
        return found

    def _put_back(self, partition: Partition) -> None:
        """Queue a partition for its next turn, or one that waits in its place."""
        slice_over = partition.inline and partition.taken >= SLICE_BATCHES
        if self._waiting and (partition.finished or slice_over):
            self._reading.append(self._waiting.popleft())
            if not partition.finished:
                partition.start_at(partition.position)
                self._waiting.append(partition)
        elif not partition.finished:
            self._reading.append(partition)

    def rewind(self, name: str, partition: str, after: Any) -> None:
        """Read again from the position where the shard stands."""
        found = self._partitions[(name, partition)]
        self._moved(found.position, after)
        found.start_at(after)
        self.failure = None  # The source raises again, behind what is read again.
        if found not in self._reading and found not in self._waiting:
            self._reading.append(found)

    @property
    def finished(self) -> bool:
        """Whether every partition was read to its end."""
        return not self._reading

    @property
    def inline(self) -> bool:
        """Whether there is a partition that can be read without waiting for a thread."""
        return self.failure is None and any(partition.inline for partition in self._reading)

    @property
    def skipped(self) -> int:
        """Rows that were passed over since they are no items, as far as sources count them."""
        sources = {id(p.source): p.source for p in self._partitions.values()}
        return sum(getattr(source, "skipped", 0) for source in sources.values())

    def progress(self) -> tuple[float, float] | None:
        """Return (read, size), summed over the partitions; None: some size is unknown."""
        if not self._measured:
            self._measured = True
            self._size = self._measure()
        return None if self._size is None else (min(self._read, self._size), self._size)

    def _measure(self) -> float | None:
        total = 0.0
        for partition in self._partitions.values():
            size = partition.size()
            if size is None:
                return None
            total += size
            self._read += _distance(partition.position)
        return total

    def _moved(self, before: Any, after: Any) -> None:
        if self._size is not None:  # Then positions are numbers.
            self._read += _distance(after) - _distance(before)


def _distance(position: Any) -> float:
    """Return the distance of a position from the start, in units of a source's sizes."""
    if isinstance(position, list):
        position = position[0]
    return position or 0.0
