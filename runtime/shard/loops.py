"""The loop over the messages of a run: one for each shape of column, made from one text.

This is where a busy shard spends most of its time, so the handler is called with its arguments
as they are (`f(entity, a)`: half the price of `f(entity, *args)`), and a key is looked up once:
its place is the live entity, or the buffer of the shard that it belongs to.

Calls handlers; catches nothing. Our own text is compiled here, nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skerry.message import Handler

Loop = Callable[..., int]
"""(turn, leave, dirty, cls, handler, keys, places, column) -> how many were for other shards."""

_TEXT = """
def loop(turn, leave, dirty, cls, handler, keys, places, column):
    function, decode, away = handler.function, handler.decode, 0
    for key, place{arg} in zip(keys, places{column}):
        if place.__class__ is cls:
            dirty[key] = place
            turn.entity = place
            function(place{given})
            if turn.extra:
                leave(place)
        else:
            if place.handler is not handler:
                place.open(handler)
            place.keys.append(key)
            {append}
            away += 1
    return away
"""


def _made(arg: str, given: str) -> Loop:
    column, append = (", column", f"place.column.append({arg[2:]})") if arg else ("", "pass")
    scope: dict[str, Any] = {}
    exec(_TEXT.format(arg=arg, given=given, column=column, append=append), scope)
    return scope["loop"]  # type: ignore[no-any-return]


_none = _made("", "")
_bare = _made(", arg", ", arg")
_tuples = _made(", args", ", *args")
_bytes = _made(", args", ", *decode(args)")


def loop_of(handler: Handler) -> Loop:
    """The loop for messages to this handler; its column: as `Handler.column`."""
    if not handler.scalar:
        return _bytes
    if handler.bare:
        return _bare
    return _tuples if handler.arity else _none
