"""Outcomes: the reply or exception that comes back for a request."""

from __future__ import annotations

from typing import Any

import msgspec

from skerry.errors import Failed, Rejected, SkerryError, TimedOut, Unavailable, as_named
from skerry.handler import Handler
from skerry.message import Message

_NIL = msgspec.msgpack.encode(None)


def name_of(handler: Handler, key: str) -> str:
    """Return a request's name in error messages, as "Account/alice deposit"."""
    return f"{handler.entity}/{key} {handler.name}"


def value_of(handler: Handler, key: str, outcome: Any, timeout: float, *, reply: bool) -> Any:
    """Return the reply that an outcome is, or raise the exception that it stands for.

    Args:
        handler: the handler that was asked.
        key: the entity's key.
        outcome: its `kind` and `body`, as a session gives it.
        timeout: how long it was waited for, in seconds.
        reply: whether the caller wants the reply.
    """
    match outcome.kind:
        case "done":
            return _reply(handler, outcome.body) if reply else None
        case "rejected":
            reason, details = msgspec.msgpack.decode(outcome.body)
            raise Rejected(reason, **details)
        case "failed":
            raise Failed(*msgspec.msgpack.decode(outcome.body))
        case "late":
            raise TimedOut(name_of(handler, key), timeout)
        case "unsaid":
            raise Unavailable(
                f"{name_of(handler, key)} was not sent within {timeout:g} s: the app is away, or has "
                f"so much to do that it takes no more. Nothing happened; ask again later."
            )
        case "invalid":
            raise as_named(*msgspec.msgpack.decode(outcome.body))
        case kind:
            raise SkerryError(
                f"An outcome of an unknown kind, {kind!r}: are both ends one release?"
            )


def result_of(one: Message[Any], outcome: Any, timeout: float) -> Any:
    """Return what stands for an outcome in the list of `ask_many`: refusals and failures, too."""
    try:
        return value_of(one.handler, one.key, outcome, timeout, reply=True)
    except (Rejected, Failed) as error:
        return error


def _reply(handler: Handler, body: bytes) -> Any:
    try:
        return handler.reply(body)
    except msgspec.MsgspecError as error:
        if body == _NIL:
            raise SkerryError(
                f"{handler.entity}.{handler.name} has run, and there is no reply: it returned None "
                f"against its annotation, or a `send` under this idempotency key came first, and "
                f"keeps none. Look at the entity with `get`."
            ) from None
        raise SkerryError(
            f"The reply of {handler.entity}.{handler.name} does not fit its annotation: {error}. "
            f"It has run; is this client of another release than the app?"
        ) from error
