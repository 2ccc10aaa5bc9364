"""The lock on a store's folder: one process owns a store at a time.

`flock` ends with its process, however that ends. It is the fence that keeps a slot with one owner
(I5).
"""

from __future__ import annotations

import fcntl
import os
from functools import cache
from pathlib import Path

from skerry.errors import StoreLocked


def acquire(folder: Path) -> int:
    """Lock a folder for this process; return the lock's descriptor. Raises StoreLocked."""
    fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(fd, 20).decode(errors="replace").strip()
        os.close(fd)
        raise StoreLocked(folder, int(owner) if owner.isdecimal() else 0) from error
    _release_in_children()
    _held.add(fd)
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def release(fd: int) -> None:
    """Unlock."""
    _held.discard(fd)
    os.close(fd)


_held: set[int] = set()
"""The descriptors of the locks that this process holds."""


def _release_all() -> None:
    while _held:
        os.close(_held.pop())


@cache
def _release_in_children() -> None:
    """Let no child that user code forks keep its parent's locks. A hook can't be taken back, so it
    is registered once."""
    os.register_at_fork(after_in_child=_release_all)
