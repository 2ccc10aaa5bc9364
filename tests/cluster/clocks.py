"""The wall clock of one host, which a test sets: `clock.c`, loaded into each of its processes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("clock.c")
SECONDS = struct.Struct("@l")

needed = pytest.mark.skipif(
    not shutil.which("cc"),
    reason="needs a C compiler, to set the clock of one host: there is no `cc`",
)


class WallClock:
    """A wall clock, right until it is set.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._library, self._ahead = folder / "clock.so", folder / "ahead"
        command = ["cc", "-shared", "-fPIC", "-o", self._library, SOURCE]
        subprocess.run(command, check=True)
        self._ahead.write_bytes(SECONDS.pack(0))

    @property
    def inside(self) -> list[str]:
        """The words before a command that is to go by this clock. It keeps the process id."""
        return ["env", f"LD_PRELOAD={self._library}", f"CLOCK_AHEAD={self._ahead}"]

    def set(self, ahead_s: int) -> None:
        """Set it so far ahead of the right time; below 0: behind."""
        with open(self._ahead, "r+b") as file:
            file.write(SECONDS.pack(ahead_s))
