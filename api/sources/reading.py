"""Reads a file line by line from a position, if it still is the file that was read before.

A position is more than an offset: it holds checksums of the first and of the last bytes that
were read. So a file that was replaced, cut or written over is noticed before a line of it is
read, while a copy of the same bytes elsewhere on the disk is recognised.

Positions are made when one is asked for: of a batch of thousands of lines, only the last one's.

Does I/O. Idea: docs/ideas/files.md.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice
from typing import IO, Any, overload

import msgspec
import xxhash
from msgspec import Struct

from skerry.errors import SkerryError
from skerry.sources.packed import read_errors, unpacked
from skerry.sources.paths import lost, opened

WINDOW_BYTES = 1 << 14
"""How many of the first and of the last bytes that were read a position vouches for."""

SHOWN_BYTES = 60
"""How many characters of a line an error shows."""

MARK = b"\xef\xbb\xbf"
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")


# ── positions ─────────────────────────────────────────────────────────────────


class Position(Struct, array_like=True, frozen=True):
    """The position behind a line, as it is stored: how far a file was read, and what was read."""

    offset: int
    """In bytes of text: of a packed file, after unpacking."""
    line: int
    """How many lines there are before it."""
    bad: int
    """How many of those lines were no items."""
    head: int
    tail: int
    device: int
    inode: int


class _At(Struct, frozen=True):
    """The position at which a batch of lines begins, with the bytes around it."""

    name: str
    """The file's name as a partition."""
    offset: int
    line: int
    head: bytes
    """The first bytes of the file's text, as far as they were read."""
    tail: bytes
    """The last bytes that were read."""
    device: int
    inode: int

    def behind(self, text: bytes, end: int, line: int) -> _At:
        """Return the position `end` bytes further on, `text` being what begins here."""
        head, tail = self.head, text[max(0, end - WINDOW_BYTES) : end]
        if len(head) < WINDOW_BYTES:
            head = (head + text[: min(end, WINDOW_BYTES)])[:WINDOW_BYTES]
        if len(tail) < WINDOW_BYTES:
            tail = (self.tail + tail)[-WINDOW_BYTES:]
        return _At(self.name, self.offset + end, line, head, tail, self.device, self.inode)

    def stored(self, bad: int) -> list[int]:
        """Return the position as it is stored, the fields of a `Position`."""
        head, tail = _sum(self.head), _sum(self.tail)
        return [self.offset, self.line, bad, head, tail, self.device, self.inode]


class Positions(Sequence[list[int]]):
    """The positions behind some lines of a batch, each made when it is asked for."""

    __slots__ = ("_at", "_bad", "_ends", "_numbers", "_text")

    def __init__(
        self, at: _At, text: bytes, ends: Sequence[int], numbers: Sequence[int], bad: int
    ) -> None:
        self._at, self._text, self._ends, self._numbers = at, text, ends, numbers
        self._bad = bad

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> list[int]: ...
    @overload
    def __getitem__(self, index: slice) -> Positions: ...
    def __getitem__(self, index: int | slice) -> list[int] | Positions:
        if isinstance(index, slice):
            return Positions(
                self._at, self._text, self._ends[index], self._numbers[index], self._bad
            )
        at = self._at.behind(self._text, self._ends[index], self._numbers[index])
        return at.stored(self._bad)

    def told(self, index: int) -> str:
        """Return the file and the number of a line, for a person."""
        return f"{self._at.name}, line {self._numbers[index]:,}"


_sum = xxhash.xxh3_64_intdigest


class Piece:
    """Consecutive lines of a file, read at once."""

    def __init__(self, at: _At, lines: list[bytes]) -> None:
        self.lines, self.text = lines, b"".join(lines)
        self._at = at
        self._ends = list(accumulate(map(len, lines)))

    @property
    def name(self) -> str:
        """The file's name as a partition."""
        return self._at.name

    @property
    def first(self) -> int:
        """How many lines of the file are before these."""
        return self._at.line

    @property
    def end(self) -> _At:
        """The position at which the next piece begins."""
        return self._at.behind(self.text, len(self.text), self._at.line + len(self.lines))

    def begins(self, place: int) -> int:
        """Return the offset in the text at which a line begins."""
        return self._ends[place - 1] if place else 0

    def line_of(self, byte: int) -> int:
        """Return which of the lines a byte of the text belongs to."""
        return bisect_right(self._ends, byte)

    def told(self, place: int) -> str:
        """Return the file and the number of a line, for a person."""
        return f"{self._at.name}, line {self._at.line + place + 1:,}"

    def positions(self, chosen: Sequence[int], bad: int) -> Positions:
        """Return the positions behind some of the lines.

        Args:
            chosen: which of the lines.
            bad: how many lines of the file were no items up to here.
        """
        first = self._at.line + 1
        if isinstance(chosen, range):
            ends = self._ends[chosen.start : chosen.stop]
            return Positions(
                self._at, self.text, ends, range(first + chosen.start, first + chosen.stop), bad
            )
        ends = [self._ends[place] for place in chosen]
        return Positions(self._at, self.text, ends, [first + place for place in chosen], bad)


