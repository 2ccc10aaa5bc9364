"""Csv: a sink that writes a folder of CSV files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from skerry.sinks.folder import RowFolder


class Csv(RowFolder):
    """A sink that writes items to CSV files in a folder (RFC 4180, as UTF-8).

    Each partition is a file, such as `trades/0.csv`, that begins with the names of the columns. Every
    item is there exactly once, whatever crashes, as with `sinks.JsonLines`. Only this sink may
    change the files.

    Items are dicts, as Structs and dataclasses are when they have left their turn. A column that an
    item does not have stays empty, and so does one that is None.

    Args:
        folder: the path of the folder, which is made when the first item comes.
        columns: the names of the columns, in order.
        delimiter: what stands between two values, one character.

    Raises:
        TypeError: an argument is not what it should be.
        ValueError: there is no column, one is named twice, or the folder is no path.

    Example:
        >>> app.stream(trades).sink(sinks.Csv("trades", ["shop", "cents"]))
    """

    suffix = ".csv"

    def __init__(
        self, folder: str | os.PathLike[str], columns: Iterable[str], /, *, delimiter: str = ","
    ) -> None:
        super().__init__(folder)
        names = [columns] if isinstance(columns, str) else list(columns)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"sinks.Csv: columns are names, not {names!r:.80}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"sinks.Csv: columns are at least one, each once, not {names!r:.80}")
        if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
            raise ValueError(f"sinks.Csv: delimiter is one character, not {delimiter!r:.20}")
        self._columns, self._delimiter = names, delimiter
        self.head = self._row(names)

    def check(self, item: object, /) -> None:
        """Refuse an item that would not be a row.

        Raises:
            TypeError: it is no dict, or a value is a list or dict.
            ValueError: it has a field that is no column.
        """
        fields = _fields(item)
        if other := fields.keys() - set(self._columns):
            raise ValueError(
                f"it has the field {sorted(map(str, other))[0]!r}, which is none of the columns "
                f"{', '.join(self._columns)}"
            )
        for name, value in fields.items():
            if isinstance(value, list | tuple | dict | set | frozenset):
                raise TypeError(
                    f"its field {name!r} is a {type(value).__name__}: a value is wanted"
                )

    def encode(self, item: Mapping[str, Any]) -> bytes:
        fields = _fields(item)
        return self._row([_text(fields.get(name)) for name in self._columns])

    def is_whole(self, row: bytes) -> bool:
        # Quotes within a value are doubled, so they are even in number where a row ends.
        return row.endswith(b"\r\n") and row.count(b'"') % 2 == 0

    def write(self, partition: str, sequence: int, items: Sequence[Any], /) -> None:
        """Append the items that are not there yet, and sync the file.

        Raises:
            SkerryError: as for `sinks.JsonLines`; also, the file has other columns.
        """
        super().write(partition, sequence, items)

    def _row(self, values: Sequence[str]) -> bytes:
        text = io.StringIO()
        csv.writer(text, delimiter=self._delimiter).writerow(values)
        return text.getvalue().encode()


def _fields(item: object) -> dict[str, Any]:
    """Return the fields of an item: a dict, Struct or dataclass. Raises TypeError: it has none."""
    plain = item if isinstance(item, dict) else msgspec.to_builtins(item, str_keys=True)
    if isinstance(plain, dict):
        return plain
    raise TypeError(f"a row is a dict of columns, not {type(item).__name__}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
