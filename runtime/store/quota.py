"""The disk quota of a store, and what it means when the system gives the store no more room.

Idea: docs/ideas/log.md, "When the disk says no".
"""

from __future__ import annotations

import errno
import os
import resource
from contextlib import suppress
from pathlib import Path

import lmdb

from skerry.errors import SkerryError, StoreDamaged, StoreFull
from skerry.runtime.causes import explained, is_limit

NEARLY_FULL = 0.8
"""Above this part of the quota intake from outside pauses, so that drains still have room."""

ROOM_BYTES = 1 << 20
"""A disk with less room than this is full."""


class Quota:
    """The disk quota of one store, and how much of it is used."""

    def __init__(self, path: Path, quota_bytes: int, tree_bytes: int) -> None:
        self._path, self.quota_bytes = path, quota_bytes
        self.tree_bytes = tree_bytes
        """What the tree's rows take, as of its last commit."""

    def nearly_full(self, log_bytes: int) -> bool:
        """Tell whether most of the quota is used, by the tree and a log of so many bytes."""
        return self.tree_bytes + log_bytes > NEARLY_FULL * self.quota_bytes

    def check(self, log_bytes: int) -> None:
        """Raise StoreFull when all of the quota is used."""
        if self.tree_bytes + log_bytes > self.quota_bytes:
            raise self._full()

    def explain(self, error: Exception) -> Exception:
        """Say what `error`, which a commit raised, means for the app. It ends the worker."""
        if isinstance(error, SkerryError):
            return error
        if isinstance(error, lmdb.MapFullError):
            return self._full()
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return OSError(
                error.errno,
                f"No more files can be opened for a commit of {self._path}: this process may have "
                f"{limit:,} open, and has. The disk is sound, and nothing acknowledged is lost. "
                f"Start the app with a larger `ulimit -n`, or close what its handlers open",
            )
        if self._disk_is_full(error):
            return StoreFull(
                f"The disk that holds {self._path} is full. Nothing acknowledged is lost. Make room "
                f"and start again."
            )
        if is_limit(error):
            return StoreFull(
                f"A commit of {self._path} was refused. {explained(error)} Nothing acknowledged is "
                f"lost; start again with a higher limit."
            )
        return StoreDamaged(
            f"The disk refused a commit of {self._path}: {type(error).__name__}: {error}. This "
            f"worker stops, since a sync that is tried again may claim success."
        )

    def _full(self) -> StoreFull:
        return StoreFull(
            f"The store {self._path} has reached its quota of {self.quota_bytes >> 20} MiB. Nothing "
            f"acknowledged is lost. Free space by `skerry dead drop`, or start again with a larger "
            f"--quota."
        )

    def _disk_is_full(self, error: Exception) -> bool:
        """Tell whether a full disk raised `error`. LMDB calls a write that was cut short an I/O
        error."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # A disk that is gone has no room either, but that is not the cause.
        with suppress(OSError):
            room = os.statvfs(self._path)
            return room.f_bavail * room.f_frsize < ROOM_BYTES
        return False
