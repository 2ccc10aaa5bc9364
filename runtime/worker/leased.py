"""A worker answers only as long as its host holds the app's lease.

A host that was frozen, and whose shards run elsewhere by now, would else answer with old states when
it thaws: what it writes is refused by the log, but a read writes nothing. The supervisor
keeps the end of the lease in a file; each answer looks at the clock first, but for a report on the
process itself. A request without an outcome
is asked again by itself. A question is asked again when its line breaks, so that line is closed.

Made only in a cluster. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skerry.runtime.core.events import Reply
from skerry.runtime.gateway.channel import Channel
from skerry.runtime.gateway.listener import Listener

NAME = "lease"
"""The file, beside the sockets."""

_UNTIL = struct.Struct("<Q")


class LeasePage:
    """The file that says until when the lease holds: ns of the time since the machine started."""

    def __init__(self, folder: Path) -> None:
        fd = os.open(folder / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(fd, mmap.PAGESIZE)
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)

    def put(self, until_ns: int) -> None:
        """Say until when it holds."""
        _UNTIL.pack_into(self._page, 0, until_ns)

    @property
    def holds(self) -> bool:
        """Whether it holds now. Time in which the machine slept counts."""
        now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return now_ns < int(_UNTIL.unpack_from(self._page)[0])


class LeasedListener(Listener):
    """A listener that answers nobody when the lease has ended."""

    def __init__(self, path: Path, secret: str, *, lease: LeasePage, callers_max: int) -> None:
        super().__init__(path, secret, callers_max=callers_max)
        self._lease = lease

    @property
    def may_answer(self) -> bool:
        """Whether the lease holds."""
        return self._lease.holds

    def replies(self, replies: Iterable[Reply]) -> None:
        """Tell callers the outcomes of their requests."""
        if self._lease.holds:
            super().replies(replies)

    def answer(self, caller: Channel, n: int, value: Any) -> None:
        """Tell the value that call `n` asked for."""
        if self._lease.holds:
            super().answer(caller, n, value)
        else:
            self.let_go(caller)

    def error(self, caller: Channel, n: int, error: Exception) -> None:
        """Tell why call `n` could not be answered."""
        if self._lease.holds:
            super().error(caller, n, error)
        else:
            self.let_go(caller)
