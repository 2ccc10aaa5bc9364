"""JsonLines: a sink that writes a folder of files with a JSON value on each line."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import msgspec

from skerry.sinks.folder import RowFolder


class JsonLines(RowFolder):
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

    suffix = ".jsonl"

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

    def encode(self, item: Any) -> bytes:
        return msgspec.json.encode(item) + b"\n"

    def is_whole(self, row: bytes) -> bool:
        return row.endswith(b"\n")

    def alike(self, row: bytes, item: Any) -> bool:
        text = self.encode(item)
        if row == text:
            return True
        try:
            return _agree(msgspec.json.decode(row), msgspec.json.decode(text))
        except msgspec.DecodeError:
            return False


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


def _agree(a: Any, b: Any) -> bool:
    """Tell whether two JSON values are equal, but for fields that only one of them has."""
    if isinstance(a, dict) and isinstance(b, dict):
        return all(_agree(a[field], b[field]) for field in a.keys() & b.keys())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_agree, a, b))
    return bool(a == b)
