"""The adapters of `ports.Log`, and an owner that uses one as a store does."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from skerry.runtime.cluster.log import ReplicatedLog
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Row
from skerry.runtime.ports import Last, Log
from skerry.runtime.store.segments import Segments
from tests.cluster.unsteady import Unsteady
from tests.store.power import Disk

NEVER = 1 << 30


class Ground(Protocol):
    """Where the logs of one adapter lie."""

    def create(self) -> bytes:
        """Create a log; return its token."""
        ...

    def open(self, token: bytes, before: tuple[int, int]) -> Log:
        """Open the log. Its owner before was closed or killed."""
        ...

    def open_copy(self, folder: Path, token: bytes, before: tuple[int, int]) -> Log:
        """Open what `LogSnapshot.copy` has made."""
        ...


class Failing(Ground, Protocol):
    """A ground whose power can fail."""

    def fail_after(self, calls: int) -> None:
        """Raise PowerFailed after so many calls of the system, at each."""
        ...

    def cut_power(self) -> None:
        """Let the power fail, and come back."""
        ...


class Folder:
    """Segments in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._log: Segments | None = None

    def create(self) -> bytes:
        return Segments.create(self._folder, shard=1)

    def open(self, token: bytes, before: tuple[int, int]) -> Log:
        if self._log is not None and self._log._fd >= 0:
            os.close(self._log._fd)  # As the kernel does for a process that is killed: no sync.
        self._log = Segments(self._folder, shard=1, token=token, before=before)
        return self._log

    def open_copy(self, folder: Path, token: bytes, before: tuple[int, int]) -> Log:
        return Segments(folder, shard=1, token=token, before=before)


class FailingFolder(Folder):
    """Segments on a disk that forgets what was not synced."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, rng: random.Random) -> None:
        super().__init__(folder)
        self._disk = Disk(rng)
        self._disk.stand_in(patch)

    def fail_after(self, calls: int) -> None:
        self._disk.left = calls

    def cut_power(self) -> None:
        self._disk.cut()


class Replicated(FailingFolder):
    """Segments behind a stream, which outlives the power of this host."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, rng: random.Random) -> None:
        super().__init__(folder, patch, rng)
        self._stream = Unsteady(room=4000)

    def open(self, token: bytes, before: tuple[int, int]) -> Log:
        local = super().open(token, before)
        assert isinstance(local, Segments)
        return ReplicatedLog(local, self._stream)


ADAPTERS: dict[str, Callable[[Path, pytest.MonkeyPatch, random.Random], Failing]] = {
    "segments": FailingFolder,
    "replicated": Replicated,
}


class Owner:
    """Uses a log as a store does, and keeps its token and what it covers, as a tree does."""

    def __init__(self, ground: Ground, *, sync: bool) -> None:
        self.ground, self.sync = ground, sync
        self.token, self.covered, self.told = ground.create(), Last(), 0
        self.given: dict[int, bytes] = {}
        """The record of each commit as it was last appended: a commit that a power cut took may
        come again with other bytes."""
        self.open()

    def open(self) -> None:
        """Start a process, which reads what is there and checks it."""
        self.log = self.ground.open(self.token, (self.covered.no, self.covered.checksum))
        found = {decoded.no: decoded.checksum for decoded in self.log.replay()}
        assert list(found) == list(range(self.covered.no + 1, self.log.last.no + 1))
        for no, checksum in found.items():
            given = records.checksum_of(self.given.get(no, b"\0" * 8))
            assert checksum == given, f"I6: commit {no} is none that this life has appended"
        self.given = {no: self.given[no] for no in found}
        assert self.log.last.no >= self.told, "a commit that was told as durable is gone"
        self.log.resume()
        self.told = self.log.last.no

    def append(self, count: int, rng: random.Random) -> None:
        """Append so many commits in one write."""
        sizes = [rng.choice((10, 600, 3000)) for _ in range(count)]
        self.append_rows([(4, b"key", rng.randbytes(size)) for size in sizes])

    def append_rows(self, rows: list[Row]) -> None:
        """Append a commit for each of these rows, in one write."""
        new: list[bytes] = []
        for row in rows:
            last = Last(*records.head_of(new[-1])) if new else self.log.last
            no, checksum = last.no, last.checksum
            new.append(records.encode(no + 1, 1, no + 1, checksum, [], [row]))
        self.given |= {records.head_of(record)[0]: record for record in new}
        self.log.append(new, sync=self.sync)
        if self.sync:
            self.told = self.log.last.no

    def sync_all(self) -> None:
        """Sync what was appended."""
        self.log.sync()
        self.told = self.log.last.no

    def roll(self) -> None:
        """Begin a checkpoint."""
        if self.log.last.no > self.log.boundary.no:
            self.token = self.log.prepare_roll()
            self.told = self.log.last.no
            self.log.roll()

    def trim(self) -> None:
        """End a checkpoint."""
        self.covered = self.log.boundary
        self.log.trim()
