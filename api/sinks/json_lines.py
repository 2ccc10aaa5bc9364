"""JsonLines: a sink that writes a folder of files with a JSON value on each line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from skerry.errors import SkerryError


class JsonLines:
    """A sink that writes items to files in a folder, a JSON value on each line.

    Each partition is a file, such as `milestones/0.jsonl`. Every item is there exactly once, whatever
    crashes: the sink counts a file's lines, cuts off a last line that has no end, and compares
    what is there already instead of writing it again. So nobody else may change the files, and a
    folder belongs to one sink of one app and its data directory.

    The source that reads such files is `skerry.sources.JsonLines`.

    Args:
        folder: the path of the folder, which is made when the first item comes.

    Raises:
        TypeError: it is no path.
        ValueError: it is empty, or holds a NUL.

    Example:
        >>> app.stream(milestones).sink(sinks.JsonLines("milestones"))
    """

    def __init__(self, folder: str | os.PathLike[str], /) -> None:
        if not isinstance(folder, str | os.PathLike):
            raise TypeError(f"sinks.JsonLines takes the path of a folder, not {folder!r:.80}")
        path = os.fsdecode(folder)
        if not path or "\0" in path:
            raise ValueError(f"sinks.JsonLines: {path!r:.80} is no path")
        self._folder = Path.cwd() / path
        self._written: dict[str, tuple[int, int]] = {}
        """For each file that this sink wrote, its lines and bytes."""

    def check(self, item: object, /) -> None:
        """Refuse an item that would be read back as something else.

        JSON has no NaN and no infinity: they would be written as null.

        Raises:
            TypeError, ValueError: names the number and its place.
        """
        if b"null" in msgspec.json.encode(item):
            where = _not_finite(msgspec.to_builtins(item, str_keys=True))
            if where is not None:
                raise ValueError(f"JSON has no {where}: emit None, or a text")

    def write(self, partition: str, sequence: int, items: Sequence[object], /) -> None:
        """Append the items that are not there yet, and sync the file.

        Raises:
            SkerryError: lines are missing or are other items, so the folder is not this sink's,
                or was changed. Nothing is written then.
        """
        path = self._folder / f"{partition}.jsonl"
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


def _not_finite(value: Any, path: str = "") -> str | None:
    """Return the first number that is NaN or infinite, with its place; None if there is none."""
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
    """Cut off a torn line at a file's end, compare lines with items; return its lines and bytes."""
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
    """Tell whether a line may be this item, perhaps with the fields of an earlier release."""
    text = msgspec.json.encode(item)
    if line[:-1] == text:
        return True
    try:
        return _agree(msgspec.json.decode(line), msgspec.json.decode(text))
    except msgspec.DecodeError:
        return False


def _agree(a: Any, b: Any) -> bool:
    """Tell whether two JSON values are equal, but for fields that only one of them has."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_agree(a[field], b[field]) for field in a.keys() & b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_agree, a, b))
    return bool(a == b)
