"""RowFolder: a folder of files to which rows are appended, each exactly once.

Each partition is a file. Whatever crashes, a file holds whole rows, and how many they are is the
number of its newest item: a torn row at the end is cut off, and what is handed over again is compared
with what is there. So the rows of a file can be counted, and nothing else stands in it.

Does file I/O.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from skerry.errors import SkerryError

_STRANGE = (
    "the folder is another sink's, or of another data directory. Put back what was there, or give "
    "this sink a folder of its own."
)


class RowFolder(ABC):
    """The files of a sink, and how far each has come.

    Args:
        folder: the path of the folder, which is made when the first item comes.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty, or holds a NUL.
    """

    suffix: str
    head = b""
    """What a file begins with, before its first row."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        name = f"sinks.{type(self).__name__}"
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"{name} takes the path of a folder, not {folder!r:.80}")
        path = os.fsdecode(folder)
        if not path or "\0" in path:
            raise ValueError(f"{name}: {path!r:.80} is no path")
        self._folder = Path.cwd() / path
        self._written: dict[str, tuple[int, int]] = {}
        """For each file that this sink wrote, its rows and bytes."""

    @abstractmethod
    def encode(self, item: Any) -> bytes:
        """Return an item as a row, with its end."""

    @abstractmethod
    def is_whole(self, row: bytes) -> bool:
        """Tell whether some lines are a whole row, and not the beginning of one."""

    def alike(self, row: bytes, item: Any) -> bool:
        """Tell whether a row may be this item, as this release or an earlier one wrote it."""
        return row == self.encode(item)

    def write(self, partition: str, sequence: int, items: Sequence[Any], /) -> None:
        """Append the items that are not there yet, and sync the file.

        Raises:
            SkerryError: rows are missing or are other items, so the folder is not this sink's,
                or was changed. Nothing is written then.
        """
        path = self._folder / f"{partition}{self.suffix}"
        known = self._written.pop(partition, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+b") as file:
            if known is None or known[1] != file.seek(0, os.SEEK_END):
                known = self._whole_rows(path, file, sequence, items)
            rows, size = known
            if rows < sequence - 1:
                raise SkerryError(
                    f"{path} has {rows:,} rows, and item {sequence:,} is to follow: rows are "
                    f"gone, or {_STRANGE}"
                )
            fresh = items[rows - sequence + 1 :]
            text = (b"" if size else self.head) + b"".join(map(self.encode, fresh))
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._written[partition] = rows + len(fresh), size + len(text)

    def _whole_rows(
        self, path: Path, file: IO[bytes], sequence: int, items: Sequence[Any]
    ) -> tuple[int, int]:
        """Cut off a torn row at a file's end, compare rows with items; return its rows and bytes."""
        file.seek(0)
        there = file.read(len(self.head))
        if len(there) == len(self.head) and there != self.head:
            raise SkerryError(f"{path} does not begin with {self.head!r:.80}: {_STRANGE}")
        rows, end = 0, len(self.head) if there == self.head else 0
        for row in self._rows(file) if end == len(self.head) else ():
            rows, end = rows + 1, end + len(row)
            if 0 <= rows - sequence < len(items) and not self.alike(row, items[rows - sequence]):
                raise SkerryError(f"{path}: row {rows:,} is not item {rows:,}: {_STRANGE}")
        file.truncate(end)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)
        return rows, end

    def _rows(self, file: IO[bytes]) -> Iterator[bytes]:
        """Yield the whole rows of a file."""
        row = b""
        for line in file:
            row += line
            if self.is_whole(row):
                yield row
                row = b""
