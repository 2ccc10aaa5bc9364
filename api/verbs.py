"""The verbs of a turn: each writes one intention on the Turn, which commits as a whole.

A verb takes the handler and its arguments apart: `send(Account.at("bob").deposit, 10)`.
Nothing happens when it is called; everything happens when the turn commits, or nothing.

Reads and writes `skerry.turn.here` only. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar, overload

from skerry.asked import Asked, Delay, delay_ns, own_handler
from skerry.errors import OutsideTurn
from skerry.message import Message, one_message, target
from skerry.stream.outputs import Output
from skerry.turn import here, running

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@overload
def send(message: Message[Any], /) -> None: ...
@overload
def send(handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
def send(handler: Any, /, *args: Any, **kwargs: Any) -> None:
    """Send a message when the turn commits; it takes effect exactly once.

    Messages from this entity to one other arrive in the order in which they were sent.

    Args:
        handler: a handler of an entity named by its key, such as `Account.at("bob").deposit`; or a
            `Message`.
        *args, **kwargs: the handler's own arguments, checked now.

    Raises:
        TypeError: wrong arguments, or no handler.
        ValueError: a key that can't be one, or arguments too large for a message.
        OutsideTurn: no handler runs.

    Example:
        >>> send(Account.at("bob").deposit, 10)
    """
    turn = here.turn
    if turn is None or turn.reading:
        turn = running("send")
    if handler.__class__ is Message:
        one = one_message(handler, args, kwargs)
        turn.intentions.append(("send", one.handler, one.key, one.args))
    else:
        found, key = target(handler)
        turn.intentions.append(("send", found, key, found.bind(args, kwargs)))


def send_later(
    delay: Delay, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
) -> None:
    """Send a message some time from now; the wait survives crashes and restarts.

    Args:
        delay: the least time to wait, in seconds or as a timedelta, from 0 to a hundred years.
        handler: a handler of an entity named by its key, such as `Account.at("bob").deposit`.
        *args, **kwargs: the handler's own arguments, checked now.

    Raises:
        ValueError: a delay below zero or beyond a hundred years.
        TypeError, OutsideTurn: as for `send`.

    Example:
        >>> send_later(timedelta(hours=1), Account.at("bob").deposit, 10)
    """
    turn = running("send_later")
    found, key = target(handler)
    waited_ns = delay_ns("send_later", delay)
    turn.intentions.append(("later", waited_ns, found, key, found.bind_packed(args, kwargs)))
    turn.extra = True


def set_timer(
    name: str, delay: Delay, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
) -> None:
    """Set a named timer of this entity; it fires once, unless it is set again or cancelled.

    Args:
        name: 1 to 480 bytes of UTF-8. Setting a timer of the same name again replaces it.
        delay: the least time to wait, in seconds or as a timedelta, from 0 to a hundred years.
        handler: a handler of this entity, such as `self._remind`.
        *args, **kwargs: the handler's own arguments, checked now.

    Raises:
        TypeError: a name that is none, wrong arguments, or no handler of this entity.
        ValueError: a delay below zero or beyond a hundred years.
        OutsideTurn: no handler runs.

    Example:
        >>> set_timer("reminder", timedelta(days=1), self._remind)
    """
    turn = running("set_timer")
    _check_name(name)
    found = own_handler("set_timer", handler)
    waited_ns = delay_ns("set_timer", delay)
    turn.intentions.append(("timer", name, waited_ns, found, found.bind_packed(args, kwargs)))
    turn.timers[name] = turn.extra = True


def cancel_timer(name: str) -> bool:
    """Cancel a named timer of this entity, so that it will not fire.

    Args:
        name: the name that it was set under.

    Returns:
        Whether the timer was set.

    Raises:
        OutsideTurn: no handler runs.

    Example:
        >>> cancel_timer("reminder")
        True
    """
    turn = running("cancel_timer")
    _check_name(name)
    assert turn.entity is not None, "a turn has an entity"
    stood = turn.timers.get(name)
    if stood is None:
        stood = turn.forgotten is None and turn.timer_set(turn.entity, name)
    turn.intentions.append(("cancel", name))
    turn.timers[name], turn.extra = False, True
    return stood


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not 0 < len(name.encode()) <= 480:
        raise TypeError(f"a timer's name is a str of 1 to 480 bytes, not {name!r:.60}")


@overload
def ask(
    handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Asked[R]: ...
@overload
def ask(handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Asked[R]: ...
def ask(handler: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Send a message when the turn commits, and have its outcome sent back to this entity.

    Args:
        handler: a handler of an entity named by its key, such as `Account.at("bob").deposit`.
        *args, **kwargs: the handler's own arguments, checked now.

    Returns:
        The asked message, to which `then`, `rejected`, `failed` and `timeout` attach handlers.

    Raises:
        TypeError, ValueError, OutsideTurn: as for `send`.

    Example:
        >>> ask(Account.at(to).deposit, amount).then(self._paid, to).rejected(self._refused, amount)
    """
    turn = running("ask")
    found, key = target(handler)
    asked: Asked[Any] = Asked(found)
    turn.intentions.append(("ask", found, key, found.bind(args, kwargs), asked))
    turn.extra = True
    return asked


def forget() -> None:
    """Remove this entity when the turn commits: its state, named timers and pending asks.

    Messages that it has sent, also by `send_later`, stay sent. The next message to it finds a new
    entity; so do timers that this turn sets afterwards, and outcomes of what it asks afterwards.
    Fields can still be read in this turn, but a turn that changes one afterwards fails, since the
    change would be lost.

    Raises:
        OutsideTurn: no handler runs.

    Example:
        >>> forget()
        >>> set_timer("return", 60, self._return)  # meets a new entity
    """
    turn = running("forget")
    assert turn.entity is not None, "a turn has an entity"
    turn.forgotten = turn.entity.__skerry__.encode(turn.entity)
    turn.intentions.append(("forget",))
    turn.timers = dict.fromkeys(turn.timers, False)
    turn.extra = True


def now() -> datetime:
    """Return this turn's time, in UTC.

    It stands still in a turn, is the same when the turn runs again, and never goes back.

    Raises:
        OutsideTurn: no handler runs.

    Example:
        >>> self.seen = now()
    """
    turn = here.turn
    if turn is None:
        raise OutsideTurn("now")
    return _EPOCH + timedelta(microseconds=turn.now_ns // 1000)


def rng() -> random.Random:
    """Return this turn's random generator.

    When a turn runs again, it draws the same numbers.

    Raises:
        OutsideTurn: no handler runs.

    Example:
        >>> self.winner = rng().choice(self.players)
    """
    turn = here.turn
    if turn is None:
        raise OutsideTurn("rng")
    return turn.rng()


def emit(output: Output[T], item: T, /) -> None:
    """Put an item on a declared output when the turn commits; its sinks get it, in order.

    Args:
        output: one of `App(outputs=[…])`.
        item: anything that msgspec encodes, of the output's type; encoded now.

    Raises:
        TypeError: the output is not declared, the item can't be encoded, or would come out as
            something else than the output's type.
        ValueError: the item is too large for a message, or its sink can't write it (NaN as JSON).
        OutsideTurn: no handler runs.

    Example:
        >>> emit(milestones, 1000)
    """
    turn = running("emit")
    way_out = output if turn.outputs is None else turn.outputs.get(output.name)
    if way_out is None:
        raise TypeError(
            f"{output!r} is not declared: write App(…, outputs=[…]) with it, so that its items "
            f"have a way out"
        )
    turn.intentions.append(("emit", output, way_out.emitted(item)))
    turn.extra = True
