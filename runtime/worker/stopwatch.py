"""Measures how long a batch takes, by the clock and without the time spent waiting for a core.

Where more processes are busy than there are cores, even a small batch takes long by the clock,
and an even smaller one would take nearly as long. A batch's own time leaves out the time that its
thread waits for a core, but not the time that its handlers wait for something else.

Linux tells how long a thread was runnable and did not run; elsewhere own time is the clock's.
Idea: docs/ideas/speed.md.
"""

from __future__ import annotations

import os
import time


class Stopwatch:
    """Times the thread that makes it."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self.start()

    def start(self) -> None:
        """Start both times at 0."""
        self._started_s, self._started_waited_ns = time.perf_counter(), self._waited_ns()

    @property
    def clock_s(self) -> float:
        """Seconds since the start, by the clock."""
        return time.perf_counter() - self._started_s

    @property
    def own_s(self) -> float:
        """Seconds since the start, without the thread's waiting for a core."""
        return self.clock_s - (self._waited_ns() - self._started_waited_ns) / 1e9

    @property
    def cpu_s(self) -> float:
        """Processor time of the whole process, in its life."""
        return time.process_time()

    def _waited_ns(self) -> int:
        """Return how long the thread has waited for a core in its life."""
        return 0 if self._fd < 0 else int(os.pread(self._fd, 64, 0).split()[1])
