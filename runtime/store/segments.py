"""The files of a shard's log: records of commits, each synced by the write that appends it.

    | head | marks | record | record | ... | zeros |

The head names the shard and the commit before the file's first. A record stands behind its
length. A mark says up to which commit all was synced, and is written behind each sync. So
what is no record can be told apart: up to the mark it is damage, and refused; behind the mark
it is a write that a power cut took, which nobody was told of: it is written over, and what is
left of it does not follow in the chain of checksums.

A sync that has to write a file's new length costs another flush: so a small write brings zeros
along, and those that follow it write over them. A sweep begins with a new file; the old one is
removed when all its rows are in the tree.

Does file I/O, on one thread at a time. Idea: docs/log.md; write-ahead logs of Mohan et al.,
"ARIES", 1992. Asserts I6.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO

import msgspec
import xxhash
from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import Decoded
from skerry.runtime.ports import Last

FORMAT = 1
RECORDS_AT = 4096
MARKS_AT = (2048, 3072)
"""Written in turns: when the power fails while one is written, there is the other. On most disks
neither shares a sector with the head, which is never written again."""

AHEAD_BYTES = 256 << 10
"""What a small write brings along, itself and zeros: for hundreds of single requests."""

SMALL_BYTES = 32 << 10
"""A larger write does not: each byte of it would be written twice, to save it one flush."""

NAMES = "log-" + "[0-9]" * 20

PIECE_BYTES = 1 << 20
"""How much of a file is copied at once."""

_HEAD = struct.Struct("<4sIIQQQQ")
_MAGIC = b"SKLG"
_MARK = struct.Struct("<Q")
_LENGTH = struct.Struct("<I")
_CHECKSUM = struct.Struct("<Q")
_ZEROS = bytes(AHEAD_BYTES)


class Segment(Struct, frozen=True):
    """A file of the log."""

    path: Path
    before: Last
    """The commit before its first."""
    mark: int
    """The newest commit that is known to have been synced into it."""

    @classmethod
    def create(cls, folder: Path, *, shard: int, before: Last) -> Segment:
        """A new file without records, synced with its folder."""
        path = folder / name_of(before.no + 1)
        head = _HEAD.pack(
            _MAGIC, FORMAT, shard, before.no, before.checksum, before.epoch, before.time_ns
        )
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(fd, sealed(head).ljust(RECORDS_AT, b"\0"), 0)
            _put_marks(fd, before.no)
            os.fsync(fd)
        finally:
            os.close(fd)
        sync_path(folder)
        return cls(path, before, before.no)

    @classmethod
    def open(cls, path: Path, *, shard: int) -> Segment:
        """A file that is there. Raises StoreDamaged."""
        try:
            with path.open("rb") as file:
                page = file.read(RECORDS_AT)
            magic, version, owner, *before = _HEAD.unpack(_sealed_at(page, 0, _HEAD))
            mark = _mark(page)
        except (ValueError, OSError) as error:
            raise StoreDamaged(_damaged(path, f"its head can't be read: {error}")) from error
        if (magic, version, owner) != (_MAGIC, FORMAT, shard):
            raise StoreDamaged(
                f"{path} is of shard {owner}, in format {magic!r} {version}; here shard {shard} and "
                f"format {_MAGIC!r} {FORMAT} belong. Put the right file back."
            )
        found = cls(path, Last(*before), mark)
        if path.name != name_of(found.before.no + 1):
            raise StoreDamaged(_damaged(path, f"it begins with commit {found.before.no + 1}"))
        return found

    def records(self, due: int) -> Iterator[tuple[Decoded, tuple[Last, int]]]:
        """Its records in order, verified, each with what the file ends with then: it, and its end.

        Raises StoreDamaged when there are not all commits up to `due`.
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
                    raise StoreDamaged(_damaged(self.path, str(error))) from error
                except (ValueError, IndexError, struct.error, msgspec.MsgspecError) as error:
                    if last.no >= due:
                        return
                    raise StoreDamaged(
                        _damaged(self.path, f"commit {last.no + 1} is damaged: {error}")
                    ) from error
                last = Last(decoded.no, decoded.checksum, decoded.epoch, decoded.time_ns)
                yield decoded, (last, at)


def _next(file: BinaryIO, at: int, size: int) -> tuple[Decoded, int]:
    """The record that begins here, and where it ends. Raises what says that there is none."""
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    end = at + _LENGTH.size + length
    if not length or end > size:
        raise ValueError("the file ends before it")
    return records.decode(file.read(length)), end


