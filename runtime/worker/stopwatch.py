"""How long something took, by the clock and by the thread's own time.

Where more processes are busy than there are cores, a batch takes long by the clock though it is
small, and would take nearly as long if it were smaller. By its own time it is judged by what it
does: it computes, or its handlers wait for something. What it waited for a core does not count.

Linux tells how long a thread was runnable and did not run; elsewhere own time is the clock's.
Idea: docs/speed.md.
"""

from __future__ import annotations

import os
import time


class Stopwatch:
    """The time of the thread that makes it."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self.start()

    def start(self) -> None:
        """Both times are 0 now."""
        self._started_s, self._started_waited_ns = time.perf_counter(), self._waited_ns()

    @property
    def clock_s(self) -> float:
        """What somebody waited who looked at the clock."""
        return time.perf_counter() - self._started_s

    @property
    def own_s(self) -> float:
        """The same without what the thread waited for a core."""
        return self.clock_s - (self._waited_ns() - self._started_waited_ns) / 1e9

    def _waited_ns(self) -> int:
        """How long the thread has waited for a core since it began."""
        return 0 if self._fd < 0 else int(os.pread(self._fd, 64, 0).split()[1])
