"""Output: a named way out for the items that entities emit.

    emit(output, item) in a turn -> stages of app.stream(output) -> sink.write(partition, n, items)

An emitted item belongs to its turn: it comes out if the turn counts, and only then. Each item
that reaches a sink has a number in its partition, from 1 on, given once. A crash may hand items
to a sink again, with the same numbers; a sink that knows its last number drops them, and has
every item exactly once.

Idea: docs/ideas/sinks.md.
"""

from __future__ import annotations

import functools
from typing import Any, Generic, TypeVar, get_args

import msgspec

from skerry.errors import BadApp
from skerry.limits import measured
from skerry.roundtrip import NESTING_MAX, RoundTrip

T = TypeVar("T")

PARTITIONS_MAX = 1024
NAME_CHARS_MAX = 64
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_PLAIN = RoundTrip(Any)


def check_name(name: object) -> None:
    """Refuse a name that an output can't have. Raises BadApp."""
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX:
        raise BadApp(f"An output's name is 1 to {NAME_CHARS_MAX} characters, not {name!r}.")


class Output(Generic[T]):
    """A named way out for items, declared with `App(outputs=[…])`.

    Stages receive plain values (a struct as a dict), or instances of the item type if the output
    is made with one, such as `Output[Order]("orders")`. Sinks receive the same; what `map` or
    `flat_map` made reaches them as plain values.

    Args:
        name: the name under which waiting items are stored, 1 to 64 characters. Don't change it
            while items wait.
        partitions: the number of ordered parts that items are dealt to, by the entity that emits
            them, 1 to 1,024. Another number later would change which items follow each other.

    Raises:
        BadApp: a name or number that can't be used.

    Example:
        >>> milestones: Output[int] = Output("milestones")
    """

    def __init__(self, name: str, partitions: int = 4) -> None:
        check_name(name)
        if not isinstance(partitions, int) or not 1 <= partitions <= PARTITIONS_MAX:
            raise BadApp(f"Output {name}: partitions is 1 to {PARTITIONS_MAX}, not {partitions!r}.")
        self.name, self.partitions = name, partitions
        self._item_has = f"{self!r}: an item has"

    def __repr__(self) -> str:
        return f"Output({self.name!r})"

    def emitted(self, item: object) -> bytes:
        """Encode an item that an entity emits.

        Raises:
            TypeError: it can't be encoded, or would not come out as the output's type promises.
            ValueError: it is too large for a message.
        """
        body, rule = self.encoded(item), _round_trip(self.item_type)
        if rule is not None and not rule.holds((item,)):
            raise TypeError(f"{self!r}: its item{rule.fault(item)}")
        return body

    def encoded(self, item: object) -> bytes:
        """Encode an item that a stage made.

        Raises:
            TypeError: it can't be encoded, or is nested too deep.
            ValueError: it is too large for a message.
        """
        try:
            body = _encode(item)
            if len(body) > NESTING_MAX and not _PLAIN.holds((_decode(body),)):
                raise ValueError(f"it nests deeper than {NESTING_MAX} levels")
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"{self!r}: {item!r:.80} can't be emitted: {error}") from error
        return measured(body, self._item_has, "; emit parts, or the name of a file")

    @property
    def item_type(self) -> Any:
        """The type that items are decoded to: `Order` of `Output[Order](…)`, else Any."""
        made_as = get_args(getattr(self, "__orig_class__", None))
        return made_as[0] if made_as else Any


@functools.cache
def _round_trip(item_type: Any) -> RoundTrip | None:
    """Return the rule for items of a type; None for Any: they come out as plain values."""
    return None if item_type is Any else RoundTrip(item_type)
