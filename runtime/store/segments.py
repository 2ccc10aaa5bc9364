"""A shard's log as a row of files, the segments.

Each write that appends records also syncs them. Syncing a file that has grown costs the disk
another flush, for the new length: so a small write brings zeros along, and the small writes after
it overwrite them.

The log rolls at the beginning of a checkpoint: it goes on in a new segment, and the older ones are
removed when the checkpoint has carried all their rows to the tree. The tree names the segment that
the log has rolled to (the token), and the commit before the oldest segment. So a segment that is
missing, or that is older or newer than the tree says, is noticed.

Fenced by the lock on the store's folder. Does file I/O. Idea: docs/ideas/log.md; write-ahead logs of
Mohan et al., "ARIES", 1992. Asserts I6.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import Decoded
from skerry.runtime.ports import Last
from skerry.runtime.store import segment
from skerry.runtime.store.disk import write_all
from skerry.runtime.store.segment import LENGTH, NAMES, RECORDS_AT, Segment, damaged, name_of

AHEAD_BYTES = 256 << 10
"""How far a small write extends the file, itself and zeros: enough for hundreds of requests."""

SMALL_BYTES = 32 << 10
"""Larger writes bring no zeros: writing each byte twice would cost more than the flush saved."""

PIECE_BYTES = 1 << 20
"""How much of a file is copied at once."""

_TOKEN = struct.Struct("<Q")
_ZEROS = bytes(AHEAD_BYTES)


class Segments:
    """The log of an open store; see `ports.Log` for its promises."""

    def __init__(self, folder: Path, *, shard: int, token: bytes, before: tuple[int, int]) -> None:
        """Open the log. `before`: (number, checksum) of the commit before the oldest segment's
        first, whose rows the tree has.

        Raises StoreDamaged: a segment is missing, of another store, or its head is damaged.
        """
        self._folder, self._shard = folder, shard
        newest = _first_named(folder, token)
        firsts = {segment.first_of(path): path for path in sorted(folder.glob(NAMES))}
        for first in (before[0] + 1, newest):
            if first not in firsts:
                raise StoreDamaged(damaged(folder / name_of(first), "it is missing"))
        self._idle = [path for first, path in firsts.items() if not before[0] < first <= newest]
        """Segments of a checkpoint that had barely begun, or whose end a power cut half undid."""
        for first, path in firsts.items():
            if first > newest and path.stat().st_size > RECORDS_AT:
                raise StoreDamaged(
                    damaged(path, "the tree beside it is older, and knows no such file")
                )
        paths = [path for path in firsts.values() if path not in self._idle]
        self._segments = [Segment.open(path, shard=shard) for path in paths]
        oldest = self._segments[0]
        if (oldest.before.no, oldest.before.checksum) != before:
            raise StoreDamaged(damaged(oldest.path, "it does not follow what the tree has got"))
        self._prepared: Segment | None = None
        self._tail = oldest.before, RECORDS_AT
        """The newest commit and where its record ends: one value, for `hold` on another thread."""
        self._room = RECORDS_AT
        """The length of the newest segment's file: records, then zeros."""
        self._older_bytes = sum(path.stat().st_size for path in paths[:-1])
        self._fd = -1
        self._unsynced = False
        self._marks = 0

    @classmethod
    def create(cls, folder: Path, *, shard: int) -> bytes:
        """Create an empty log, synced with its folder; return its token."""
        return _token(Segment.create(folder, shard=shard, before=Last()))

    # ── opening ──

    def replay(self) -> Iterator[Decoded]:
        """Yield every record, verified. Raises StoreDamaged."""
        for each, follower in zip_longest(self._segments, self._segments[1:]):
            due = each.durable if follower is None else follower.before.no
            if each.before != self.last:
                raise StoreDamaged(damaged(each.path, "it does not follow the one before it"))
            self._tail = self.last, RECORDS_AT
            for decoded, self._tail in each.records(due):
                yield decoded

    def resume(self) -> None:
        """Go on behind what was replayed, all of which is synced first: a killed process may have
        left its last records in the page cache only, and we have read them."""
        self._use(self._segments[-1])
        os.fsync(self._fd)
        segment.put_marks(self._fd, self.last.no)
        for path in self._idle:
            path.unlink()

    def _use(self, newest: Segment) -> None:
        old, self._fd = self._fd, os.open(newest.path, os.O_RDWR | os.O_CLOEXEC)
        if old >= 0:
            os.close(old)
        self._room = self._tail[1]

    # ── appending ──

    def append(self, waiting: Sequence[bytes], *, sync: bool) -> None:
        """Append records; with `sync` they are durable when this returns."""
        parts = [part for record in waiting for part in (LENGTH.pack(len(record)), record)]
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
        """Make durable what was appended without a sync."""
        if self._unsynced:
            self._unsynced = False  # Never tried twice: the second try may claim success.
            os.fdatasync(self._fd)
            self._mark()

    def _mark(self) -> None:
        self._marks += 1
        segment.put_mark(self._fd, self.last.no, self._marks)

    # ── checkpoints ──

    def prepare_roll(self) -> bytes:
        """Sync all records, and create the segment that `roll` goes on in; return its token."""
        self.sync()
        assert self.last.no > self.boundary.no, "I6: a segment without records goes on"
        self._prepared = Segment.create(self._folder, shard=self._shard, before=self.last)
        return _token(self._prepared)

    def roll(self) -> None:
        """Go on in the prepared segment."""
        assert self._prepared is not None, "a roll is prepared, and the tree knows of it"
        older, self._tail = self._room, (self.last, RECORDS_AT)
        self._use(self._prepared)
        self._segments.append(self._prepared)
        self._prepared = None
        self._older_bytes += older

    def trim(self) -> None:
        """Remove all segments but the newest."""
        *older, newest = self._segments
        self._segments, self._older_bytes = [newest], 0
        for each in older:
            each.path.unlink()

    @property
    def last(self) -> Last:
        """The newest commit."""
        return self._tail[0]

    @property
    def boundary(self) -> Last:
        """The newest commit before the newest segment."""
        return self._segments[-1].before

    @property
    def size_bytes(self) -> int:
        """What the segments take, zeros included."""
        return self._older_bytes + self._room

    # ── copies, and the end ──

    def hold(self) -> HeldSegments:
        """Hold all that is appended now, for a copy."""
        last, end = self._tail
        files = []
        for each in self._segments:
            fd = os.open(each.path, os.O_RDONLY | os.O_CLOEXEC)
            files.append((each.path.name, fd, os.fstat(fd).st_size))
        name, fd, _ = files[-1]
        files[-1] = (name, fd, end)
        return HeldSegments(last.no, files)

    def close(self) -> None:
        """Sync, and close the files."""
        if self._fd >= 0:
            try:
                self.sync()
            finally:
                os.close(self._fd)
                self._fd = -1


