"""What a turn comes to: done, refused or broken; and an error in words that can be kept.

A result is what the executor hands to whoever sent the message. Its outcome is the same thing
as it travels back to an asker or a client.

Pure. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

import traceback
from typing import Any

import msgspec
from msgspec import Struct

from skerry.errors import Failed, Rejected, storable, told
from skerry.limits import measured
from skerry.roundtrip import RoundTrip
from skerry.runtime.core.events import Outcome

ERROR_CHARS_MAX, TRACEBACK_CHARS_MAX = 1 << 14, 1 << 16
"""How much of an error's text and of its traceback is kept: its beginning and its end."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.decode
_REASON, _DETAILS = RoundTrip(str), RoundTrip(dict[str, Any])


class Raised(Exception):
    """Something in an optimistic batch raised: the whole batch must be thrown away.

    `type` is the entity type whose turn raised; None when it was a stage of a source, or
    a value that does not encode.
    """

    def __init__(self, type_name: str | None = None) -> None:
        super().__init__(type_name)
        self.type = type_name


class Done(Struct, frozen=True, gc=False):
    """The handler returned; `reply` is its encoded result, None when nobody asked."""

    reply: bytes | None


class Refused(Struct, frozen=True):
    """The handler raised Rejected; the turn left no trace."""

    text: str
    body: bytes
    """Its reason and details, encoded."""


class Broke(Struct, frozen=True):
    """The handler raised on every retry; the turn left no trace."""

    error: str
    traceback: str


Result = Done | Refused | Broke


class OutcomeArgs(Struct, frozen=True):
    """The arguments of an outcome's handler: see `Handler.outcome`."""

    first: bytes | Exception
    """The reply, encoded, or the error."""
    rest: bytes
    """The handler's own arguments, encoded."""
    with_first: bool


def outcome_of(result: Result) -> Outcome:
    """The outcome that an asker or a client gets for a result."""
    match result:
        case Done(reply):
            return Outcome("done", b"\xc0" if reply is None else reply)
        case Refused(_, body):
            return Outcome("rejected", body)
        case Broke(error, trace):
            return Outcome("failed", _encode([error, trace]))


def error_of(kind: str, body: bytes) -> Rejected | Failed:
    """The exception that the bytes of a failed outcome stand for."""
    first, second = _decode(body)
    return Rejected(first, **second) if kind == "rejected" else Failed(first, second)


def ending(error: BaseException) -> Refused | Broke:
    """The result of a turn that raised."""
    if isinstance(error, Rejected):
        try:
            return Refused(storable(str(error)), _refusal(error.reason, error.details))
        except BaseException as wrong:  # It is a subclass without a reason, or a value's __repr__.
            return broke(wrong)
    return broke(error)


def _refusal(reason: Any, details: Any) -> bytes:
    """A refusal as its asker will have it. Raises TypeError, ValueError: it would be another."""
    body = _encode([reason, details])
    for text, value, rule in (("reason", reason, _REASON), ("details", details, _DETAILS)):
        if not rule.holds((value,)):
            raise TypeError(f"Rejected: its {text}{rule.fault(value)}")
    return measured(body, "Rejected: its details have")


def broke(error: BaseException) -> Broke:
    """A failure as it is kept, with the part of its traceback that the app's code wrote."""
    frames = error.__traceback__.tb_next if error.__traceback__ else None
    lines = traceback.format_exception(type(error), error, frames)
    return Broke(
        _shortened(told(error), ERROR_CHARS_MAX),
        _shortened(storable("".join(lines)), TRACEBACK_CHARS_MAX),
    )


def _shortened(text: str, chars_max: int) -> str:
    """A text without its middle, when it is too long to keep."""
    if len(text) <= chars_max:
        return text
    half = chars_max // 2
    return f"{text[:half]} … {len(text) - chars_max:,} characters … {text[-half:]}"
