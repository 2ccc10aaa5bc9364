"""The loop over the messages of a column: one for each shape of arguments, made from one text.

A busy shard spends most of its time here, so a handler is called with its arguments as they are:
with `f(entity, *args)` instead of `f(entity, a)` a message of keyed_counter_10k costs the core a
fifth more, and the app a tenth. A key is looked up once: its location is the live entity, or the
buffer of the shard that it belongs to.

Calls handlers; catches nothing. Only the text below is compiled here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from functools import cache

from skerry.handler import Handler

Loop = Callable[..., int]
"""(turn, leave, dirty, cls, handler, head, keys, locations, column, extras, tell) -> how many of
the messages were for other shards."""

_TEXT = """
def loop(turn, leave, dirty, cls, handler, head, keys, locations, column, extras, tell):
    function, away = handler.function, 0
    for key, location{entry}{extra} in zip(keys, locations{column}{extras}):
        if location.__class__ is cls:
            dirty[key] = location
            turn.entity = location
            {reply}function(location{given})
            if turn.extra:
                leave(location)
            {tell}
        else:
            if location.head is not head:
                location.open(head)
            location.keys.append(key)
            {append_entry}
            {append_extra}
            away += 1
    return away
"""


class Shape(enum.Enum):
    """What stands for a message in a column of arguments, and what its handler is called with."""

    NOTHING = ("", "")
    VALUE = ("arg", ", arg")
    VALUES = ("args", ", *args")
    PACKED = ("args", ", *handler.unpack(args)")
    """Arguments as msgpack."""
    OUTCOME = ("args", ", *handler.outcome(args.first, args.rest, args.with_first)")
    """`OutcomeArgs`."""


class Waits(enum.Enum):
    """Who waits for the replies."""

    NOBODY = ("", "", "")
    CALLER = ("", "reply = ", "tell(reply)")
    ASKER = ("extra", "reply = ", "tell(reply, extra)")
    """`extras` holds the asker of each message."""


def shape_of(handler: Handler) -> Shape:
    """The shape of columns as `Handler.column` makes them."""
    if not handler.scalar:
        return Shape.PACKED
    return (Shape.NOTHING, Shape.VALUE, Shape.VALUES)[min(handler.arity, 2)]


@cache
def loop_of(shape: Shape, waits: Waits) -> Loop:
    """The loop for columns of this shape."""
    entry, given = shape.value
    extra, reply, tell = waits.value
    text = _TEXT.format(
        entry=entry and f", {entry}",
        column=entry and ", column",
        given=given,
        extra=extra and f", {extra}",
        extras=extra and ", extras",
        reply=reply,
        tell=tell or "pass",
        append_entry=f"location.column.append({entry})" if entry else "pass",
        append_extra=f"location.extras.append({extra})" if extra else "pass",
    )
    scope: dict[str, Loop] = {}
    exec(text, scope)
    return scope["loop"]
