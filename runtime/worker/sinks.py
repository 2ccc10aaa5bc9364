"""Writes the items of outputs to sinks, on a thread per sink, so that the worker never waits.

A write that raises is reported once and tried again, with growing pauses, while the other sinks go
on. The worker collects the writes that have succeeded and tells its shard.

Does the I/O of sinks and nothing else. Idea: docs/ideas/sinks.md.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable

import msgspec

from skerry.runtime.core.events import Write, Written
from skerry.stream.outlet import Outlet

BACKOFF_S, BACKOFF_MAX_S = 0.1, 5.0
"""The first pause before a write is tried again, and the longest."""


class _Writer:
    """The thread of one sink."""

    def __init__(self, outlet: Outlet, place: int, done: Callable[[Write], None]) -> None:
        self._name, self._sink, self._done = outlet.output.name, outlet.sinks[place], done
        self._decode = msgspec.msgpack.Decoder(outlet.type_at(place)).decode
        self._writes: queue.SimpleQueue[Write] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=f"sink of {self._name}", daemon=True).start()

    def put(self, write: Write) -> None:
        """Queue a write."""
        self._writes.put(write)

    def _run(self) -> None:
        while True:
            write = self._writes.get()
            pause_s = BACKOFF_S
            while not self._written(write, reported=pause_s > BACKOFF_S):
                time.sleep(pause_s)  # Only this sink waits.
                pause_s = min(2 * pause_s, BACKOFF_MAX_S)
            self._done(write)

    def _written(self, write: Write, *, reported: bool) -> bool:
        """Try a write, and tell whether it succeeded. The items are decoded for each try, since a sink
        may change what it is handed."""
        try:
            items = [self._decode(item) for item in write.items]
            self._sink.write(write.partition, write.sequence, items)
        except (Exception, SystemExit) as error:
            if not reported:
                sys.stderr.write(
                    f"the sink of output {self._name} raised and is tried again until it does not: "
                    f"{type(error).__name__}: {error}\n{traceback.format_exc(limit=-2)}"
                )
            return False
        return True


class Writers:
    """All sinks that a worker writes to."""

    def __init__(self, outlets: dict[str, Outlet], wake: Callable[[], None]) -> None:
        self._outlets, self._wake = outlets, wake
        self._writers: dict[tuple[str, int], _Writer] = {}
        self._finished: deque[Written] = deque()

    def write(self, write: Write) -> None:
        """Queue a write for its sink."""
        where = write.output, write.sink
        writer = self._writers.get(where)
        if writer is None:
            outlet = self._outlets[write.output]
            writer = self._writers[where] = _Writer(outlet, write.sink, self._done)
        writer.put(write)

    def _done(self, write: Write) -> None:
        self._finished.append(write.written)
        self._wake()

    def finished(self) -> list[Written]:
        """Return the writes that have succeeded since the last call."""
        return [self._finished.popleft() for _ in range(len(self._finished))]
