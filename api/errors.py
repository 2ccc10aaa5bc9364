"""Errors: everything that skerry raises on purpose, by whose fault it is.

    SkerryError
    ├── the program's, or its caller's
    │   ├── Rejected            an entity refused a message: a business decision, not a bug
    │   ├── Failed              a handler raised on every retry: the message is a dead letter
    │   ├── OutsideTurn         a verb was used where no entity runs
    │   ├── UnknownEntity       a message names an entity type that the app does not have
    │   ├── UnknownHandler      a message names a handler that its entity type does not have
    │   ├── InvalidMessage      a message's arguments do not fit its handler
    │   ├── BadApp              an app, or a part of it, can't be used
    │   └── IncompatibleState   a stored state does not fit the entity's class any more
    ├── the outside world's
    │   ├── TimedOut            no outcome came in time: it is unknown
    │   └── Unavailable         the app could not be reached or was too busy: nothing happened
    └── the disk's
        ├── StoreDamaged        the store does not hold what was written
        ├── StoreLocked         another process owns the store
        └── StoreFull           the store has reached its quota

Each message names the thing, the cause and the next step.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


class SkerryError(Exception):
    """The root of all errors that skerry raises on purpose."""


def storable(text: str) -> str:
    """Return a text that UTF-8 can carry: half a character is written as its number."""
    return text.encode("utf-8", "backslashreplace").decode()


def told(error: BaseException) -> str:
    """Return an error's class and message as text that can be stored, even if its `__str__` fails."""
    try:
        return storable(f"{type(error).__name__}: {error}")
    except BaseException as wrong:
        name = type(error).__name__
        return f"{name}, which can't say more: its __str__ raised {type(wrong).__name__}"


class Rejected(SkerryError):
    """Raised by a handler that refuses a message: the turn leaves no trace, and the asker gets it.

    The refusal of a message that nobody asked for makes it a dead letter.

    Args:
        reason: why, for a person.
        **details: values that msgpack can carry, for a program.

    Raises:
        TypeError: the reason is no text.

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
    """A handler raised on every retry, and its message became a dead letter.

    The exception and its text are in `error`, the traceback is in `traceback`.
    """

    def __init__(self, error: str, traceback: str = "") -> None:
        super().__init__(error)
        self.error = error
        self.traceback = traceback


class OutsideTurn(SkerryError):
    """A verb was used where no handler runs."""

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
    """A message names an entity type that the app does not have. The name is in `entity`."""

    def __init__(self, entity: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(
            f"The app has no entity type `{entity}`.{_near(entity, known)} "
            f"It has: {', '.join(known) or 'none'}. What is sent to must be among App(entities=[…])."
        )
        self.entity = entity


class UnknownHandler(SkerryError):
    """A message names a handler that its entity type does not have.

    The names are in `entity` and `handler`.
    """

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
    """An app, or a part of it, can't be used."""


_UPGRADE = "Give the class an `_upgrade` classmethod that makes the new fields of the old ones."


class IncompatibleState(SkerryError):
    """A stored state does not fit the entity's class any more.

    The entity's type and key are in `entity` and `key`.
    """

    def __init__(self, entity: str, key: str, why: str, step: str = _UPGRADE) -> None:
        super().__init__(
            f"The stored state of {entity}/{key} does not fit its class: {why}. {step}"
        )
        self.entity, self.key = entity, key


class TimedOut(SkerryError):
    """No outcome came in time. *It is unknown*: the waiting has stopped, not the message."""

    def __init__(self, what: str, seconds: float, again: Callable[[], Any] | None = None) -> None:
        super().__init__(
            f"No outcome of {what} within {seconds:g} s: it is unknown whether it ran. Wait on "
            f"with `again()` of this error, or give `options(timeout=…)` more; asking anew "
            f"without an idempotency_key may do it twice."
        )
        self._again = again

    def waited_by(self, wait: Callable[[Any], Any]) -> TimedOut:
        """Return this error, with an `again` that waits as another kind of client does."""
        again = self._again
        if again is not None:
            self._again = lambda: wait(again())
        return self

    def again(self) -> Any:
        """Wait on for the same request, which still takes effect once.

        Returns:
            What the verb would have returned; of an `AsyncClient`, an awaitable of it.

        Raises:
            TimedOut: there is nothing left to wait for, or again no outcome in time.
        """
        if self._again is None:
            raise self
        return self._again()


class Unavailable(SkerryError):
    """The app could not be reached, or was too busy to take the request: nothing happened."""


class StoreDamaged(SkerryError):
    """The store does not hold what was written, or the disk reported an error. Needs a person."""


class StoreLocked(SkerryError):
    """Another process owns the store. Nothing is damaged.

    The store's path and the id of the process are in `path` and `pid`.
    """

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(
            f"{path} is in use by process {pid}. Stop it with `skerry stop`, or choose another "
            f"folder with --data."
        )
        self.path, self.pid = path, pid


class StoreFull(SkerryError):
    """The store has reached its quota, or the disk is full. What was acknowledged is safe."""


def as_named(name: str, text: str) -> SkerryError:
    """Return the error that another process reported, by its class's name and message."""
    kind = globals().get(name)
    if not (isinstance(kind, type) and issubclass(kind, SkerryError)):
        return SkerryError(f"{name}: {text}")
    # A constructor would make the message from parts; here the message exists already.
    error = kind.__new__(kind)
    error.args = (text,)
    return error
