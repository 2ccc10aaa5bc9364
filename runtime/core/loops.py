"""The loop over the messages of a run: one for each shape of column, made from one text.

This is where a busy shard spends most of its time, so the handler is called with its arguments
as they are (`f(entity, a)`: half the price of `f(entity, *args)`), and a key is looked up once:
its place is the live entity, or the buffer of the shard that it belongs to.

Of clients' requests all are for this shard, and each has a reply. A reply that nobody can change
is kept as it is, to be encoded with the others; any other is encoded in its turn.

Calls handlers; catches nothing. Our own text is compiled here, nobody else's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Raw

from skerry.handler import Handler
from skerry.runtime.core.wire import Call

Loop = Callable[..., int]
"""(turn, leave, dirty, cls, handler, keys, places, column) -> how many were for other shards."""

Answering = Callable[..., int]
"""The same, behind which follow (encode, left, askers)."""

Asking = Callable[..., list[Any]]
"""(turn, leave, dirty, encode, function, keys, places, column) -> replies."""

_LOOP = """
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

_ANSWERING = """
def loop(turn, leave, dirty, cls, handler, keys, places, column, encode, left, askers):
    function, decode, away = handler.function, handler.decode, 0
    for key, place{arg}, asker in zip(keys, places{column}, askers):
        if place.__class__ is cls:
            dirty[key] = place
            turn.entity = place
            body = encode(function(place{given}))
            if turn.extra or turn.sends:
                leave(place)
            to_type, to_key, id = asker
            if left.told != to_type:
                left.open_outcomes(to_type)
            left.keys.append(to_key)
            left.extras.append((id, "done", body))
        else:
            place.add(ASK, handler, handler.entity, key, {entry}, asker)
            away += 1
    return away
"""

_ASKING = """
def loop(turn, leave, dirty, encode, function, keys, places, column):
    replies = []
    add = replies.append
    for key, place{arg} in zip(keys, places{column}):
        dirty[key] = place
        turn.entity = place
        add({reply})
        if turn.extra:
            leave(place)
    return replies
"""

_SHAPES = (("", ""), ("arg", "arg"), ("args", "*args"), ("args", "*decode(args)"))
"""What stands in a column for a message, and what its handler is given: no argument, one that is a
scalar, several, bytes."""


def _made(text: str, entry: str, given: str, reply: str = "") -> Callable[..., Any]:
    given = given and f", {given}"
    parts = {
        "arg": entry and f", {entry}",
        "column": ", column" if entry else "",
        "given": given,
        "entry": entry or "None",
        "append": f"place.column.append({entry})" if entry else "pass",
        "reply": reply.format(f"function(place{given})"),
    }
    scope: dict[str, Any] = {"ASK": Call.ASK, "Raw": Raw}
    exec(text.format(**parts), scope)
    return scope["loop"]  # type: ignore[no-any-return]


_loops = [_made(_LOOP, *shape) for shape in _SHAPES]
_answering = [_made(_ANSWERING, *shape) for shape in _SHAPES]
_asking = [_made(_ASKING, *shape, "{}") for shape in _SHAPES[:3]]
_asking_in_turn = [_made(_ASKING, *shape, "Raw(encode({}))") for shape in _SHAPES[:3]]


def _shape(handler: Handler) -> int:
    return min(handler.arity, 2) if handler.scalar else 3


def loop_of(handler: Handler) -> Loop:
    """The loop for messages to this handler; its column: as `Handler.column`."""
    return _loops[_shape(handler)]


def answering_loop_of(handler: Handler) -> Answering:
    """The loop for messages whose senders wait for the outcome; its column: as `Handler.column`.

    An outcome stands behind what its turn sent, and before what the next one sends (I2)."""
    return _answering[_shape(handler)]


IMMUTABLE = frozenset({int, float, str, bool, bytes, type(None)})
"""Types of replies that no later turn can change."""


def asking_loop_of(handler: Handler, *, in_turn: bool) -> Asking:
    """The loop for clients' requests to this handler; its column: the values when it takes one,
    tuples when it takes more. `in_turn`: replies are encoded in their turns."""
    return (_asking_in_turn if in_turn else _asking)[min(handler.arity, 2)]
