"""Reads source partitions for a worker, batch by batch, without ever making it wait.

A source that offers `batches` promises not to block and is read in the worker's own loop,
which is fastest. Any other is read by a thread of its own per partition, behind a queue of
a few batches. Either way the shard is told which position each batch follows, and asks for
a rewind when that is not the newest one.

Does the I/O of sources and nothing else. Idea: docs/clients.md.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from skerry.runtime.shard.events import Items

BATCH_ITEMS = 2048
"""Items that are read at once; a batch of turns takes as many of them as it has time for."""

QUEUED_BATCHES = 4
"""Batches that a reading thread is ahead; more would only use memory."""

Batch = tuple[Sequence[Any], Sequence[Any]]
"""Positions, and the items at them."""

END: Batch = ((), ())


class Partition:
    """One partition of one source: what to read next."""

    def __init__(
        self, name: str, source: Any, partition: str, after: Any, wake: Callable[[], None]
    ) -> None:
        self.name, self.partition = name, partition
        self._source, self._wake = source, wake
        self.finished = False
        self.start_at(after)

    def start_at(self, after: Any) -> None:
        """Read on behind this position."""
        self.position = after
        self.finished = False
        self._rest: Batch | None = None
        """What was read and is not wanted yet."""
        if hasattr(self._source, "batches"):
            self._batches = self._source.batches(self.partition, after, BATCH_ITEMS)
            self._next = self._next_inline
        else:
            self._thread = _Thread(self._source, self.partition, after, self._wake)
            self._next = self._thread.poll

    def _next_inline(self) -> Batch | None:
        return next(self._batches, END)

    def next(self, items_max: int) -> Items | None:
        """The next batch of so many items at most, or None when none is there now. Raises what the
        source raised."""
        if self.finished:
            return None
        batch, self._rest = self._rest or self._next(), None
        if batch is None:
            return None
        positions, found = batch
        if not positions:
            self.finished = True
            return None
        if len(positions) > items_max:
            self._rest = positions[items_max:], found[items_max:]
            positions, found = positions[:items_max], found[:items_max]
        items = Items(self.name, self.partition, self.position, positions, found)
        self.position = positions[-1]
        return items

    def size(self) -> float | None:
        """How large the partition is, in units of its positions, when the source knows."""
        size = getattr(self._source, "size", None)
        return None if size is None else size(self.partition)


class _Thread:
    """A source that may block, read ahead by a thread. An empty batch is its end."""

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
                positions.append(position)
                batch.append(item)
                # An idle worker gets what there is at once; a busy one gets full batches.
                if len(batch) >= BATCH_ITEMS or self._queue.empty():
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
        """A batch if there is one."""
        try:
            batch = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(batch, Exception):
            raise batch
        return batch


class Readers:
    """The partitions that a worker reads."""

    def __init__(self, partitions: Sequence[Partition]) -> None:
        self._partitions = {(p.name, p.partition): p for p in partitions}
        self._reading = list(partitions)
        self.items = 0

    def next(self, items_max: int) -> list[Items]:
        """Batches of so many items together, of different partitions first."""
        found: list[Items] = []
        missing, idle = items_max, 0
        while missing > 0 and idle < len(self._reading):
            partition = self._reading.pop(0)
            items = partition.next(missing)
            if items is not None:
                found.append(items)
                missing -= len(items.items)
            idle = 0 if items is not None else idle + 1
            if not partition.finished:
                self._reading.append(partition)
        self.items += items_max - missing
        return found

    def rewind(self, name: str, partition: str, after: Any) -> None:
        """The shard stands elsewhere: read from there."""
        found = self._partitions[(name, partition)]
        found.start_at(after)
        if found not in self._reading:
            self._reading.append(found)

    @property
    def finished(self) -> bool:
        """Whether every partition has been read to its end."""
        return not self._reading

    @property
    def inline(self) -> bool:
        """Whether some partition can be read without waiting for a thread."""
        return any(hasattr(p._source, "batches") for p in self._reading)

    def progress(self) -> tuple[float, float] | None:
        """(read, size) summed over the partitions, None when some size is unknown."""
        read = total = 0.0
        for partition in self._partitions.values():
            size = partition.size()
            if size is None:
                return None
            position = partition.position
            read += size if partition.finished else float(position) if position is not None else 0.0
            total += size
        return read, total