class Held(Struct, frozen=True):
    """The log's files at one moment: kept open, whatever becomes of them meanwhile."""

    no: int
    """The newest commit that belongs to this moment."""
    files: list[tuple[str, int, int]]
    """(name, descriptor, bytes); the newest last."""

    def copy(self, folder: Path) -> int:
        """Copies that are synced; how many bytes. The folder is there, and not synced by this.

        Raises StoreDamaged: a file can't be read; OSError: a copy can't be written.
        """
        for name, held, size in self.files:
            with open(folder / name, "xb", opener=_private) as copy:
                at = 0
                while at < size:
                    piece = _piece(name, held, at, size)
                    copy.write(piece)
                    at += len(piece)
                copy.flush()
                if name == self.files[-1][0]:
                    _put_marks(copy.fileno(), self.no)
                os.fsync(copy.fileno())
        return sum(size for _, _, size in self.files)

    def close(self) -> None:
        """Let go of the files."""
        for _, held, _ in self.files:
            os.close(held)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _piece(name: str, held: int, at: int, size: int) -> bytes:
    try:
        piece = os.pread(held, min(PIECE_BYTES, size - at), at)
    except OSError as error:
        raise StoreDamaged(_damaged(Path(name), str(error))) from error
    if not piece:
        raise StoreDamaged(_damaged(Path(name), f"it ends at byte {at:,} of {size:,}"))
    return piece


class Log:
    """The log of an open store."""

    def __init__(self, folder: Path, *, shard: int, newest: int, before: tuple[int, int]) -> None:
        """`newest`: the first commit of the newest file. `before`: (number, checksum) of the commit
        before the oldest file's first, which the tree has got.

        Raises StoreDamaged: a file is missing, of another store, or its head is damaged.
        """
        self._folder, self._shard = folder, shard
        firsts = {int(path.name[4:]): path for path in sorted(folder.glob(NAMES))}
        for first in (before[0] + 1, newest):
            if first not in firsts:
                raise StoreDamaged(_damaged(folder / name_of(first), "it is missing"))
        self._idle = [path for first, path in firsts.items() if not before[0] < first <= newest]
        """Of a sweep whose end a power cut half undid, or of one that had not quite begun."""
        for first, path in firsts.items():
            if first > newest and path.stat().st_size > RECORDS_AT:
                raise StoreDamaged(
                    _damaged(path, "the tree beside it is older, and knows no such file")
                )
        paths = [path for path in firsts.values() if path not in self._idle]
        self._segments = [Segment.open(path, shard=shard) for path in paths]
        oldest = self._segments[0]
        if (oldest.before.no, oldest.before.checksum) != before:
            raise StoreDamaged(_damaged(oldest.path, "it does not follow what the tree has got"))
        self._tail = oldest.before, RECORDS_AT
        """The newest commit and where its record ends: one value, for `hold` on another thread."""
        self._room = RECORDS_AT
        """Up to here the newest file has its length: records or zeros."""
        self._older_bytes = sum(path.stat().st_size for path in paths[:-1])
        self._fd = -1
        self._unsynced = False
        self._marks = 0

    # ── opening ──

    def replay(self) -> Iterator[Decoded]:
        """Every record, verified. Raises StoreDamaged."""
        for segment, follower in zip_longest(self._segments, self._segments[1:]):
            due = segment.mark if follower is None else follower.before.no
            if segment.before != self.last:
                raise StoreDamaged(_damaged(segment.path, "it does not follow the one before it"))
            self._tail = self.last, RECORDS_AT
            for decoded, self._tail in segment.records(due):
                yield decoded

    def resume(self) -> None:
        """Go on behind what was replayed. All of it is synced then: a killed process may have
        left its last records in the page cache only, and we have read them."""
        self._use(self._segments[-1])
        os.fsync(self._fd)
        _put_marks(self._fd, self.last.no)
        for path in self._idle:
            path.unlink()

    def _use(self, segment: Segment) -> None:
        old, self._fd = self._fd, os.open(segment.path, os.O_RDWR | os.O_CLOEXEC)
        if old >= 0:
            os.close(old)
        self._room = self._tail[1]

    # ── going on ──

    def append(self, waiting: Sequence[bytes], *, sync: bool) -> None:
        """These records follow; with `sync` they are durable when this returns."""
        parts = [part for record in waiting for part in (_LENGTH.pack(len(record)), record)]
        size, at = sum(map(len, parts)), self._tail[1]
        end = at + size
        if end > self._room:
            ahead = AHEAD_BYTES - size if size < SMALL_BYTES else 0
            parts.append(_ZEROS[:ahead])
            self._room = end + ahead
        write_all(self._fd, b"".join(parts), at, os.RWF_DSYNC if sync else 0)
        self._tail = Last(*records.head_of(waiting[-1])), end
        if sync:
            assert not self._unsynced, "I6: such a write syncs itself and nothing before it"
            self._mark()
        self._unsynced = not sync

    def sync(self) -> None:
        """What was appended without a sync is durable when this returns."""
        if self._unsynced:
            self._unsynced = False  # Nobody tries it again: it may claim success then.
            os.fdatasync(self._fd)
            self._mark()

    def _mark(self) -> None:
        """Not synced by itself: the kernel gives it to the disk within half a minute."""
        self._marks += 1
        write_all(self._fd, sealed(_MARK.pack(self.last.no)), MARKS_AT[self._marks % 2])

    def begin_segment(self) -> Segment:
        """A new file, synced, for what comes from `turn` on; so is all that came before."""
        self.sync()
        assert self.last.no > self._segments[-1].before.no, "I6: a file without records goes on"
        return Segment.create(self._folder, shard=self._shard, before=self.last)

    def turn(self, segment: Segment) -> None:
        """The new file takes what comes."""
        older, self._tail = self._room, (self.last, RECORDS_AT)
        self._use(segment)
        self._segments.append(segment)
        self._older_bytes += older

    def drop(self) -> None:
        """The tree has all that the older files hold: they go."""
        *older, newest = self._segments
        self._segments, self._older_bytes = [newest], 0
        for segment in older:
            segment.path.unlink()

    @property
    def last(self) -> Last:
        """The newest commit."""
        return self._tail[0]

    @property
    def turned_behind(self) -> Last:
        """The newest commit that is in an older file."""
        return self._segments[-1].before

    @property
    def bytes(self) -> int:
        """What the files take, zeros ahead included."""
        return self._older_bytes + self._room

    def hold(self) -> Held:
        """The files as they are, all that was appended in them."""
        last, end = self._tail
        files = []
        for segment in self._segments:
            fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
            files.append((segment.path.name, fd, os.fstat(fd).st_size))
        name, fd, _ = files[-1]
        files[-1] = (name, fd, end)
        return Held(last.no, files)

    def close(self) -> None:
        """Let go, synced."""
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1


