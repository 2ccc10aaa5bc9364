"""Outlet: an output, the passes over what is emitted to it, and its sinks.

An item is encoded when it leaves its turn, and decoded when it comes to the output's partition,
where the stages behind the output run.

Pure but for the program's functions.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.stream.columns import Exit, Pass
from skerry.stream.ends import Sink
from skerry.stream.graph import ToSink
from skerry.stream.outputs import Output


class Outlet:
    """An output, the passes over what is emitted to it, and its sinks.

    Args:
        output: the output.
        ends: the sinks' stages, in the order of their places.
        types: for each sink the type that its items are decoded to.
        direct: the places of sinks that get items as they were emitted.
        run: the passes.
    """

    def __init__(
        self,
        output: Output[Any],
        ends: Sequence[ToSink],
        types: Sequence[Any],
        direct: Sequence[int],
        run: Pass,
    ) -> None:
        self.output, self._types, self._direct, self._run = output, types, direct, run
        self.sinks: list[Sink[Any]] = [end.sink for end in ends]
        self._decode = _decoder(output.item_type).decode

    def type_at(self, place: int) -> Any:
        """Return the type that items for the sink at this place are decoded to."""
        return self._types[place] if self._types else self.output.item_type

    @property
    def ends(self) -> int:
        """The number of sinks; 1 in a test without any, where items end at the first place."""
        return max(1, len(self.sinks))

    def apply(self, items: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        """Return what comes out at each sink, as (its place, items)."""
        if not self.sinks:
            return [(0, list(items))]  # In a test; a worker refuses an output without a way out.
        ends = self._run(None, [self._decode(item) for item in items])
        return [
            (end.sink, [self._left(end.sink, item) for item in out])
            for end, _, out in ends
            if isinstance(end, Exit)
        ]

    def emitted(self, item: object) -> bytes:
        """Encode an item that is put on the output.

        Raises:
            TypeError, ValueError: it can't be encoded, or a sink that would get it unchanged
                can't write it.
        """
        for place in self._direct:
            self._check(place, item)
        return self.output.emitted(item)

    def _left(self, place: int, item: object) -> bytes:
        """Encode an item that leaves for a sink. Raises as `emitted` does."""
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


@functools.cache
def _decoder(item_type: Any) -> msgspec.msgpack.Decoder[Any]:
    """Make a decoder once a type."""
    return msgspec.msgpack.Decoder(item_type)