# ── reading ───────────────────────────────────────────────────────────────────


class Changed(SkerryError):
    """A file is not the one that was read before."""

    def __init__(self, name: str, place: Position, what: str, source: str) -> None:
        super().__init__(
            f"{name} {what}. Up to line {place.line:,} (byte {place.offset:,}) it was read, and that "
            f"counts. Bring back the file that was read; or start with a new data directory; or, to "
            f'read what lies there now from its first line, write {source}(…, changed="anew").'
        )


class Reading:
    """Reads one file from a position on.

    Args:
        name: the partition.
        after: the position, as it was stored; None: from the beginning.
        source: the class that reads, for error messages.
        anew: whether a file that changed is read from its beginning.
    """

    def __init__(self, name: str, after: Any, *, source: str, anew: bool) -> None:
        self.name, self._source, self._anew = name, source, anew
        self._after = None if after is None else self._position(after)
        self._broken: Exception | None = None
        """The error that stopped the reading; raised behind the last line before it."""
        self.bad = self._after.bad if self._after else 0
        """How many lines were no items so far."""

    def _position(self, after: Any) -> Position:
        try:
            return msgspec.convert(after, Position)
        except msgspec.ValidationError as error:
            raise SkerryError(
                f"{self.name}: {after!r} is no place in a file: it was another source's that "
                f"had this one's name. Give the sources names: app.source(…, name=…)."
            ) from error

    def pieces(self, size: int) -> Iterator[Piece]:
        """Iterate over the lines, up to `size` at once; every line before an error comes first.

        Raises:
            Changed: the file is not the one that was read before.
            SkerryError: the file can't be read.
        """
        try:
            with opened(self.name) as raw:
                file = self._unpacked(raw)
                at = self._begin(file)
                while lines := self._take(file, size):
                    piece = Piece(at, lines)
                    yield piece
                    if not lines[-1].endswith(b"\n"):
                        break  # What came behind it since would be a part of this line.
                    at = piece.end
                if self._broken is not None:
                    raise self._broken
                if file is raw and os.fstat(raw.fileno()).st_size < at.offset:
                    raise OSError(f"it was cut below byte {at.offset:,} while it was read")
        except read_errors() as error:
            raise lost(self.name, error) from error

    def _take(self, file: IO[bytes], size: int) -> list[bytes]:
        """Read some lines: those before an error, and none behind it."""
        lines: list[bytes] = []
        if self._broken is None:
            try:
                lines.extend(islice(file, size))
            except read_errors() as error:
                self._broken = error
        return lines

    def _unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        status = os.fstat(raw.fileno())
        self._device, self._inode = status.st_dev, status.st_ino
        return unpacked(raw, self.name)

    def _begin(self, file: IO[bytes]) -> _At:
        """Go to the position from which lines are wanted."""
        if self._after is not None:
            try:
                return self._go_on(file, self._after)
            except Changed:
                if not self._anew:
                    raise
            self.bad = 0
            file.seek(0)
        mark = file.read(len(MARK))
        if mark.startswith(WIDE_MARKS):
            raise SkerryError(
                f"{self.name} is not UTF-8 but UTF-16 or UTF-32, as its first bytes say. Convert it "
                f"(iconv -f utf-16 -t utf-8), or leave it out."
            )
        if mark != MARK:
            mark = b""
            file.seek(0)
        return _At(self.name, len(mark), 0, mark, mark, self._device, self._inode)

    def _go_on(self, file: IO[bytes], after: Position) -> _At:
        """Go behind what was read, if that has not changed."""
        window = min(WINDOW_BYTES, after.offset)
        head = file.read(window)
        file.seek(after.offset - window)
        tail = file.read(window)
        if len(head) < window or len(tail) < window:
            raise self._changed(after, "is shorter now: it was cut or replaced")
        if (_sum(head), _sum(tail)) != (after.head, after.tail):
            other = (after.device, after.inode) != (self._device, self._inode)
            raise self._changed(
                after, "is another file now" if other else "was changed in what was read of it"
            )
        at = _At(self.name, after.offset, after.line, head, tail, self._device, self._inode)
        return at if tail.endswith(b"\n") else self._end_line(file, after, at)

    def _end_line(self, file: IO[bytes], after: Position, at: _At) -> _At:
        """Go behind the end of a line that had none when it was read, if nothing else was added."""
        rest = file.readline(SHOWN_BYTES)
        if rest in (b"\n", b"\r\n"):
            return at.behind(rest, len(rest), at.line)
        if rest in (b"", b"\r"):
            file.seek(0, os.SEEK_END)
            return at
        before = at.tail[at.tail.rfind(b"\n") + 1 :]
        raise self._changed(
            after,
            f"ended in the midst of line {after.line:,}: it was read as {_shown(before)} and is "
            f"{_shown(before + rest)} now",
        )

    def _changed(self, after: Position, what: str) -> Changed:
        return Changed(self.name, after, what, self._source)


def _shown(line: bytes) -> str:
    text = line.decode(errors="backslashreplace").rstrip("\r\n")
    return repr(text if len(text) <= SHOWN_BYTES else f"…{text[-SHOWN_BYTES:]}")
