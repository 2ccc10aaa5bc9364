"""A disk that forgets: what was written and not synced may be gone after a power cut, in parts.

Stands in for `os` in the code under test. Everything is really written, so that a killed
process's successor reads it; beside that it is kept what a power cut would leave. A write that
syncs itself brings its own bytes to the disk and no others.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from skerry.runtime.store import disk, sealed_file, segment, segments

PAGE = 512
"""What the disk writes as a whole."""


class PowerFailed(Exception):
    """Nothing is done any more."""


class Disk:
    """The files of one folder."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._paths: dict[int, str] = {}
        self._synced: dict[str, bytearray] = {}
        self._waiting: dict[str, list[tuple[int, bytes]]] = {}
        self._named: set[str] = set()
        self._replaced: dict[str, bytearray] = {}
        self.left = 1 << 30
        """How many calls it still does."""

    def stand_in(self, patch: pytest.MonkeyPatch) -> None:
        """Be the disk under the log, and under small files."""
        for module in (disk, segment, segments, sealed_file):
            patch.setattr(module, "os", self)
        patch.setattr(os, "rename", self.rename)

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise PowerFailed

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    # ── what the code calls ──

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        """Like `os.open`."""
        self._count()
        fd = os.open(path, flags, mode)
        self._paths[fd] = str(path)
        if flags & os.O_CREAT:
            self._synced[str(path)], self._waiting[str(path)] = bytearray(), []
        return fd

    def pwritev(self, fd: int, parts: Sequence[bytes], at: int, flags: int = 0) -> int:
        """Like `os.pwritev`; now and then it writes less than it was given."""
        self._count()
        data = b"".join(bytes(part) for part in parts)
        if len(data) > PAGE and self._rng.random() < 0.1:
            data = data[: self._rng.randint(PAGE, len(data))]
        os.pwrite(fd, data, at)
        path = self._paths[fd]
        if flags & os.RWF_DSYNC:
            _put(self._synced[path], at, data)
        else:
            self._waiting[path].append((at, data))
        return len(data)

    def fsync(self, fd: int) -> None:
        """Like `os.fsync`."""
        self._count()
        path = self._paths[fd]
        if Path(path).is_dir():
            # What was removed stays so from now on, and what was made is there.
            self._synced = {
                name: held for name, held in self._synced.items() if Path(name).exists()
            }
            self._named = set(self._synced)
            self._replaced = {}
            return
        for at, data in self._waiting[path]:
            _put(self._synced[path], at, data)
        self._waiting[path] = []

    fdatasync = fsync

    def rename(self, old: Path, new: Path) -> None:
        """Like `os.rename`: for the disk it has happened when the folder is synced."""
        self._count()
        old.replace(new)
        if str(new) in self._synced:
            self._replaced[str(new)] = self._synced[str(new)]
            self._named.add(str(new))
        self._synced[str(new)] = self._synced.pop(str(old))
        self._waiting[str(new)] = self._waiting.pop(str(old))

    # ── what happens to it ──

    def cut(self) -> None:
        """The power fails and comes back: the files are what the disk has of them."""
        self.left = 1 << 30
        for name, synced in list(self._synced.items()):
            if name not in self._named and self._rng.random() < 0.5:
                Path(name).unlink(missing_ok=True)
                del self._synced[name]
                continue
            if name in self._replaced and self._rng.random() < 0.5:
                synced, self._waiting[name] = self._replaced[name], []
            for at, data in self._waiting[name]:
                for piece in range(0, len(data), PAGE):
                    if self._rng.random() < 0.5:
                        _put(synced, at + piece, data[piece : piece + PAGE])
            self._waiting[name] = []
            if Path(name).exists() or self._rng.random() < 0.5:  # It was removed, but not surely.
                Path(name).write_bytes(bytes(synced))


def _put(content: bytearray, at: int, data: bytes) -> None:
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(data)] = data
