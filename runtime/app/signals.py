"""Signals that tell an app to end, counted; and a bell that wakes whoever waits when one comes.

Signals are a process's, so there is one of these in a process, and it is used in the main thread.
"""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from skerry.runtime import forks

SAME_WISH_S = 1.0
"""Two signals to end within this time are one wish, except for Ctrl-C, which a person presses."""


class Signals:
    """The signals to end that have come."""

    def __init__(self) -> None:
        self.count = 0
        """How many wishes to end there were."""
        self._newest_s = -math.inf
        self.bell = -1
        """Readable when a signal has come, or a child has ended."""

    @contextmanager
    def heeded(self) -> Iterator[None]:
        """Count signals to end while the context is open; these and the ends of children ring the bell."""
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in forks.OURS_TO_HANDLE
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self.bell, rung = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(rung, warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(self.bell)
            os.close(rung)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Service managers and `timeout` signal the group, and us as well: that is one wish, not two.
        now = time.monotonic()
        if number == signal.SIGINT or now - self._newest_s > SAME_WISH_S:
            self.count, self._newest_s = self.count + 1, now
