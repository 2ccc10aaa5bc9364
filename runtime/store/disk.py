"""Bytes on their way to the disk: written whole, synced, and sealed behind a checksum.

Does file I/O. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

import xxhash

_CHECKSUM = struct.Struct("<Q")


def write_all(fd: int, data: bytes, at: int, flags: int = 0) -> None:
    """Write all of `data`. The system may take less, as when the disk is full; the next call says
    why."""
    rest = memoryview(data)
    while rest:
        written = os.pwritev(fd, [rest], at, flags)
        rest, at = rest[written:], at + written


def sync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's list of names, durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sealed(value: bytes) -> bytes:
    """Append a checksum to `value`."""
    return value + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(value))


def unsealed(whole: bytes) -> bytes:
    """Return what `sealed` was given. Raises ValueError."""
    value = whole[: -_CHECKSUM.size]
    if sealed(value) != whole:
        raise ValueError("its checksum does not match its bytes, or it was cut short")
    return value


def sealed_size(form: struct.Struct) -> int:
    """Return how many bytes a packed and sealed struct takes."""
    return form.size + _CHECKSUM.size
