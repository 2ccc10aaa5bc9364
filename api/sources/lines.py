"""LineFiles and TextFiles: files whose lines are items.

A file is a partition; a position is the place behind a line, so the next run goes on where the
last one ended. A file that vanished, shrank, was replaced or is not UTF-8 is an error that names
it: no line is ever passed over in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from skerry.errors import SkerryError
from skerry.sources.paths import check_paths, find, size_of
from skerry.sources.reading import Piece, Reading
from skerry.stream.ends import BadRow

T = TypeVar("T")
Batch = tuple[Sequence[Any], Sequence[T]]
"""Positions, and the items at them."""

Bad = Literal["stop", "dead", "skip"]
"""The treatment of a row that is no item."""
Changed = Literal["stop", "anew"]
"""The treatment of a file that is not the one that was read before."""

SHOWN_BYTES = 200
"""How much of a bad row an error shows."""

KEPT_BYTES = 1 << 16
"""How much of a bad row a dead letter keeps."""


class Parsed(NamedTuple):
    """The items of some lines, up to the first line that is none."""

    rows: Sequence[int]
    """Which of the lines the items are."""
    items: list[Any]
    bad: int | None = None
    """The line that is no item."""
    error: str = ""
    """The reason why that line is no item."""
    until: int | None = None
    """The line behind what is no item, if that is more than one line."""


class LineFiles(Generic[T]):
    """A source of files whose lines are items; a subclass says how lines are parsed.

    Args:
        paths, bad, bad_limit, changed: as for `TextFiles`.
    """

    reading: type[Reading] = Reading
    """What reads a file in pieces."""

    def __init__(
        self, paths: Sequence[str | PathLike[str]], bad: Bad, bad_limit: int, changed: Changed
    ) -> None:
        name = type(self).__name__
        self._paths = check_paths(paths, name)
        if bad not in ("stop", "dead", "skip"):
            raise ValueError(f'{name}: bad is "stop", "dead" or "skip", not {bad!r}')
        if changed not in ("stop", "anew"):
            raise ValueError(f'{name}: changed is "stop" or "anew", not {changed!r}')
        if type(bad_limit) is not int or bad_limit < 0:
            raise ValueError(f"{name}: bad_limit is a number of rows, not {bad_limit!r}")
        self._folder = str(Path.cwd())
        """The folder that relative paths are relative to, wherever the program goes later."""
        self._rule, self._limit, self._anew = bad, bad_limit, changed == "anew"
        self._bad: dict[str, int] = {}
        """For each file that is read here, how many lines were no items, in earlier runs too."""
        self._bad_before: dict[str, int] = {}

    @property
    def skipped(self) -> int:
        """How many lines this process has skipped since it began to read."""
        if self._rule != "skip":
            return 0
        return sum(self._bad.values()) - sum(self._bad_before.values())

    def partitions(self) -> list[str]:
        """Return the files, sorted: real paths, with %ff for what is no printable UTF-8.

        Raises:
            SkerryError: a path or pattern finds nothing.
        """
        return find(self._paths, self._folder)

    def size(self, partition: str) -> int | None:
        """Return a file's size in bytes; None if it is packed, since only reading it tells."""
        return size_of(partition)

    def read(self, partition: str, after: Any) -> Iterator[tuple[Any, T]]:
        """Iterate over a file's (position, item) pairs behind the position `after`."""
        for positions, items in self.batches(partition, after, 1024):
            yield from zip(positions, items)

    def batches(self, partition: str, after: Any, size: int) -> Iterator[Batch[T]]:
        """Iterate over (positions, items), up to `size` at a time; a bad row comes alone."""
        reading = self.reading(partition, after, source=type(self).__name__, anew=self._anew)
        for piece in reading.pieces(size):
            self._bad[partition] = reading.bad
            self._bad_before.setdefault(partition, reading.bad)
            start: int | None = 0
            while start is not None and start < len(piece.lines):
                parsed = self.parse(piece, start)
                if parsed.items:
                    yield piece.positions(parsed.rows, reading.bad), parsed.items
                start = None
                if parsed.bad is not None:
                    start = parsed.until or parsed.bad + 1
                    reading.bad += 1
                    self._bad[partition] = reading.bad
                    row = self._row(piece, parsed.bad, start, parsed.error)
                    if row is not None:
                        yield piece.positions(range(start - 1, start), reading.bad), [row]

    def _row(self, piece: Piece, place: int, until: int, error: str) -> Any:
        """Return what stands for lines that are no item; None to skip them.

        Raises:
            SkerryError: the source stops.
        """
        if self._rule == "skip":
            return None
        line, error = b"".join(piece.lines[place:until]), f"{piece.told(place)}: {error}"
        if not line.endswith(b"\n"):
            error += " (it has no end: is it still being written?)"
        raw = line.rstrip(b"\r\n")
        if self._rule == "dead" and sum(self._bad.values()) <= self._limit:
            if len(raw) > KEPT_BYTES:
                error += f". The first {KEPT_BYTES:,} of its {len(raw):,} bytes are kept"
            return BadRow(raw[:KEPT_BYTES], error)
        name = type(self).__name__
        if self._rule == "dead":
            raise SkerryError(
                f"{error}. It is one bad row more than bad_limit={self._limit:,} allows: mend the "
                f"file, or raise that limit of {name}."
            )
        shown = raw[:SHOWN_BYTES].decode(errors="backslashreplace")
        raise SkerryError(
            f"{error}. It reads {shown!r}{'…' * (len(raw) > SHOWN_BYTES)}. "
            f"All lines before it are counted. Mend the line and start again; or go on without such "
            f'lines, by {name}(…, bad="dead") or bad="skip".'
        )

    def parse(self, piece: Piece, start: int) -> Parsed:
        """Return the items of the lines from `start` on."""
        raise NotImplementedError