def has_records(folder: Path) -> bool | None:
    """Whether a folder's log holds records, or files that are no log of ours; None: it has no
    log."""
    logs = list(folder.glob(NAMES))
    if not logs:
        return None
    return any(log.name != name_of(1) or log.stat().st_size > RECORDS_AT for log in logs)


def _token(newest: Segment) -> bytes:
    return _TOKEN.pack(newest.before.no + 1)


def _first_named(folder: Path, token: bytes) -> int:
    """Return the first commit of the segment that a token names. Raises StoreDamaged."""
    if len(token) != _TOKEN.size:
        raise StoreDamaged(damaged(folder, f"the tree names it by {len(token)} bytes"))
    (first,) = _TOKEN.unpack(token)
    return int(first)


class HeldSegments(Struct, frozen=True):
    """The segments of one moment, kept open whatever becomes of their names; see
    `ports.LogSnapshot`."""

    no: int
    """The newest commit of that moment."""
    files: list[tuple[str, int, int]]
    """(name, descriptor, bytes); the newest last."""

    def copy(self, folder: Path) -> int:
        """Copy the segments into `folder`, each synced; return how many bytes.

        The folder exists, and its list of names is not synced here. Raises StoreDamaged: a segment
        can't be read; OSError: a copy can't be written.
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
                    segment.put_marks(copy.fileno(), self.no)
                os.fsync(copy.fileno())
        return sum(size for _, _, size in self.files)

    def close(self) -> None:
        """Close the files."""
        for _, held, _ in self.files:
            os.close(held)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


def _piece(name: str, held: int, at: int, size: int) -> bytes:
    try:
        piece = os.pread(held, min(PIECE_BYTES, size - at), at)
    except OSError as error:
        raise StoreDamaged(damaged(Path(name), str(error))) from error
    if not piece:
        raise StoreDamaged(damaged(Path(name), f"it ends at byte {at:,} of {size:,}"))
    return piece
