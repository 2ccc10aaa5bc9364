"""NATS servers whose disks lose power: each has a filesystem of its own, which forgets what was not synced.

power cut: the filesystem is shut down as it is on its disk -> the server is killed -> mounted anew
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from tests.cluster.servers import Servers

DISK_BYTES = 256 << 20

_SHUTDOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN, and its flag that leaves even the journal as it is on the disk."""
_NOLOGFLUSH = struct.pack("I", 2)


def _run(*words: str | Path) -> None:
    """Run a command. Raises CalledProcessError, which names it."""
    subprocess.run(words, check=True, capture_output=True, text=True)


class Disk:
    """A filesystem in a file, mounted on a folder.

    Raises CalledProcessError: this machine makes none.
    """

    def __init__(self, image: Path, folder: Path) -> None:
        self._image, self._folder = image, folder
        with open(image, "wb") as file:
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-F", image)
        folder.mkdir(parents=True)
        self.mount()

    def mount(self) -> None:
        """Mount it; what its journal has is played back."""
        _run("mount", "-o", "loop", self._image, self._folder)

    def cut(self) -> None:
        """Cut the power: nothing of what was not synced reaches the disk any more."""
        fd = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, _NOLOGFLUSH)
        finally:
            os.close(fd)

    def unmount(self) -> None:
        """Unmount it."""
        _run("umount", self._folder)


def missing(folder: Path) -> str:
    """Return what this machine lacks to have such disks; empty: nothing."""
    if not shutil.which("mkfs.ext4"):
        return "the command `mkfs.ext4` (e2fsprogs)"
    if os.geteuid():
        return "the rights of root"
    try:
        disk = Disk(folder / "tried.image", folder / "tried")
    except subprocess.CalledProcessError as error:
        return f"`{error.cmd[0]}`, which says: {error.stderr.strip()}"
    try:
        disk.cut()
    except OSError as error:
        return f"an ext4 that can be shut down: {error}"
    finally:
        disk.unmount()
    return ""


class PoweredServers(Servers):
    """Servers with a disk each."""

    def __init__(self, folder: Path, program: Path, count: int = 3) -> None:
        super().__init__(folder, program, count)
        self._disks = [
            Disk(folder / f"{node.name}.image", folder / node.name) for node in self.nodes
        ]

    def cut(self, *which: int) -> None:
        """Cut the power of these nodes at once, and start them again."""
        for i in which:
            self._disks[i].cut()
        for i in which:
            self.kill(i)
            self._disks[i].unmount()
            self._disks[i].mount()
        for i in which:
            self.start(i)

    def close(self) -> None:
        """End every node."""
        super().close()
        for disk in self._disks:
            disk.unmount()