class TextFiles(LineFiles[str]):
    """A source of the lines of UTF-8 text files, without line ends and byte order marks.

    Each file is a partition, identified by its real path: it is the same file by any spelling or
    link, and another one after it was moved. A file that appears later is read by the next run.

    A last line without an end is an item. If it has grown by the next run, the file counts as
    changed; if only its end was added, it does not.

    Args:
        *paths: paths, or patterns such as `corpus/**/*.txt`. A path that exists is that file, whatever
            it looks like. Files that gzip or Zstandard packed are unpacked.
        bad: what becomes of a line that is not UTF-8. "stop" ends the app with the line's place,
            once all lines before it are counted; "dead" makes a dead letter of it; "skip" counts
            it and goes on.
        bad_limit: how many bad lines "dead" allows before it stops too, in all files that one
            worker reads.
        changed: what becomes of a file that was cut, replaced or rotated since an earlier run
            read it. "stop" ends the app and says so; "anew" reads it from its first line.

    Raises:
        TypeError: an argument is no path.
        ValueError: there is no path, an empty one, or an unknown option.
        SkerryError: when the app starts, a path or pattern finds nothing.

    Example:
        >>> app.source(TextFiles("corpus/**/*.txt")).flat_map(str.split)
    """

    item_type = str

    def __init__(
        self,
        *paths: str | PathLike[str],
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None:
        super().__init__(paths, bad, bad_limit, changed)

    def parse(self, piece: Piece, start: int) -> Parsed:
        begins, rows = piece.begins(start), range(start, len(piece.lines))
        whole, wrong = piece.text[begins:] if start else piece.text, ""
        try:
            text = whole.decode()
        except UnicodeDecodeError as error:
            bad = piece.line_of(begins + error.start)
            offset = begins + error.start - piece.begins(bad)
            wrong = (
                f"it is not UTF-8: its byte {offset + 1:,} is {whole[error.start]:#04x} (is the file "
                f"in Latin-1? iconv -f latin1 -t utf-8)"
            )
            rows = range(start, bad)
            text = whole[: piece.begins(bad) - begins].decode()
        texts = text.split("\n")
        if len(texts) > len(rows):
            texts.pop()  # What follows the end of the last line.
        if "\r" in text:
            texts = [line.removesuffix("\r") for line in texts]
        return Parsed(rows, texts, rows.stop if wrong else None, wrong)
