"""Outputs: what entities tell the world, numbered so that repeats can be dropped.

    emit(output, item) in a turn -> stages of app.stream(output) -> sink.write(partition, n, items)

An emitted item belongs to its turn: it comes out if the turn counts, and only then. Each item
that reaches a sink has a number in its partition, from 1 on, given once. A crash may hand items
to a sink again, with the same numbers; a sink that knows its last number drops them, and has
every item exactly once.

Pure but for the user's stages. Idea: docs/sinks.md.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, get_args

import msgspec

from skerry.errors import BadApp
from skerry.limits import measured
from skerry.roundtrip import NESTING_MAX, RoundTrip
from skerry.stream import Exit, KeyedStage, Pipeline, Sink, Stream

T = TypeVar("T")

PARTITIONS_MAX = 1024
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode
_PLAIN = RoundTrip(Any)


class Output(Generic[T]):
    """A named way out for items, declared with `App(outputs=[…])`.

    Args:
        name: under which items that wait are kept: do not change it while some do.
        partitions: into how many ordered parts items are dealt, by the entity that emits them.
            It can't be changed later without changing who follows whom.

    Example:
        >>> milestones: Output[int] = Output("milestones")

    Items come to stages as plain values (a struct as a dict), or, made as
    `Output[Order]("orders")`, as that type. Sinks get that type too, but plain values of what
    `map` or `flat_map` made.
    """

    def __init__(self, name: str, partitions: int = 4) -> None:
        if not isinstance(name, str) or not 0 < len(name) <= 64:
            raise BadApp(f"An output's name is 1 to 64 characters, not {name!r}.")
        if not isinstance(partitions, int) or not 1 <= partitions <= PARTITIONS_MAX:
            raise BadApp(f"Output {name}: partitions is 1 to {PARTITIONS_MAX}, not {partitions!r}.")
        self.name, self.partitions = name, partitions
        self._item_has = f"{self!r}: an item has"

    def __repr__(self) -> str:
        return f"Output({self.name!r})"

    def emitted(self, item: object) -> bytes:
        """An item that is put on this output, as it travels. Raises TypeError or ValueError: it
        can't, is too large, or would come out as another than the output's type promises."""
        body, rule = self.encoded(item), _round_trip(self.item_type)
        if rule is not None and not rule.holds((item,)):
            raise TypeError(f"{self!r}: its item{rule.fault(item)}")
        return body

    def encoded(self, item: object) -> bytes:
        """The item as it travels. Raises TypeError or ValueError: it can't, or is too large."""
        try:
            body = _encode(item)
            if len(body) > NESTING_MAX and not _PLAIN.holds((_decode(body),)):
                raise ValueError(f"it nests deeper than {NESTING_MAX} levels")
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise TypeError(f"{self!r}: {item!r:.80} can't be emitted: {error}") from error
        return measured(body, self._item_has, "; emit parts, or the name of a file")

    @property
    def item_type(self) -> Any:
        """What items are decoded to."""
        made_as = get_args(getattr(self, "__orig_class__", None))
        return made_as[0] if made_as else Any


@functools.cache
def _round_trip(item_type: Any) -> RoundTrip | None:
    """The rule for items of a type; None when none is given: they come out as plain values."""
    return None if item_type is Any else RoundTrip(item_type)


@functools.cache
def _decoder(item_type: Any) -> msgspec.msgpack.Decoder[Any]:
    """Made once a type; not kept in an outlet, which travels by value from a notebook."""
    return msgspec.msgpack.Decoder(item_type)


class Outlet:
    """The stages and sinks of an output, in an app."""

    def __init__(self, output: Output[Any]) -> None:
        self.output, self._item_type = output, output.item_type
        self.sinks: list[Sink[Any]] = []
        self.stream: Stream[Any] = Stream(self, self._item_type)
        self._types: list[Any] = []
        self._direct: list[int] = []
        """The sinks that get every item as it was emitted."""

    def keyed(self) -> Pipeline:
        """See `stream.Root`."""
        raise BadApp(
            f"{self.output!r}: an output's stream ends in sinks; to reach an entity, `send` to it."
        )

    def end(self, sink: object, item: Any, stream: object) -> KeyedStage:
        """See `stream.Root`."""
        if not isinstance(sink, Sink):
            raise BadApp(
                f"`sink` takes a sink with `write(partition, sequence, items)`, not {sink!r:.100}"
            )
        leave = Exit(self.output.name, self.output.partitions, len(self.sinks))
        if stream is self.stream:
            self._direct.append(len(self.sinks))
        self.sinks.append(sink)
        self._types.append(item)
        return lambda keys, items: [(leave, keys, items)]

    def type_at(self, place: int) -> Any:
        """What items are decoded to for the sink at this place."""
        return self._types[place] if self._types else self._item_type

    @property
    def ends(self) -> int:
        """How many sinks there are; in a test without any, items end at the first place."""
        return max(1, len(self.sinks))

    def apply(self, items: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        """What comes out at each sink: (its place, items)."""
        if not self.sinks:
            return [(0, list(items))]  # In a test; a worker refuses an output without a way out.
        decode = _decoder(self._item_type).decode
        ends = self.stream._apply([decode(item) for item in items])
        return [
            (end.sink, [self._left(end.sink, item) for item in out])
            for end, _, out in ends
            if isinstance(end, Exit)
        ]

    def emitted(self, item: object) -> bytes:
        """An item that is put on the output, as it travels. Raises TypeError or ValueError: it can't,
        or a sink that would get it as it is can't write it."""
        for place in self._direct:
            self._check(place, item)
        return self.output.emitted(item)

    def _left(self, place: int, item: object) -> bytes:
        """An item as it leaves for a sink. Raises as `emitted`."""
        self._check(place, item)
        return self.output.encoded(item)

    def _check(self, place: int, item: object) -> None:
        check = getattr(self.sinks[place], "check", None)
        try:
            if check is not None:
                check(item)
        except (TypeError, ValueError, OverflowError) as error:
            refused = TypeError if isinstance(error, TypeError) else ValueError
            raise refused(
                f"{self.output!r}: {item!r:.80} is nothing for its sink "
                f"{type(self.sinks[place]).__name__}: {error}"
            ) from error
