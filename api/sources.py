"""Ready-made sources: text files, JSON lines, and a generator.

A file is a partition; a position is the byte offset behind a line (in the uncompressed text
of a .gz), so a second run goes on where the first one ended. A file that vanished, shrank or
is not UTF-8 is an error that names it: no line is ever passed over in silence.
"""

from __future__ import annotations

import glob
import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice, repeat
from pathlib import Path
from typing import IO, Any, Generic, TypeVar, overload

import msgspec

from skerry.errors import SkerryError

T = TypeVar("T")
Batch = tuple[Sequence[int], list[T]]
"""Positions, and the items at them."""


class TextFiles:
    """The lines of text files, UTF-8, without their ends.

    Args:
        *paths: files, or patterns as `corpus/**/*.txt`. Files ending in .gz are unpacked.

    A partition is a file, by its path as found. A file that appears later is read by the next
    run. Raises SkerryError when a pattern finds nothing.
    """

    def __init__(self, *paths: str | Path) -> None:
        self._paths = [str(path) for path in paths]

    def partitions(self) -> list[str]:
        """The files, sorted."""
        found: set[str] = set()
        for path in self._paths:
            files = glob.glob(path, recursive=True) if glob.has_magic(path) else [path]
            files = [file for file in files if Path(file).is_file()]
            if not files:
                raise SkerryError(
                    f"There is no file {path}: look at the path, or at the folder that the app was "
                    f"started in ({Path.cwd()})."
                )
            found.update(files)
        return sorted(found)

    def size(self, partition: str) -> int | None:
        """Bytes of a file; None when it is packed, since only reading it tells."""
        if partition.endswith(".gz"):
            return None
        try:
            return Path(partition).stat().st_size
        except OSError as error:
            raise self._lost(partition, error) from error

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, str]]:
        """(offset behind the line, line) of a file."""
        for positions, lines in self.batches(partition, after, 1024):
            yield from zip(positions, lines)

    def batches(self, partition: str, after: int | None, size: int) -> Iterator[Batch[str]]:
        """The same as offsets and lines, up to `size` at a time."""
        start = after or 0
        try:
            with self._open(partition, start) as file:
                while lines := list(islice(file, size)):
                    ends = list(accumulate(map(len, lines), initial=start))
                    yield ends[1:], self._texts(partition, start, lines)
                    start = ends[-1]
        except (OSError, EOFError) as error:
            raise self._lost(partition, error) from error

    def _open(self, path: str, position: int) -> IO[bytes]:
        if path.endswith(".gz"):
            file: Any = gzip.open(path, "rb")
            if file.seek(position) != position:
                raise self._shrunk(path, position)
            return file  # type: ignore[no-any-return]
        if Path(path).stat().st_size < position:
            raise self._shrunk(path, position)
        plain = open(path, "rb")
        plain.seek(position)
        return plain

    @staticmethod
    def _texts(path: str, start: int, lines: list[bytes]) -> list[str]:
        """Lines that begin at offset `start`, as text without their ends."""
        whole = b"".join(lines)
        try:
            texts = whole.decode().split("\n")
        except UnicodeDecodeError as error:
            raise SkerryError(
                f"{path} is not UTF-8: byte {whole[error.start]:#04x} at offset "
                f"{start + error.start}. Convert it (iconv -f latin1 -t utf-8), or leave it out."
            ) from None
        if len(texts) > len(lines):
            texts.pop()  # Behind the end of the last line.
        return [text.rstrip("\r") for text in texts] if b"\r" in whole else texts

    @staticmethod
    def _lost(path: str, error: Exception) -> SkerryError:
        return SkerryError(
            f"{path} can't be read: {error}. Its lines so far are counted; bring it back, or start "
            f"the app without it."
        )

    @staticmethod
    def _shrunk(path: str, position: int) -> SkerryError:
        return SkerryError(
            f"{path} was read up to byte {position} and is shorter now: it was cut or replaced. "
            f"Bring it back, or start with a new data directory."
        )


class JsonLines(Generic[T]):
    """Items from files with a JSON value on each line; or, as a sink, to such files.

    As a sink it takes one path, a folder, made when needed: each partition is a file in it. Every
    item is there exactly once, whatever crashes: the file's lines are counted, a last line without
    its end is cut off, and what is there already is compared and not written again. So nobody else
    may change the files, and a folder belongs to one sink of one app and its data directory.

    Args:
        *paths: as for `TextFiles`; of a sink, its folder.
        type: what each line is; checked, and what the stages then get. Default: plain values.

    Example:
        >>> app.stream(milestones).sink(JsonLines("milestones"))
    """

    @overload
    def __init__(self: JsonLines[Any], *paths: str | Path) -> None: ...
    @overload
    def __init__(self, *paths: str | Path, type: type[T]) -> None: ...
    def __init__(self, *paths: str | Path, type: Any = Any) -> None:
        self._paths = paths
        self._files = TextFiles(*paths)
        self._decoder = msgspec.json.Decoder(type)
        self._written: dict[str, tuple[int, int]] = {}
        """Of each file that we write: its lines and bytes, when we left it."""

    def partitions(self) -> list[str]:
        """The files, sorted."""
        return self._files.partitions()

    def size(self, partition: str) -> int | None:
        """Bytes of a file, when it is not packed."""
        return self._files.size(partition)

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, T]]:
        """(offset behind the line, item) of a file."""
        for positions, items in self.batches(partition, after, 1024):
            yield from zip(positions, items)

    def batches(self, partition: str, after: int | None, size: int) -> Iterator[Batch[T]]:
        """The same as offsets and items, up to `size` at a time. Empty lines are passed over."""
        for ends, lines in self._files.batches(partition, after, size):
            positions, items = list[int](), list[T]()
            for position, line in zip(ends, lines):
                if line.strip():
                    positions.append(position)
                    items.append(self._item(partition, position, line))
            if items:
                yield positions, items

    def _item(self, path: str, position: int, line: str) -> T:
        try:
            return self._decoder.decode(line)  # type: ignore[no-any-return]
        except msgspec.MsgspecError as error:
            raise SkerryError(
                f"{path}: the line that ends at byte {position} is not what was expected: {error}. "
                f"Mend the line; the app goes on behind the one before it."
            ) from error

    def write(self, partition: str, sequence: int, items: Sequence[T], /) -> None:
        """Append the items that are not there yet; they are synced when this returns.

        Raises SkerryError: lines are missing or are other items, so the folder is not this sink's,
        or was changed. Nothing is written then.
        """
        if len(self._paths) != 1:
            raise SkerryError(f"A JsonLines sink has one folder, not {len(self._paths)} paths.")
        path = Path(self._paths[0]) / f"{partition}.jsonl"
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
