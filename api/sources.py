"""Ready-made sources: text files, JSON lines, and a generator.

A file is a partition; a position is the place behind a line, so a second run goes on where the
first one ended. A file that vanished, shrank, is another one or is not UTF-8 is an error that
names it: no line is ever passed over in silence.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import IO, Any, Generic, Literal, NamedTuple, TypeVar, overload

import msgspec

from skerry.errors import SkerryError
from skerry.files import Piece, Reading, find, size_of
from skerry.stream import BadRow

T = TypeVar("T")
Batch = tuple[Sequence[Any], Sequence[T]]
"""Positions, and the items at them."""

Bad = Literal["stop", "dead", "skip"]
Changed = Literal["stop", "anew"]

SHOWN_BYTES = 200
"""How much of a bad row an error shows."""

KEPT_BYTES = 1 << 16
"""How much of one a dead letter keeps."""


class _Parsed(NamedTuple):
    """What some lines are: items, up to the first line that is none."""

    rows: Sequence[int]
    """Which of the lines the items are."""
    items: list[Any]
    bad: int | None = None
    error: str = ""


class _Files(Generic[T]):
    """Files whose lines are items: what `TextFiles` and `JsonLines` share."""

    def __init__(
        self, paths: Sequence[str | Path], bad: Bad, bad_limit: int, changed: Changed
    ) -> None:
        name = type(self).__name__
        if bad not in ("stop", "dead", "skip"):
            raise ValueError(f'{name}: bad is "stop", "dead" or "skip", not {bad!r}')
        if changed not in ("stop", "anew"):
            raise ValueError(f'{name}: changed is "stop" or "anew", not {changed!r}')
        if type(bad_limit) is not int or bad_limit < 0:
            raise ValueError(f"{name}: bad_limit is a number of rows, not {bad_limit!r}")
        self._paths = [os.fsdecode(path) for path in paths]
        self._folder = str(Path.cwd())
        """What relative paths are relative to, wherever the program goes later."""
        self._rule, self._limit, self._anew = bad, bad_limit, changed == "anew"
        self._bad: dict[str, int] = {}
        """Of each file that is read here: how many of its lines were no items, in earlier runs too."""
        self._bad_before: dict[str, int] = {}

    @property
    def skipped(self) -> int:
        """How many lines were no items and passed over, since this process began to read."""
        if self._rule != "skip":
            return 0
        return sum(self._bad.values()) - sum(self._bad_before.values())

    def partitions(self) -> list[str]:
        """The files, sorted: real paths, in which what is no printable UTF-8 is written as %ff."""
        return find(self._paths, self._folder)

    def size(self, partition: str) -> int | None:
        """Bytes of a file; None when it is packed, since only reading it tells."""
        return size_of(partition)

    def read(self, partition: str, after: Any) -> Iterator[tuple[Any, T]]:
        """(place behind the line, item) of a file."""
        for positions, items in self.batches(partition, after, 1024):
            yield from zip(positions, items)

    def batches(self, partition: str, after: Any, size: int) -> Iterator[Batch[T]]:
        """The same as places and items, up to `size` at a time. A bad row comes alone."""
        reading = Reading(partition, after, source=type(self).__name__, anew=self._anew)
        for piece in reading.pieces(size):
            self._bad[partition] = reading.bad
            self._bad_before.setdefault(partition, reading.bad)
            start: int | None = 0
            while start is not None and start < len(piece.lines):
                parsed = self._parse(piece, start)
                if parsed.items:
                    yield piece.places(parsed.rows, reading.bad), parsed.items
                start = None
                if parsed.bad is not None:
                    start = parsed.bad + 1
                    reading.bad += 1
                    self._bad[partition] = reading.bad
                    row = self._row(piece, parsed.bad, parsed.error)
                    if row is not None:
                        yield piece.places(range(parsed.bad, start), reading.bad), [row]

    def _row(self, piece: Piece, place: int, error: str) -> Any:
        """What stands for a line that is no item, or None. Raises SkerryError: the source stops."""
        if self._rule == "skip":
            return None
        line, error = piece.lines[place], f"{piece.told(place)}: {error}"
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

    def _parse(self, piece: Piece, start: int) -> _Parsed:
        """The items of the lines from `start` on."""
        raise NotImplementedError


class TextFiles(_Files[str]):
    """The lines of text files, UTF-8, without their ends and without a byte order mark.

    Args:
        *paths: files, or patterns as `corpus/**/*.txt`. A path that exists is that file, whatever
            it looks like. Files that gzip has packed are unpacked.
        bad: what becomes of a line that is not UTF-8. "stop": the app ends with its place, when all
            lines before it are counted. "dead": it is a dead letter. "skip": it is counted.
        bad_limit: after so many bad lines of the files that one worker reads, "dead" stops too.
        changed: what becomes of a file that was cut, replaced or rotated since a run has read it.
            "stop": the app ends and says so. "anew": it is read from its first line.

    A partition is a file, by its real path: it is the same one by any spelling or link, and
    another one when it is moved. A file that appears later is read by the next run.

    A last line without an end is an item. When it has grown by the next run, the file counts as
    changed; when only its end has come, it does not.

    Raises SkerryError when a path or pattern finds nothing.
    """

    def __init__(
        self,
        *paths: str | Path,
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None:
        super().__init__(paths, bad, bad_limit, changed)

    def _parse(self, piece: Piece, start: int) -> _Parsed:
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
            texts.pop()  # Behind the end of the last line.
        if "\r" in text:
            texts = [line.removesuffix("\r") for line in texts]
        return _Parsed(rows, texts, rows.stop if wrong else None, wrong)


class JsonLines(_Files[T]):
    """Items from files with a JSON value on each line; or, as a sink, to such files.

    As a sink it takes one path, a folder, made when needed: each partition is a file in it. Every
    item is there exactly once, whatever crashes: the file's lines are counted, a last line without
    its end is cut off, and what is there already is compared and not written again. So nobody else
    may change the files, and a folder belongs to one sink of one app and its data directory.

    Args:
        *paths: as for `TextFiles`; of a sink, its folder.
        type: what each line is; checked, and what the stages then get. Default: plain values.
        bad: what becomes of a line that is no such JSON: "stop", "dead" or "skip", as for
            `TextFiles`.
        bad_limit: as for `TextFiles`.
        changed: as for `TextFiles`.

    Example:
        >>> app.stream(milestones).sink(JsonLines("milestones"))
    """

    @overload
    def __init__(
        self: JsonLines[Any],
        *paths: str | Path,
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None: ...
    @overload
    def __init__(
        self,
        *paths: str | Path,
        type: type[T],
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None: ...
    def __init__(
        self,
        *paths: str | Path,
        type: Any = Any,
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None:
        super().__init__(paths, bad, bad_limit, changed)
        _decoder(type)  # A type that can't be read is refused here.
        self._type = type
        self._written: dict[str, tuple[int, int]] = {}
        """Of each file that we write: its lines and bytes, when we left it."""

    def _parse(self, piece: Piece, start: int) -> _Parsed:
        """Empty lines are passed over."""
        rows, items = list[int](), list[T]()
        decode = _decoder(self._type).decode
        for place in range(start, len(piece.lines)):
            line = piece.lines[place]
            if line.isspace():
                continue
            try:
                item = decode(line)
            except RecursionError:
                return _Parsed(rows, items, place, "its value is nested too deep")
            except Exception as error:  # Also what the type's own `__post_init__` raises.
                return _Parsed(rows, items, place, f"it is not what was expected: {error}")
            rows.append(place)
            items.append(item)
        return _Parsed(rows, items)

    def check(self, item: object, /) -> None:
        """Refuse what would come back as something else. Raises ValueError, TypeError.

        JSON has no NaN and no infinity: they would be written as null.
        """
        if b"null" in msgspec.json.encode(item):
            where = _not_finite(msgspec.to_builtins(item, str_keys=True))
            if where is not None:
                raise ValueError(f"JSON has no {where}: emit None, or a text")

    def write(self, partition: str, sequence: int, items: Sequence[T], /) -> None:
        """Append the items that are not there yet; they are synced when this returns.

        Raises SkerryError: lines are missing or are other items, so the folder is not this sink's,
        or was changed. Nothing is written then.
        """
        if len(self._paths) != 1:
            raise SkerryError(f"A JsonLines sink has one folder, not {len(self._paths)} paths.")
        path = Path(self._folder, self._paths[0]) / f"{partition}.jsonl"
        known = self._written.pop(partition, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            if known is None or known[1] != file.seek(0, os.SEEK_END):
                known = _whole_lines(path, file, sequence, items)
            lines, size = known
            if lines < sequence - 1:
                raise SkerryError(
                    f"{path} has {lines:,} lines, and item {sequence:,} is to follow: lines are "
                    f"gone, or {_STRANGE}"
                )
            fresh = items[lines - sequence + 1 :]
            text = b"".join(msgspec.json.encode(item) + b"\n" for item in fresh)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._written[partition] = lines + len(fresh), size + len(text)


@functools.cache
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    """Made once a type; not kept in a source, which travels by value from a notebook."""
    return msgspec.json.Decoder(type)


def _not_finite(value: Any, path: str = "") -> str | None:
    """The first number in it that is NaN or infinite, with its place; None: there is none."""
    inner: Iterable[tuple[object, Any]] = ()
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value}{path and f' (at `{path}`)'}"
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    found = (_not_finite(part, f"{path}[{place!r}]") for place, part in inner)
    return next(filter(None, found), None)


_STRANGE = (
    "the folder is another sink's, or of another data directory. Put back what was there, or give "
    "this sink a folder of its own."
)


def _whole_lines(
    path: Path, file: IO[bytes], sequence: int, items: Sequence[object]
) -> tuple[int, int]:
    """Lines and bytes of a file; a torn line at its end is cut off. Those of `items` are compared."""
    lines = end = 0
    file.seek(0)
    for line in file:
        if not line.endswith(b"\n"):
            break
        lines, end = lines + 1, end + len(line)
        if 0 <= lines - sequence < len(items) and not _alike(line, items[lines - sequence]):
            raise SkerryError(f"{path}: line {lines:,} is not item {lines:,}: {_STRANGE}")
    file.truncate(end)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)
    return lines, end


def _alike(line: bytes, item: object) -> bool:
    """Whether a line may be this item: an earlier release may have written it, with other fields."""
    text = msgspec.json.encode(item)
    if line[:-1] == text:
        return True
    try:
        return _agree(msgspec.json.decode(line), msgspec.json.decode(text))
    except msgspec.DecodeError:
        return False


def _agree(a: Any, b: Any) -> bool:
    """Whether two JSON values are the same, but for fields that only one of them has."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_agree(a[field], b[field]) for field in a.keys() & b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_agree, a, b))
    return bool(a == b)


