"""JsonLines: a source of files with a JSON value on each line."""

from __future__ import annotations

import functools
from os import PathLike
from typing import Any, TypeVar, overload

import msgspec

from skerry.annotations import refuse_custom
from skerry.sources.lines import Bad, Changed, LineFiles, Parsed
from skerry.sources.reading import Piece

T = TypeVar("T")


class JsonLines(LineFiles[T]):
    """A source of items from files with a JSON value on each line.

    Empty lines are passed over. A file is a partition, as with `TextFiles`. The sink that writes
    such files is `skerry.sinks.JsonLines`.

    Args:
        *paths: as for `TextFiles`.
        type: what each line is: a Struct, dataclass or any other type that msgspec decodes. Lines
            are checked, and stages get instances of it. Default: plain values.
        bad: what becomes of a line that is no such JSON: "stop", "dead" or "skip", as for
            `TextFiles`.
        bad_limit: as for `TextFiles`.
        changed: as for `TextFiles`.

    Raises:
        TypeError: an argument is no path, or `type` no type that JSON can be decoded to.
        ValueError: there is no path, an empty one, or an unknown option.
        SkerryError: when the app starts, a path or pattern finds nothing.

    Example:
        >>> app.source(JsonLines("orders/*.jsonl", type=Order)).key_by(lambda order: order.shop)
    """

    @overload
    def __init__(
        self: JsonLines[Any],
        *paths: str | PathLike[str],
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None: ...
    @overload
    def __init__(
        self,
        *paths: str | PathLike[str],
        type: type[T],
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None: ...
    def __init__(
        self,
        *paths: str | PathLike[str],
        type: Any = Any,
        bad: Bad = "stop",
        bad_limit: int = 1000,
        changed: Changed = "stop",
    ) -> None:
        super().__init__(paths, bad, bad_limit, changed)
        try:
            _decoder(type)
        except TypeError as error:
            raise TypeError(
                f"JsonLines: type= is a type that JSON can be decoded to, not {type!r:.80}: {error}"
            ) from None
        refuse_custom(type, "JsonLines: type=")
        self._type = type

    @property
    def item_type(self) -> Any:
        """What each line is."""
        return self._type

    def parse(self, piece: Piece, start: int) -> Parsed:
        rows, items = list[int](), list[T]()
        decode = _decoder(self._type).decode
        for place in range(start, len(piece.lines)):
            line = piece.lines[place]
            if line.isspace():
                continue
            try:
                item = decode(line)
            except RecursionError:
                return Parsed(rows, items, place, "its value is nested too deep")
            except Exception as error:  # Also what the type's own `__post_init__` raises.
                return Parsed(rows, items, place, f"it is not what was expected: {error}")
            rows.append(place)
            items.append(item)
        return Parsed(rows, items)


@functools.cache
def _decoder(type: Any) -> msgspec.json.Decoder[Any]:
    """Make a decoder once a type; a source does not hold it, since it may travel by value."""
    return msgspec.json.Decoder(type)
