"""What can go wrong, by whose fault it is.

    SkerryError
    ├── the program's, or its caller's
    │   ├── Rejected            an entity refused a message: business, not a bug
    │   ├── Failed              a handler raised on every retry: the message is a dead letter
    │   ├── OutsideTurn         a verb was used where no entity runs
    │   ├── UnknownEntity       a message names an entity type that the app does not have
    │   ├── UnknownHandler      a message names a handler that its entity type does not have
    │   ├── InvalidMessage      a message's arguments do not fit its handler
    │   ├── BadApp              an app, or what it is made of, can't be used
    │   └── IncompatibleState   a stored state does not fit the entity's class any more
    ├── the outside world's
    │   ├── TimedOut            no outcome in time: it is unknown
    │   └── Unavailable         nobody could be reached, or took it; nothing happened
    └── the disk's
        ├── StoreDamaged        what is stored is not what was written
        ├── StoreLocked         another process owns the store
        └── StoreFull           the store has reached its quota

Each sentence names the thing, the cause and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class SkerryError(Exception):
    """Root of what skerry raises on purpose."""


def storable(text: str) -> str:
    """A text as UTF-8 can carry it: half a character, which it can't, stands there as its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def told(error: BaseException) -> str:
    """What an error is and says, as a store can keep it; also of one that can't say anything."""
    try:
        return storable(f"{type(error).__name__}: {error}")
    except BaseException as wrong:
        name = type(error).__name__
        return f"{name}, which can't say more: its __str__ raised {type(wrong).__name__}"


class Rejected(SkerryError):
    """An entity refuses a message. The turn leaves no trace; who asked gets this.

    Args:
        reason: why, for a person.
        **details: values that msgpack can carry, for a program.

    Example:
        >>> raise Rejected("insufficient funds", balance=3)
        Traceback (most recent call last):
        skerry.errors.Rejected: insufficient funds (balance=3)
    """

    def __init__(self, reason: str, /, **details: Any) -> None:
        if not isinstance(reason, str):
            raise TypeError(f"Rejected takes its reason as a text, not {reason!r:.80}")
        super().__init__(reason)
        self.reason = reason
        self.details = details

    def __str__(self) -> str:
        if not self.details:
            return self.reason
        return f"{self.reason} ({', '.join(f'{k}={v!r}' for k, v in self.details.items())})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rejected):
            return NotImplemented
        return (self.reason, self.details) == (other.reason, other.details)

    __hash__ = None  # type: ignore[assignment]


class Failed(SkerryError):
    """A handler raised on every retry. Its message is a dead letter, with this traceback."""

    def __init__(self, error: str, traceback: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.traceback = traceback


class OutsideTurn(SkerryError):
    """A verb was used where no entity runs."""

    def __init__(self, verb: str) -> None:
        super().__init__(
            f"`{verb}` works inside a turn only: in a handler while a message is handled, on the "
            f"handler's own thread and in its own process. "
            f"To try an entity alone, wrap the call in `with skerry.testing.turn(entity):`."
        )


def _near(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean `{found[0]}`?" if found else ""


class UnknownEntity(SkerryError):
    """A message names an entity type that the app does not have."""

    def __init__(self, entity: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"The app has no entity type `{entity}`.{_near(entity, known)} "
            f"It has: {', '.join(known) or 'none'}. What is sent to must be among App(entities=[…])."
        )
        self.entity = entity


class UnknownHandler(SkerryError):
    """A message names a handler that its entity type does not have."""

    def __init__(self, entity: str, handler: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"{entity} has no handler `{handler}`.{_near(handler, known)} "
            f"It has: {', '.join(known) or 'none'}."
        )
        self.entity, self.handler = entity, handler


class InvalidMessage(SkerryError):
    """A message's key or arguments do not fit its handler."""


class BadApp(SkerryError):
    """An app, or what it is made of, can't be used."""


_UPGRADE = "Give the class an `_upgrade` classmethod that makes the new fields of the old ones."


class IncompatibleState(SkerryError):
    """A stored state does not fit the entity's class any more."""

    def __init__(self, entity: str, key: str, why: str, step: str = _UPGRADE) -> None:
        super().__init__(
            f"The stored state of {entity}/{key} does not fit its class: {why}. {step}"
        )
        self.entity, self.key = entity, key


class TimedOut(SkerryError):
    """No outcome came in time. *It is unknown*: the waiting stopped, not the message."""

    def __init__(self, what: str, seconds: float, again: Callable[[], Any] | None = None) -> None:
        super().__init__(
            f"No outcome of {what} within {seconds:g} s: it is unknown whether it ran. Wait on "
            f"with `again()` of this error, or give `options(timeout=…)` more; asking anew "
            f"without an idempotency_key may do it twice."
        )
        self._again = again

    def waited_by(self, wait: Callable[[Any], Any]) -> TimedOut:
        """The same error for a caller who waits in another way for what `again` returns."""
        again = self._again
        if again is not None:
            self._again = lambda: wait(again())
        return self

    def again(self) -> Any:
        """Wait on for the same request, which still counts once: its result, as the verb gives it.

        To be awaited when it comes from an `AsyncClient`. Raises this error when there is
        nothing left to wait for.
        """
        if self._again is None:
            raise self
        return self._again()


class Unavailable(SkerryError):
    """Nobody could be reached, or took the request in time; nothing happened."""


class StoreDamaged(SkerryError):
    """What is stored is not what was written, or the disk refused. Needs a person."""


class StoreLocked(SkerryError):
    """Another process owns the store. Nothing is damaged."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(
            f"{path} is in use by process {pid}. Stop it with `skerry stop`, or choose another "
            f"folder with --data."
        )
        self.path, self.pid = path, pid


class StoreFull(SkerryError):
    """The store has reached its quota, or the disk is full; what was acknowledged is safe."""


def as_named(name: str, text: str) -> SkerryError:
    """The error that another process named, with its own sentence."""
    kind = globals().get(name)
    if not (isinstance(kind, type) and issubclass(kind, SkerryError)):
        return SkerryError(f"{name}: {text}")
    # A constructor makes the sentence from parts; here the sentence is made already.
    error = kind.__new__(kind)
    error.args = (text,)
    return error