class Generate(Generic[T]):
    """Items that a function makes: `fn(partition, position)`, the same each time it is asked.

    Args:
        fn: of the partition's name ("0", "1", …) and the position (0, 1, 2, …).
        partitions: how many.
        count: items per partition; None: without end.
    """

    def __init__(
        self, fn: Callable[[str, int], T], partitions: int = 4, count: int | None = None
    ) -> None:
        if partitions < 1 or (count is not None and count < 0):
            raise ValueError(
                f"Generate: partitions is at least 1 and count at least 0, not {partitions}, {count}"
            )
        self._fn, self._partitions, self._count = fn, partitions, count

    def partitions(self) -> list[str]:
        """ "0", "1", …"""
        return [str(number) for number in range(self._partitions)]

    def size(self, partition: str) -> int | None:
        """Items of a partition, None when it is endless."""
        return self._count

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, T]]:
        """(position, item) behind `after`."""
        for positions, items in self.batches(partition, after, 1024):
            yield from zip(positions, items)

    def batches(self, partition: str, after: int | None, size: int) -> Iterator[Batch[T]]:
        """The same as positions and items, up to `size` at a time."""
        start = 0 if after is None else after + 1
        while self._count is None or start < self._count:
            end = start + size if self._count is None else min(start + size, self._count)
            positions = range(start, end)
            yield positions, list(map(self._fn, repeat(partition), positions))
            start = end
