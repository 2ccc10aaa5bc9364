"""Csv: a source of the rows of CSV files."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator, Sequence
from os import PathLike
from typing import IO, Any, TypeVar, get_origin, overload

import msgspec

from skerry.annotations import refuse_custom
from skerry.errors import SkerryError
from skerry.sources.lines import Bad, Batch, Changed, LineFiles, Parsed
from skerry.sources.reading import Piece, Reading

T = TypeVar("T")

RECORD_BYTES_MAX = 1 << 20
"""How far the end of a quoted value is looked for. Beyond, its quote is taken for a mistake."""


class _Records(Reading):
    """Reads a CSV file in pieces that end where a row does."""

    def _take(self, file: IO[bytes], size: int) -> list[bytes]:
        lines = super()._take(file, size)
        quotes, more = sum(line.count(b'"') for line in lines), 0
        # Quotes within a value are doubled: an odd number says that a value goes on behind its line.
        while quotes % 2 and more < RECORD_BYTES_MAX and (line := super()._take(file, 1)):
            lines += line
            quotes, more = quotes + line[0].count(b'"'), more + len(line[0])
        return lines


class Csv(LineFiles[T]):
    """A source of the rows of CSV files (RFC 4180, as UTF-8), whose first row names the columns.

    A file is a partition, as with `TextFiles`. A value in quotes may have line ends in it, which stay as
    they are. Empty lines are passed over. Columns may stand in another order in another file. The
    sink that writes such files is `skerry.sinks.Csv`.

    Args:
        *paths: as for `TextFiles`.
        type: what each row is: a Struct or dataclass, whose fields are found by the names of the
            columns. Values become what the fields are; an empty one is None where a field may be
            None and is no text. Default: dicts of texts.
        delimiter: what stands between two values, one character.
        decimal: what stands before the decimals of a float, "." or ",".
        bad: what becomes of a row that is none: "stop", "dead" or "skip", as for `TextFiles`. It is told
            by the line in which it begins.
        bad_limit: as for `TextFiles`.
        changed: as for `TextFiles`.

    Raises:
        TypeError: an argument is no path, or `type` no type with fields that texts can become.
        ValueError: there is no path, an empty one, or an unknown option.
        SkerryError: when the app starts, a path or pattern finds nothing; when a file is read, its
            columns are not those of the type.

    Example:
        >>> app.source(Csv("trades/*.csv", type=Trade)).key_by(lambda trade: trade.shop)
    """

    reading = _Records

    @overload
    def __init__(
        self: Csv[dict[str, str]],
        *paths: str | PathLike[str],
        delimiter: str = ",",
        decimal: str = ".",
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None: ...
    @overload
    def __init__(
        self,
        *paths: str | PathLike[str],
        type: type[T],
        delimiter: str = ",",
        decimal: str = ".",
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None: ...
    def __init__(
        self,
        *paths: str | PathLike[str],
        type: Any = dict[str, str],
        delimiter: str = ",",
        decimal: str = ".",
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None:
        super().__init__(paths, bad, bad_limit, changed)
        if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
            raise ValueError(f"Csv: delimiter is one character, not {delimiter!r:.20}")
        if decimal not in (".", ","):
            raise ValueError(f'Csv: decimal is "." or ",", not {decimal!r:.20}')
        refuse_custom(type, "Csv: type=")
        self._type, self._delimiter, self._comma = type, delimiter, decimal == ","
        try:
            _fields(type)
        except TypeError:
            raise TypeError(f"Csv: type= is a Struct or dataclass, not {type!r:.80}") from None
        self._heads: dict[str, tuple[list[str], int]] = {}
        """For each file that is read here, its columns, and the lines that name them."""

    @property
    def item_type(self) -> Any:
        """What each row is."""
        return self._type

    def batches(self, partition: str, after: Any, size: int) -> Iterator[Batch[T]]:
        """Iterate over (positions, items), up to `size` at a time; a bad row comes alone."""
        self._heads[partition] = self._head(partition)
        return super().batches(partition, after, size)

    def _head(self, partition: str) -> tuple[list[str], int]:
        """Read the names of a file's columns. Raises SkerryError: they are not those of the type."""
        beginning = _Records(partition, None, source="Csv", anew=False)
        piece = next(beginning.pieces(1), None)
        if piece is None:
            return [], 0
        try:
            (columns,) = csv.reader(
                [line.decode() for line in piece.lines], delimiter=self._delimiter, strict=True
            )
        except (ValueError, csv.Error) as error:
            raise SkerryError(f"{partition}: its first row names no columns: {error}") from None
        known = _fields(self._type)
        missing = [name for name, field in known.items() if field.required and name not in columns]
        if missing or len(set(columns)) < len(columns):
            what = f"no column {missing[0]!r}" if missing else "a column twice"
            raise SkerryError(
                f"{partition} has {what}: its first row is {', '.join(columns)!r:.200}. Name the columns "
                f"there, or leave the file out."
            )
        return columns, len(piece.lines)

    def parse(self, piece: Piece, start: int) -> Parsed:
        columns, named = self._heads[piece.name]
        start = max(start, named - piece.first)
        return self._together(columns, piece, start) or self._one_by_one(columns, piece, start)

    def _together(self, columns: Sequence[str], piece: Piece, start: int) -> Parsed | None:
        """Return all rows, if each is a line of its own and none is bad; at each by itself is looked
        only if one is unlike the rest."""
        if b'"' in piece.text:
            return None
        try:
            texts = [line.decode() for line in piece.lines[start:]]
            rows = list(csv.reader(texts, delimiter=self._delimiter, strict=True))
            if set(map(len, rows)) != {len(columns)}:
                return None
            items = self._items([dict(zip(columns, row)) for row in rows])
        except (ValueError, csv.Error):
            return None
        return Parsed(range(start, start + len(items)), items)

    def _one_by_one(self, columns: Sequence[str], piece: Piece, start: int) -> Parsed:
        texts, broken = _decoded(piece.lines[start:])
        rows, items, begin = list[int](), list[Any](), start
        reader = csv.reader(texts, delimiter=self._delimiter, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                if broken and begin + 1 < start + len(texts):
                    break
                until = max(begin + 1, min(start + reader.line_num, len(piece.lines)))
                return Parsed(rows, items, begin, f"it is no row: {error}", until)
            if row is None:
                break
            until = start + reader.line_num
            if row:
                try:
                    items.append(self._item(columns, row))
                except ValueError as error:
                    what = str(error).replace("$[0]", "$")
                    return Parsed(rows, items, begin, f"it is no row: {what}", until)
                rows.append(until - 1)
            begin = until
        if broken:
            return Parsed(rows, items, begin, broken, start + len(texts) + 1)
        return Parsed(rows, items)

    def _item(self, columns: Sequence[str], row: list[str]) -> Any:
        if len(row) != len(columns):
            raise ValueError(f"it has {len(row)} values, and there are {len(columns)} columns")
        return self._items([dict(zip(columns, row))])[0]

    def _items(self, rows: list[dict[str, Any]]) -> list[Any]:
        """Return rows as what they are. Raises ValueError: one of them is none."""
        known = _fields(self._type)
        if not known:
            return rows
        for name in known.keys() & rows[0].keys():
            if known[name].may_be_none:
                for row in rows:
                    row[name] = row[name] or None
            if known[name].is_float and self._comma:
                for row in rows:
                    row[name] = _with_point(name, row[name])
        many: Any = list  # Type checkers know no list of a type that is a value.
        return msgspec.convert(rows, many[self._type], strict=False)  # type: ignore[no-any-return]


class _Field(msgspec.Struct, frozen=True):
    """What a row needs for a field."""

    required: bool
    may_be_none: bool
    """Whether an empty value is None: not where it may be a text."""
    is_float: bool


@functools.cache
def _fields(type: Any) -> dict[str, _Field]:
    """Return the fields of a row's type by their names in files; none for dicts. Raises TypeError."""
    if get_origin(type) is dict or type is dict:
        return {}
    info = msgspec.inspect.type_info(type)
    if not isinstance(info, msgspec.inspect.StructType | msgspec.inspect.DataclassType):
        raise TypeError
    hints = {field.encode_name: field for field in info.fields}
    return {name: _field(field) for name, field in hints.items()}


def _field(field: Any) -> _Field:
    parts = field.type.types if isinstance(field.type, msgspec.inspect.UnionType) else (field.type,)
    kinds = {part.__class__ for part in parts}
    return _Field(
        field.required,
        msgspec.inspect.NoneType in kinds and msgspec.inspect.StrType not in kinds,
        msgspec.inspect.FloatType in kinds,
    )


def _with_point(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    if "." in text:
        raise ValueError(f"{text!r} (at `{name}`) is no number with a decimal comma")
    return text.replace(",", ".")


def _decoded(lines: Sequence[bytes]) -> tuple[list[str], str]:
    """Return the lines before the first that is not UTF-8, and what is wrong with that one."""
    texts = list[str]()
    for line in lines:
        try:
            texts.append(line.decode())
        except UnicodeDecodeError as error:
            return (
                texts,
                f"it is not UTF-8: its byte {error.start + 1:,} is {line[error.start]:#04x}",
            )
    return texts, ""
