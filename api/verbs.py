"""The verbs of a turn: each writes one intention on the Turn, which commits as a whole.

A verb takes the handler and its arguments apart: `send(Account.at("bob").deposit, 10)`.
Nothing happens when it is called; everything happens when the turn commits, or nothing.

Reads and writes `skerry.turn.here` only. Idea: docs/entities.md.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from skerry.errors import Failed, OutsideTurn, Rejected
from skerry.handler import Handler
from skerry.message import Message, of_entity, one_message, target
from skerry.stream.outputs import Output
from skerry.turn import here, running

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
Delay = float | timedelta
"""Seconds, or a timedelta."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DELAY_DAYS_MAX = 36_500


def _delay_ns(verb: str, delay: Delay) -> int:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{verb}: a delay is seconds or a timedelta, not {delay!r}")
    if not 0 <= seconds <= DELAY_DAYS_MAX * 86_400:
        raise ValueError(f"{verb}: a delay is 0 s to {DELAY_DAYS_MAX} days, not {delay!r}")
    return int(seconds * 1_000_000_000)


@overload
def send(message: Message[Any], /) -> None: ...
@overload
def send(handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None: ...
def send(handler: Any, /, *args: Any, **kwargs: Any) -> None:
    """Send a message; it takes effect exactly once, in order behind this entity's earlier ones.

    Args:
        handler: of an entity named by its key, as `Account.at("bob").deposit`; or a `Message`.
        *args, **kwargs: the handler's own arguments, checked now.

    Raises:
        TypeError: wrong arguments, or no handler.
        OutsideTurn: no entity runs.

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
    """Send a message not before `delay` (seconds or timedelta) from now. Durable.

    Raises:
        ValueError: a delay below zero or beyond a hundred years.
        TypeError, OutsideTurn: as for `send`.
    """
    turn = running("send_later")
    found, key = target(handler)
    delay_ns = _delay_ns("send_later", delay)
    turn.intentions.append(("later", delay_ns, found, key, found.bind_packed(args, kwargs)))
    turn.extra = True


def set_timer(
    name: str, delay: Delay, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
) -> None:
    """Set this entity's timer `name`; setting it again replaces it. It fires exactly once.

    Args:
        name: 1 to 480 bytes, unique in this entity.
        delay: seconds or a timedelta from now; it does not fire before.
        handler: of this entity, as `self._remind`.

    Example:
        >>> set_timer("reminder", timedelta(days=1), self._remind)
    """
    turn = running("set_timer")
    _check_name(name)
    found = _own("set_timer", handler)
    delay_ns = _delay_ns("set_timer", delay)
    turn.intentions.append(("timer", name, delay_ns, found, found.bind_packed(args, kwargs)))
    turn.timers[name] = turn.extra = True


def cancel_timer(name: str) -> bool:
    """Cancel this entity's timer `name`. Whether it was set: then it will not fire."""
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


def _own(verb: str, handler: Any) -> Handler:
    """A handler of the entity that runs. Raises TypeError."""
    turn = here.turn
    assert turn is not None, "the verb has looked for a turn"
    if turn.entity is None or getattr(handler, "__self__", None) is not turn.entity:
        raise TypeError(
            f"{verb} takes a handler of the entity itself, as `self._paid`; {handler!r:.100} is not"
        )
    return of_entity(handler)


class Asked(Generic[R]):
    """What was asked, and which handlers of this entity its outcome goes to.

    Exactly one of the outcomes arrives, exactly once, as a message to this entity.
    """

    __slots__ = ("_failed", "_handler", "_rejected", "_then", "_timeout", "replies")

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.replies = handler.replies
        self._then: tuple[Handler, bytes] | None = None
        self._rejected: tuple[Handler, bytes] | None = None
        self._failed: tuple[Handler, bytes] | None = None
        self._timeout: tuple[int, Handler, bytes] | None = None

    @overload
    def then(
        self: Asked[None], handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> Asked[None]: ...
    @overload
    def then(
        self,
        handler: Callable[Concatenate[R, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Asked[R]: ...
    def then(self, handler: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The handler of the reply: `_paid(reply, *args)`, or `_paid(*args)` when there is none."""
        self._then = self._set("then", self._then, handler, args, kwargs, int(self.replies))
        return self

    def rejected(
        self,
        handler: Callable[Concatenate[Rejected, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Asked[R]:
        """The handler of a refusal: `_refused(rejected, *args)`."""
        self._rejected = self._set("rejected", self._rejected, handler, args, kwargs, 1)
        return self

    def failed(
        self,
        handler: Callable[Concatenate[Failed, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Asked[R]:
        """The handler of a failure: `_broken(failed, *args)`."""
        self._failed = self._set("failed", self._failed, handler, args, kwargs, 1)
        return self

    def timeout(
        self, delay: Delay, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> Asked[R]:
        """The handler when no other outcome came within `delay`: `_late(*args)`. The other side
        may have acted all the same."""
        found, rest = self._set("timeout", self._timeout, handler, args, kwargs, 0)
        self._timeout = (_delay_ns("timeout", delay), found, rest)
        return self

    def _set(
        self,
        outcome: str,
        before: object,
        handler: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        skip: int,
    ) -> tuple[Handler, bytes]:
        if before is not None:
            raise TypeError(f"this ask has a handler for `{outcome}` already")
        found = _own(outcome, handler)
        if kwargs:
            names = [param.name for param in found.params[skip + len(args) :]]
            unknown = sorted(set(kwargs) - set(names))
            if unknown:
                raise TypeError(f"{found.entity}.{found.name} has no argument `{unknown[0]}`")
            defaults = {p.name: p.default for p in found.params}
            args += tuple(kwargs.get(name, defaults[name]) for name in names)
        if skip and not found.params:
            raise TypeError(f"{found.entity}.{found.name} has no argument for the outcome")
        return found, found.bind_rest(args, skip=skip)

    # What the runtime reads.

    @property
    def outcomes(
        self,
    ) -> tuple[
        tuple[Handler, bytes] | None,
        tuple[Handler, bytes] | None,
        tuple[Handler, bytes] | None,
        tuple[int, Handler, bytes] | None,
    ]:
        """Handlers with their own arguments: of a reply, a refusal, a failure; of the time-out."""
        return self._then, self._rejected, self._failed, self._timeout


@overload
def ask(
    handler: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Asked[R]: ...
@overload
def ask(handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Asked[R]: ...
def ask(handler: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Send a message and have its outcome sent back to handlers of this entity.

    Example:
        >>> ask(Account.at(to).deposit, amount).then(self._paid, to).rejected(self._refused, amount)

    A refusal or failure that has no handler here is a dead letter.
    """
    turn = running("ask")
    found, key = target(handler)
    asked: Asked[Any] = Asked(found)
    turn.intentions.append(("ask", found, key, found.bind(args, kwargs), asked))
    turn.extra = True
    return asked


def forget() -> None:
    """Remove this entity when the turn commits: its state, named timers and pending asks.

    What it has sent, also with `send_later`, stays sent. The next message makes a new entity, and
    so do a timer that this turn sets after it and the outcome of what it asks after it. Its fields
    can be read until the turn ends; a turn that changes one of them after it fails, since the
    state is removed.

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
    """This turn's time (UTC): the same in the whole turn, never earlier than before."""
    turn = here.turn
    if turn is None:
        raise OutsideTurn("now")
    return _EPOCH + timedelta(microseconds=turn.now_ns // 1000)


def rng() -> random.Random:
    """This turn's random generator: tried again, a turn draws the same numbers."""
    turn = here.turn
    if turn is None:
        raise OutsideTurn("rng")
    return turn.rng()


def emit(output: Output[T], item: T, /) -> None:
    """Put an item on a declared output; its sinks get it when this turn counts, in order.

    Args:
        output: one of `App(outputs=[…])`.
        item: what msgspec encodes; encoded now.

    Raises:
        TypeError: the output is not declared, the item can't be encoded, or would come out as
            something else than the output's type.
        ValueError: the item is too large for a message, or its sink can't write it (NaN as JSON).
        OutsideTurn: no entity runs.

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
