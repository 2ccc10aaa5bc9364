"""One file of the log, a segment.

    | head | marks | record | record | ... | zeros |

The head names the shard and the commit before the segment's first. Each record stands behind its
length. A mark names the newest commit that is known to be durable in the segment; it is written
after each sync. So the end of the log can be told from damage. A record at or below the mark that
does not decode is damage, and refused. A record above the mark that does not decode is a write that
a power cut took, and nobody was told of it. Such a write is overwritten, and what is left of it does
not follow in the chain of checksums.

Does file I/O. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import Decoded
from skerry.runtime.ports import Last
from skerry.runtime.store.disk import sealed, sealed_size, sync_path, unsealed, write_all

FORMAT = 1
RECORDS_AT = 4096
MARKS_AT = (2048, 3072)
"""Two places, written in turns: if the power fails while one is written, the other is whole. On
most disks neither shares a sector with the head, which is never rewritten."""

NAMES = "log-" + "[0-9]" * 20
"""The names of all segments, as a pattern."""

LENGTH = struct.Struct("<I")
"""What stands before each record."""

_HEAD = struct.Struct("<4sIIQQQQ")
_MAGIC = b"SKLG"
_MARK = struct.Struct("<Q")


class Segment(Struct, frozen=True):
    """A segment as it was created or opened."""

    path: Path
    before: Last
    """The commit before the segment's first."""
    durable: int
    """The newest commit that its marks name."""

    @classmethod
    def create(cls, folder: Path, *, shard: int, before: Last) -> Segment:
        """Create a segment without records, synced with its folder."""
        path = folder / name_of(before.no + 1)
        head = _HEAD.pack(
            _MAGIC, FORMAT, shard, before.no, before.checksum, before.epoch, before.time_ns
        )
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, sealed(head).ljust(RECORDS_AT, b"\0"), 0)
            put_marks(fd, before.no)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_path(folder)
        return cls(path, before, before.no)

    @classmethod
    def open(cls, path: Path, *, shard: int) -> Segment:
        """Open an existing segment. Raises StoreDamaged."""
        try:
            with path.open("rb") as file:
                page = file.read(RECORDS_AT)
            magic, version, owner, *before = _HEAD.unpack(_sealed_at(page, 0, _HEAD))
            durable = _newest_mark(page)
        except (ValueError, OSError) as error:
            raise StoreDamaged(damaged(path, f"its head can't be read: {error}")) from error
        if (magic, version, owner) != (_MAGIC, FORMAT, shard):
            raise StoreDamaged(
                f"{path} is of shard {owner}, in format {magic!r} {version}; here shard {shard} and "
                f"format {_MAGIC!r} {FORMAT} belong. Put the right file back."
            )
        found = cls(path, Last(*before), durable)
        if path.name != name_of(found.before.no + 1):
            raise StoreDamaged(damaged(path, f"it begins with commit {found.before.no + 1}"))
        return found

    def records(self, due: int) -> Iterator[tuple[Decoded, tuple[Last, int]]]:
        """Yield the segment's records in order, verified, each with (the newest commit so far, the
        offset where it ends).

        Raises StoreDamaged unless all commits up to `due` are there.
        """
        last, at = self.before, RECORDS_AT
        with self.path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(RECORDS_AT)
            while True:
                try:
                    decoded, at = _next(file, at, size)
                    if (decoded.no, decoded.previous) != (last.no + 1, last.checksum):
                        raise ValueError("it does not follow the record before it")
                except OSError as error:
                    raise StoreDamaged(damaged(self.path, str(error))) from error
                except (ValueError, IndexError, struct.error, msgspec.MsgspecError) as error:
                    if last.no >= due:
                        return
                    raise StoreDamaged(
                        damaged(self.path, f"commit {last.no + 1} is damaged: {error}")
                    ) from error
                last = Last(decoded.no, decoded.checksum, decoded.epoch, decoded.time_ns)
                yield decoded, (last, at)


def _next(file: BinaryIO, at: int, size: int) -> tuple[Decoded, int]:
    """Read the record that begins at `at`; return it and its end. Raises when there is none."""
    (length,) = LENGTH.unpack(file.read(LENGTH.size))
    end = at + LENGTH.size + length
    if not length or end > size:
        raise ValueError("the file ends before it")
    return records.decode(file.read(length)), end


def name_of(first: int) -> str:
    """Return the name of the segment that begins with this commit."""
    return f"log-{first:020}"


def first_of(path: Path) -> int:
    """Return the first commit of a segment, by its name."""
    return int(path.name[4:])


# ── marks ──


def put_mark(fd: int, no: int, turn: int) -> None:
    """Write one mark, in turns. It is not synced: the kernel does that within half a minute."""
    write_all(fd, sealed(_MARK.pack(no)), MARKS_AT[turn % 2])


def put_marks(fd: int, no: int) -> None:
    """Write both marks."""
    for turn in range(len(MARKS_AT)):
        put_mark(fd, no, turn)


def _newest_mark(page: bytes) -> int:
    """Return the newest mark on a segment's first page. Raises ValueError when neither is whole."""
    found: list[int] = []
    for at in MARKS_AT:
        with suppress(ValueError):
            found += _MARK.unpack(_sealed_at(page, at, _MARK))
    if not found:
        raise ValueError("neither of its marks matches its checksum")
    return max(found)


def _sealed_at(page: bytes, at: int, form: struct.Struct) -> bytes:
    return unsealed(page[at : at + sealed_size(form)])


def damaged(path: Path, why: str) -> str:
    """Return the sentence for a damaged log."""
    return (
        f"The log {path} is damaged: {why}. Nothing was cut off. Look at the disk, and restore the "
        f"app's last backup; `skerry check` names what else is damaged."
    )
