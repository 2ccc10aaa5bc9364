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

from skerry.message import Handler
from skerry.runtime.shard.wire import Call

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


Answering = Callable[..., int]
"""(turn, leave, dirty, cls, handler, encode, left, keys, places, column, askers) -> how many were for
other shards."""

_ANSWERING = """
def loop(turn, leave, dirty, cls, handler, encode, left, keys, places, column, askers):
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


def _made_answering(arg: str, given: str, entry: str) -> Answering:
    scope: dict[str, Any] = {"ASK": Call.ASK}
    column = ", column" if arg else ""
    exec(_ANSWERING.format(arg=arg, given=given, entry=entry, column=column), scope)
    return scope["loop"]  # type: ignore[no-any-return]


_answering_none = _made_answering("", "", "None")
_answering_bare = _made_answering(", arg", ", arg", "arg")
_answering_tuples = _made_answering(", args", ", *args", "args")
_answering_bytes = _made_answering(", args", ", *decode(args)", "args")


def answering_loop_of(handler: Handler) -> Answering:
    """The loop for messages whose senders wait for the outcome; its column: as `Handler.column`.

    An outcome stands behind what its turn sent, and before what the next one sends (I2)."""
    if not handler.scalar:
        return _answering_bytes
    if handler.bare:
        return _answering_bare
    return _answering_tuples if handler.arity else _answering_none


IMMUTABLE = frozenset({int, float, str, bool, bytes, type(None)})
"""Types of replies that no later turn can change."""

Asking = Callable[..., list[Any]]
"""(turn, leave, dirty, encode, function, keys, places, column) -> replies."""

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


def _made_asking(arg: str, given: str, reply: str) -> Asking:
    column, text = (", column" if arg else ""), reply.format(f"function(place{given})")
    scope: dict[str, Any] = {"Raw": Raw}
    exec(_ASKING.format(arg=arg, reply=text, column=column), scope)
    return scope["loop"]  # type: ignore[no-any-return]


_SHAPES = (("", ""), (", arg", ", arg"), (", args", ", *args"))
_asking = [_made_asking(*shape, "{}") for shape in _SHAPES]
_asking_in_turn = [_made_asking(*shape, "Raw(encode({}))") for shape in _SHAPES]


def asking_loop_of(handler: Handler, *, in_turn: bool) -> Asking:
    """The loop for clients' requests to this handler; its column: the values when it takes one,
    tuples when it takes more. `in_turn`: replies are encoded in their turns."""
    return (_asking_in_turn if in_turn else _asking)[min(handler.arity, 2)]
