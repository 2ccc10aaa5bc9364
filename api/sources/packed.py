"""Packed files: gzip and Zstandard, which are unpacked while they are read.

A file is known by its first bytes, whatever its name. What reads Zstandard is imported only for a file
that it packed: Python has it since 3.14, and the extra `skerry[zstd]` brings it before.

Does no I/O of its own.
"""

from __future__ import annotations

import gzip
import sys
import zlib
from typing import IO, Any

from skerry.errors import SkerryError

GZIP, ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
"""The first bytes of packed files. No text in UTF-8 begins like this."""

HEAD_BYTES = len(ZSTD)
"""How many bytes tell whether a file is packed."""


def packing(name: str, head: bytes) -> bytes | None:
    """Return how a file is packed, as one of the first bytes above; None: it is not.

    Args:
        name: the file's name; one that is empty, or that was cut at once, is known by its end.
        head: its first bytes.
    """
    for first, end in ((GZIP, ".gz"), (ZSTD, ".zst")):
        if head.startswith(first) or name.endswith(end):
            return first
    return None


def unpacked(file: IO[bytes], name: str) -> IO[bytes]:
    """Return a file that reads what a packed file holds; the same one if it is not packed.

    Raises:
        SkerryError: what reads Zstandard is missing.
    """
    how = packing(name, file.read(HEAD_BYTES))
    file.seek(0)
    if how is None:
        return file
    found: Any = gzip.GzipFile(fileobj=file) if how == GZIP else _zstd(name).ZstdFile(file)
    return found  # type: ignore[no-any-return]


def read_errors() -> tuple[type[Exception], ...]:
    """Return the errors of reading a file, packed or not."""
    zstd = sys.modules.get("compression.zstd") or sys.modules.get("backports.zstd")
    return (OSError, EOFError, zlib.error, *([zstd.ZstdError] if zstd else ()))


def _zstd(name: str) -> Any:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise SkerryError(
            f"{name} is packed with Zstandard. Install what reads it, `pip install skerry[zstd]`, or "
            f"unpack the file."
        ) from None
    return zstd
