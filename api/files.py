"""Files as sources know them: their names, the places in them, and whether they are still the same.

A file is one partition, named by its real path, however it was spelled or linked. A place in it
is more than an offset: it holds checksums of the first and of the last bytes that were read, so
that a file that was replaced, cut or written over is seen before a line of it is read, while a
copy of the same bytes elsewhere on the disk is taken for what it is.

Places are made when one is asked for. A batch of thousands of lines asks for its last one.

Idea: docs/files.md.
"""

from __future__ import annotations

import glob
import gzip
import os
import re
import stat
import urllib.parse
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any, overload

import msgspec
import xxhash
from msgspec import Struct

from skerry.errors import SkerryError

WINDOW_BYTES = 1 << 14
"""So many of the first and of the last bytes that were read are known again."""

SHOWN_BYTES = 60
"""How much of a line an error shows."""

MARK = b"\xef\xbb\xbf"
WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
PACKED = b"\x1f\x8b"
"""How a file begins that was packed by gzip. No text in UTF-8 does."""

READ_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a file may raise, packed or not."""


# ── names ─────────────────────────────────────────────────────────────────────


def name_of(path: str) -> str:
    """A path as a partition's name: what is no printable UTF-8 in it is written as %ff."""
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    return re.sub(r"[%\x00-\x1f\x7f\udc80-\udcff]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def path_of(name: str) -> str:
    """The path that a name was made of."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(name))


def find(paths: Iterable[str], folder: str) -> list[str]:
    """The names of these files, sorted; each file once.

    Args:
        paths: files, or patterns where there is no such file.
        folder: what relative ones are relative to.

    Raises:
        SkerryError: a path finds nothing that can be read.
    """
    real, first = _RealPaths(), dict[object, Path]()
    for given in paths:
        try:
            for path in map(real.path, _matching(given, folder)):
                status = path.stat()
                # Some network disks number no files: ask for that only where there are links.
                linked = status.st_nlink > 1
                file = (status.st_dev, status.st_ino) if linked else path
                first[file] = min(path, first.get(file, path))
        except OSError as error:
            raise lost(given, error) from error
    return sorted(name_of(str(path)) for path in first.values())


def _matching(path: str, folder: str) -> list[Path]:
    whole = Path(folder, path)
    if whole.is_file():
        return [whole]
    # Only the user's part is a pattern: the folder that it is relative to may have brackets.
    pattern = str(Path(glob.escape(folder), path))
    files = [Path(file) for file in glob.glob(pattern, recursive=True) if Path(file).is_file()]
    if files:
        return files
    if whole.is_dir():
        raise SkerryError(f"{path} is a folder: name its files, as {Path(path, '*')}.")
    if whole.exists():
        raise SkerryError(f"{path} is no regular file: it could not be read again after a crash.")
    raise SkerryError(
        f"There is no file {path}: look at the path, or at the folder that the app was "
        f"started in ({folder})."
    )


class _RealPaths:
    """Real paths, each folder resolved once: of thousands of files most lie in a few."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def path(self, path: Path) -> Path:
        """The absolute path without any link in it."""
        if path.is_symlink() or path.name == "..":
            return path.resolve()
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = folder.resolve()
        return self._folders[folder] / path.name


def size_of(name: str) -> int | None:
    """Bytes of a file; None when it is packed, since only reading it tells."""
    try:
        with _opened(name) as file:
            return None if file.read(2) == PACKED else os.fstat(file.fileno()).st_size
    except OSError as error:
        raise lost(name, error) from error


def _opened(name: str) -> IO[bytes]:
    """The file; a pipe that lies there by now keeps nobody waiting. Raises OSError."""
    file = open(
        path_of(name), "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    )
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no regular file any more")
    return file


# ── places ────────────────────────────────────────────────────────────────────


class Place(Struct, array_like=True, frozen=True):
    """Where a file has been read to, and what was read there."""

    offset: int
    """In bytes; of a packed file, of its text."""
    line: int
    """The lines up to there."""
    bad: int
    """How many of them were no items."""
    head: int
    tail: int
    device: int
    inode: int


class _At(Struct, frozen=True):
    """Where a batch of lines begins."""

    name: str
    """The file's, as people see it: a path may hold what can't be printed, or stored."""
    offset: int
    line: int
    head: bytes
    """The first bytes of what was read."""
    tail: bytes
    """The last ones."""
    device: int
    inode: int

    def behind(self, text: bytes, end: int, line: int) -> _At:
        """The place behind so many bytes of the text that begins here."""
        head, tail = self.head, text[max(0, end - WINDOW_BYTES) : end]
        if len(head) < WINDOW_BYTES:
            head = (head + text[: min(end, WINDOW_BYTES)])[:WINDOW_BYTES]
        if len(tail) < WINDOW_BYTES:
            tail = (self.tail + tail)[-WINDOW_BYTES:]
        return _At(self.name, self.offset + end, line, head, tail, self.device, self.inode)

    def place(self, bad: int) -> list[int]:
        """As it is stored: a `Place`."""
        head, tail = _sum(self.head), _sum(self.tail)
        return [self.offset, self.line, bad, head, tail, self.device, self.inode]


class Places(Sequence[list[int]]):
    """The places behind some lines of a batch, each made when it is asked for."""

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
    def __getitem__(self, index: slice) -> Places: ...
    def __getitem__(self, index: int | slice) -> list[int] | Places:
        if isinstance(index, slice):
            return Places(self._at, self._text, self._ends[index], self._numbers[index], self._bad)
        at = self._at.behind(self._text, self._ends[index], self._numbers[index])
        return at.place(self._bad)

    def told(self, index: int) -> str:
        """One of them, for a person."""
        return f"{self._at.name}, line {self._numbers[index]:,}"


_sum = xxhash.xxh3_64_intdigest


class Piece:
    """Lines of a file that were read at once, with their ends."""

    def __init__(self, at: _At, lines: list[bytes]) -> None:
        self.lines, self.text = lines, b"".join(lines)
        self._at = at
        self._ends = list(accumulate(map(len, lines)))

    @property
    def end(self) -> _At:
        """Where the next one begins."""
        return self._at.behind(self.text, len(self.text), self._at.line + len(self.lines))

    def begins(self, place: int) -> int:
        """Where in the text a line of it does."""
        return self._ends[place - 1] if place else 0

    def line_of(self, byte: int) -> int:
        """Which of the lines a byte of the text belongs to."""
        return bisect_right(self._ends, byte)

    def told(self, place: int) -> str:
        """A line of it, for a person."""
        return f"{self._at.name}, line {self._at.line + place + 1:,}"

    def places(self, chosen: Sequence[int], bad: int) -> Places:
        """Behind these of the lines, `bad` lines of the file having been none before."""
        first = self._at.line + 1
        if isinstance(chosen, range):
            ends = self._ends[chosen.start : chosen.stop]
            return Places(
                self._at, self.text, ends, range(first + chosen.start, first + chosen.stop), bad
            )
        ends = [self._ends[place] for place in chosen]
        return Places(self._at, self.text, ends, [first + place for place in chosen], bad)


# ── reading ───────────────────────────────────────────────────────────────────


class Changed(SkerryError):
    """A file is not the one that was read."""

    def __init__(self, name: str, place: Place, what: str, source: str) -> None:
        super().__init__(
            f"{name} {what}. Up to line {place.line:,} (byte {place.offset:,}) it was read, and that "
            f"counts. Bring back the file that was read; or start with a new data directory; or, to "
            f'read what lies there now from its first line, write {source}(…, changed="anew").'
        )


class Reading:
    """One file that is read on behind a place.

    Args:
        name: the partition.
        after: the place, as it was stored; None: from the beginning.
        source: the class that reads, for what is said.
        anew: whether a file that is not the one that was read is read from its beginning.
    """

    def __init__(self, name: str, after: Any, *, source: str, anew: bool) -> None:
        self.name, self._source, self._anew = name, source, anew
        self._after = None if after is None else self._place(after)
        self._broken: Exception | None = None
        """Why nothing more can be read."""
        self.bad = self._after.bad if self._after else 0
        """How many of the lines before it were no items."""

    def _place(self, after: Any) -> Place:
        try:
            return msgspec.convert(after, Place)
        except msgspec.ValidationError as error:
            raise SkerryError(
                f"{self.name}: {after!r} is no place in a file: it was another source's that "
                f"had this one's name. Give the sources names: app.source(…, name=…)."
            ) from error

    def pieces(self, size: int) -> Iterator[Piece]:
        """The lines, up to `size` at once. What can be read is given before the error that follows.

        Raises Changed; SkerryError: the file can't be read.
        """
        try:
            with _opened(self.name) as raw:
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
        except READ_ERRORS as error:
            raise lost(self.name, error) from error

    def _take(self, file: IO[bytes], size: int) -> list[bytes]:
        """Some lines: those before what can't be read, too, and none behind it."""
        lines: list[bytes] = []
        if self._broken is None:
            try:
                lines.extend(islice(file, size))
            except READ_ERRORS as error:
                self._broken = error
        return lines

    def _unpacked(self, raw: IO[bytes]) -> IO[bytes]:
        status = os.fstat(raw.fileno())
        self._device, self._inode = status.st_dev, status.st_ino
        packed = raw.read(2) == PACKED or self.name.endswith(".gz")
        raw.seek(0)
        return gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[return-value]

    def _begin(self, file: IO[bytes]) -> _At:
        """Go to where lines are to be read."""
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

    def _go_on(self, file: IO[bytes], after: Place) -> _At:
        """Behind what was read, when it is still what it was."""
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

    def _end_line(self, file: IO[bytes], after: Place, at: _At) -> _At:
        """Behind the end of a line that had none when it was read, if that is all that came."""
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

    def _changed(self, after: Place, what: str) -> Changed:
        return Changed(self.name, after, what, self._source)


def _shown(line: bytes) -> str:
    text = line.decode(errors="backslashreplace").rstrip("\r\n")
    return repr(text if len(text) <= SHOWN_BYTES else f"…{text[-SHOWN_BYTES:]}")


def lost(name: str, error: Exception) -> SkerryError:
    """The file can't be read."""
    return SkerryError(
        f"{name} can't be read: {error}. Its lines so far are counted; bring it back, or start "
        f"the app without it."
    )
