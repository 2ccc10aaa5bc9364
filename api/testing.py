"""What a program's tests need: one entity in a turn, without an app.

with testing.turn(Account(balance=5), key="alice") as t:
    account.transfer("bob", 3)
assert t.asked == [message(Account.at("bob").deposit, 3)]
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from skerry import turn as _seam
from skerry.entity import Entity
from skerry.message import Message
from skerry.turn import Turn


class Observed:
    """What an entity left behind in a turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def sent(self) -> list[Message[Any]]:
        """Messages sent, in order."""
        return [Message(h, key, args) for h, key, args, asked in self._turn.sends if asked is None]

    @property
    def asked(self) -> list[Message[Any]]:
        """Messages asked, in order."""
        return [
            Message(h, key, args) for h, key, args, asked in self._turn.sends if asked is not None
        ]

    @property
    def laters(self) -> list[tuple[float, Message[Any]]]:
        """(seconds, message) of each `send_later`."""
        return [(delay / 1e9, Message(h, key, args)) for delay, h, key, args in self._turn.laters]

    @property
    def timers(self) -> dict[str, tuple[float, Message[Any]] | None]:
        """(seconds, message) of each timer set, by name; None: cancelled."""
        assert self._turn.entity is not None, "an observed turn has an entity"
        key = self._turn.entity.key
        return {
            name: None if timer is None else (timer[0] / 1e9, Message(timer[1], key, timer[2]))
            for name, timer in self._turn.timers.items()
        }

    @property
    def forgotten(self) -> bool:
        """Whether the entity called `forget`."""
        return self._turn.forgotten


@contextmanager
def turn(entity: Entity, *, key: str = "test", now: datetime | None = None) -> Iterator[Observed]:
    """Run handlers of one entity as in a turn, and look at what they leave behind.

    Args:
        entity: any object of an entity class.
        key: the key that it has meanwhile, unless it has one.
        now: what `now()` gives; default: the wall clock.

    Example:
        >>> with turn(account, key="alice") as t:
        ...     account.transfer("bob", 3)
        >>> t.asked
        [Account.at('bob').deposit(3)]
    """
    running = Turn()
    if not hasattr(entity, "_key"):
        entity._key = key
    running.entity = entity
    running.now_ns = int((now or datetime.now(UTC)).timestamp() * 1e9)
    before, _seam.current = _seam.current, running
    try:
        yield Observed(running)
    finally:
        _seam.current = before
