"""Whole lines that another process writes, read without waiting.

Between a link's process and its supervisor, both ways.
"""

from __future__ import annotations

import os


class Lines:
    """The lines of one descriptor.

    Attributes:
        ended: whether the other process has closed its end.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd, self._part = fd, b""
        self.ended = False

    def read(self) -> list[bytes]:
        """Return the lines that have come."""
        try:
            while raw := os.read(self._fd, 1 << 16):
                self._part += raw
            self.ended = True
        except BlockingIOError:
            pass
        *lines, self._part = self._part.split(b"\n")
        return lines