def name_of(first: int) -> str:
    """The name of the file that begins with this commit."""
    return f"log-{first:020}"


def sealed(value: bytes) -> bytes:
    """It, and its checksum."""
    return value + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(value))


def unsealed(whole: bytes) -> bytes:
    """What `sealed` has sealed. Raises ValueError."""
    value = whole[: -_CHECKSUM.size]
    if sealed(value) != whole:
        raise ValueError("its checksum does not match its bytes, or it was cut short")
    return value


def _sealed_at(page: bytes, at: int, form: struct.Struct) -> bytes:
    return unsealed(page[at : at + form.size + _CHECKSUM.size])


def _put_marks(fd: int, no: int) -> None:
    for place in MARKS_AT:
        write_all(fd, sealed(_MARK.pack(no)), place)


def _mark(page: bytes) -> int:
    """The newest mark on a file's first page. Raises ValueError: none is sound."""
    found: list[int] = []
    for place in MARKS_AT:
        with suppress(ValueError):
            found += _MARK.unpack(_sealed_at(page, place, _MARK))
    if not found:
        raise ValueError("neither of its marks matches its checksum")
    return max(found)


def write_all(fd: int, data: bytes, at: int, flags: int = 0) -> None:
    """All of it: the system may take less, as when the disk is full, and say why at the next call."""
    rest = memoryview(data)
    while rest:
        written = os.pwritev(fd, [rest], at, flags)
        rest, at = rest[written:], at + written


def sync_path(path: Path) -> None:
    """What a file holds, or which names a folder has, is durable when this returns."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _damaged(path: Path, why: str) -> str:
    return (
        f"The log {path} is damaged: {why}. Nothing was cut off. Look at the disk, and restore the "
        f"app's last backup; `skerry check` names what else is damaged."
    )
