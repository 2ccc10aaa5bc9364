"""Small files in which every bit counts: JSON behind its checksum, written whole or not at all.

    {"checksum":"9f1c…", "the rest": …}    the checksum covers all bytes behind it

A file is written beside the old one, synced, and renamed over it. So the old one stays whole if the
disk is full, if a write takes less than it was given, and if the power fails.

Does file I/O. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import xxhash
from msgspec import Struct

from skerry.errors import SkerryError, StoreFull
from skerry.runtime import as_json
from skerry.runtime.store.disk import sync_path, write_all

T = TypeVar("T", bound=Struct)

_HEAD = b'{"checksum":"%016x",'
_HEAD_BYTES = len(_HEAD % 0)


def encoded(value: Struct, *, indent: int | None = None) -> bytes:
    """Encode a value as the file's bytes; with `indent`, in lines that a person can read."""
    return _sealed(as_json.encode(value, indent=indent)[1:])


def _sealed(text: bytes) -> bytes:
    return _HEAD % xxhash.xxh3_64_intdigest(text) + text


def decoded(raw: bytes, type: type[T]) -> T:
    """Return what `encoded` was given. Raises ValueError: a bit was changed, or the file was cut."""
    text = raw[_HEAD_BYTES:]
    if _sealed(text) != raw:
        raise ValueError("its checksum does not match its bytes: it was changed, or cut short")
    return as_json.decode(b"{" + text, type)


def name_meanwhile(name: str) -> str:
    """Return the name of a file until it is whole."""
    return f"{name}.new"


def write(path: Path, data: bytes) -> None:
    """Replace a file's content, all or nothing, whenever the power fails.

    Raises StoreFull, SkerryError: the file has its old content.
    """
    fresh = path.with_name(name_meanwhile(path.name))
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        fresh.rename(path)
        sync_path(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"The disk that holds {path} is full. Nothing acknowledged is lost, and the file is "
                f"as it was. Make room and start again."
            ) from error
        raise SkerryError(
            f"{path} could not be written: {error.strerror}. Nothing acknowledged is lost, and the "
            f"file is as it was. Look at the disk and its limits, and start again."
        ) from error
