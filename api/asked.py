"""Asks under way in a turn: the handlers that an ask's outcomes are for, and how long it waits.

Each is checked where it is attached: it belongs to the entity that runs, and takes its arguments.

Reads `skerry.turn.here` only. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from skerry.errors import Failed, Rejected
from skerry.handler import Handler
from skerry.message import of_entity
from skerry.turn import here

P = ParamSpec("P")
R = TypeVar("R")
Delay = float | timedelta
"""Seconds, or a timedelta."""

DELAY_DAYS_MAX = 36_500


def delay_ns(verb: str, delay: Delay) -> int:
    """Return a delay in nanoseconds. Raises TypeError, ValueError."""
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(f"{verb}: a delay is seconds or a timedelta, not {delay!r}")
    if not 0 <= seconds <= DELAY_DAYS_MAX * 86_400:
        raise ValueError(f"{verb}: a delay is 0 s to {DELAY_DAYS_MAX} days, not {delay!r}")
    return int(seconds * 1_000_000_000)


def own_handler(verb: str, handler: Any) -> Handler:
    """Return the handler, which must be of the entity that runs. Raises TypeError."""
    turn = here.turn
    assert turn is not None, "the verb has looked for a turn"
    if turn.entity is None or getattr(handler, "__self__", None) is not turn.entity:
        raise TypeError(
            f"{verb} takes a handler of the entity itself, such as `self._paid`; {handler!r:.100} is not"
        )
    return of_entity(handler)


class Asked(Generic[R]):
    """A message that was asked, to which handlers for its outcomes are attached.

    Exactly one of the outcomes arrives, exactly once, as a message to this entity. A refusal or
    failure without a handler becomes a dead letter.

    Example:
        >>> asked = ask(Shop.at("a").order, 3)
        >>> asked.then(self._ordered, 3).rejected(self._sold_out).timeout(30, self._late)
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
        """Attach the handler of the reply.

        Args:
            handler: a handler of this entity. It is called as `handler(reply, *args, **kwargs)`,
                without the reply if the other handler's is annotated as None.
            *args, **kwargs: the handler's own arguments, checked now.

        Raises:
            TypeError: wrong arguments, no handler of this entity, or one is attached already.
        """
        self._then = self._set("then", self._then, handler, args, kwargs, int(self.replies))
        return self

    def rejected(
        self,
        handler: Callable[Concatenate[Rejected, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Asked[R]:
        """Attach the handler of a refusal.

        Args:
            handler: a handler of this entity, called as `handler(rejected, *args, **kwargs)`.
            *args, **kwargs: the handler's own arguments, checked now.

        Raises:
            TypeError: as for `then`.
        """
        self._rejected = self._set("rejected", self._rejected, handler, args, kwargs, 1)
        return self

    def failed(
        self,
        handler: Callable[Concatenate[Failed, P], object],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> Asked[R]:
        """Attach the handler of a failure: the other handler raised on every retry.

        Args:
            handler: a handler of this entity, called as `handler(failed, *args, **kwargs)`.
            *args, **kwargs: the handler's own arguments, checked now.

        Raises:
            TypeError: as for `then`.
        """
        self._failed = self._set("failed", self._failed, handler, args, kwargs, 1)
        return self

    def timeout(
        self, delay: Delay, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> Asked[R]:
        """Attach the handler that is called if no other outcome has come in time.

        The other entity may have acted, or may act later.

        Args:
            delay: how long to wait, in seconds or as a timedelta.
            handler: a handler of this entity, called as `handler(*args, **kwargs)`.
            *args, **kwargs: the handler's own arguments, checked now.

        Raises:
            TypeError: as for `then`.
            ValueError: a delay below zero or beyond a hundred years.
        """
        found, rest = self._set("timeout", self._timeout, handler, args, kwargs, 0)
        self._timeout = (delay_ns("timeout", delay), found, rest)
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
        found = own_handler(outcome, handler)
        return found, found.bind_rest(args, kwargs, skip=skip)

    # Read by the runtime.

    @property
    def outcomes(
        self,
    ) -> tuple[
        tuple[Handler, bytes] | None,
        tuple[Handler, bytes] | None,
        tuple[Handler, bytes] | None,
        tuple[int, Handler, bytes] | None,
    ]:
        """The handlers of the reply, refusal, failure and timeout, with their own arguments."""
        return self._then, self._rejected, self._failed, self._timeout
