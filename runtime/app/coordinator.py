"""The coordinator of an app on one machine: its data directory.

The lease is a lock on a file. The lock ends with the process that holds it, however that ends.
"""

from __future__ import annotations

import os
from pathlib import Path

from skerry.runtime.app import directory
from skerry.runtime.description import Description, Running
from skerry.runtime.gateway import knock


class DirectoryCoordinator:
    """Implements `ports.Coordinator` by the files of a data directory."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._lock: int | None = None
        self.secret = knock.new_secret()

    def acquire(self) -> None:
        """Take the lease: lock the data directory. Raises StoreLocked."""
        self._lock = directory.lock(self._data)

    def holds(self) -> bool:
        """Tell whether the lease still guards the data. A lock on a file that was removed or replaced
        guards nothing."""
        assert self._lock is not None, "the lease was taken"
        try:
            here = (self._data / directory.LOCK).stat()
        except OSError:
            return False
        return os.path.samestat(os.fstat(self._lock), here)

    @property
    def lock_id(self) -> str:
        """Return a name of the locked file that no other file of this machine has while it is locked."""
        assert self._lock is not None, "the lease was taken"
        found = os.fstat(self._lock)
        return f"{found.st_dev}:{found.st_ino}"

    @property
    def lost(self) -> bool:
        """Whether the lock guards nothing."""
        return not self.holds()

    until_ns = 1 << 62
    """A lock has no end."""

    leads, host, nonce = True, "", ""
    """There is no other host."""

    def newest(self) -> None:
        """Return nothing: nobody else changes the description."""

    def release(self) -> None:
        """Give the lease back."""
        assert self._lock is not None, "the lease was taken"
        os.close(self._lock)
        self._lock = None

    def read(self) -> Description | None:
        """Read the description; None: the app was never started. Raises StoreDamaged."""
        return directory.load(self._data)

    def replace(self, new: Description, *, generation: int) -> None:
        """Replace the description of this generation, durably. Raises SkerryError."""
        directory.replace(self._data, new, generation=generation)

    def announce(self, running: Running) -> None:
        """Tell clients and workers where the shards are reached."""
        directory.announce(self._data, running)

    def withdraw(self) -> None:
        """Take the announcement back: nobody runs the app."""
        directory.withdraw(self._data)

    def last_running(self) -> Running | None:
        """Read the last announcement that was not withdrawn; None: there is none."""
        return directory.last_running(self._data)
