"""A file system in an image whose power can be cut: what was not synced is gone.

The file system is told to shut down without writing anything more (what xfstests call
"godown"), and mounted again, as after a power cut. Needs the right to mount, a loop device and
mkfs.ext4; a test that uses it is skipped where one is missing, and says which.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN."""

AT_ONCE = struct.pack("I", 2)
"""Not even its journal is written."""

OPTIONS = "loop,noauto_da_alloc"
"""Ext4 guesses which files were meant to be synced before they are renamed. Others do not."""


class Image:
    """The file system, mounted on `path`."""

    def __init__(self, image: Path, path: Path) -> None:
        self._image, self.path = image, path

    def mount(self) -> str:
        """What is said when it can't be."""
        command = ["mount", "-o", OPTIONS, str(self._image), str(self.path)]
        return subprocess.run(command, capture_output=True, text=True).stderr

    def power_fails(self) -> None:
        """At once: what runs on it gets errors from now on."""
        folder = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(folder, SHUTDOWN, AT_ONCE)
        finally:
            os.close(folder)

    def power_comes_back(self) -> None:
        """It holds what was synced. Who used it must be gone, or about to end."""
        while "busy" in (said := self._unmount()):
            os.sched_yield()
        assert not said
        assert not self.mount()

    def _unmount(self) -> str:
        return subprocess.run(["umount", str(self.path)], capture_output=True, text=True).stderr


@contextmanager
def image(folder: Path, megabytes: int) -> Iterator[Image]:
    """A new file system. Skips where there can be none."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4")
    file, path = folder / "image", folder / "disk"
    with file.open("wb") as empty:
        empty.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", str(file)], check=True)
    path.mkdir()
    made = Image(file, path)
    if said := made.mount():
        pytest.skip(f"needs the right to mount, and a loop device: {said.strip()}")
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
