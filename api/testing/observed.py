"""One entity in one turn, without an app, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from skerry.entity import Entity
from skerry.message import Message
from skerry.stream.outputs import Output
from skerry.turn import Turn, here

T = TypeVar("T")


class Observed:
    """A view of all that an entity has left behind in a turn so far; made by `turn`."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def _left(self, tag: str) -> list[tuple[Any, ...]]:
        return [intention[1:] for intention in self._turn.intentions if intention[0] == tag]

    @property
    def sent(self) -> list[Message[Any]]:
        """The messages that it sent, in order."""
        return [Message(handler, key, args) for handler, key, args in self._left("send")]

    @property
    def asked(self) -> list[Message[Any]]:
        """The messages that it asked, in order."""
        return [Message(handler, key, args) for handler, key, args, _ in self._left("ask")]

    @property
    def laters(self) -> list[tuple[float, Message[Any]]]:
        """For each `send_later`, the delay in seconds and the message."""
        return [(delay / 1e9, Message(*message)) for delay, *message in self._left("later")]

    @property
    def timers(self) -> dict[str, tuple[float, Message[Any]] | None]:
        """For each named timer, the delay in seconds and the message; None if it was cancelled."""
        assert self._turn.entity is not None, "an observed turn has an entity"
        key = self._turn.entity.key
        timers: dict[str, tuple[float, Message[Any]] | None] = dict.fromkeys(self._turn.timers)
        for name, delay, handler, args in self._left("timer"):
            if self._turn.timers[name]:
                timers[name] = delay / 1e9, Message(handler, key, args)
        return timers

    def emitted(self, output: Output[T]) -> list[T]:
        """Return the items that it emitted to an output, in order."""
        items = [item for to, item in self._left("emit") if to is output]
        return [msgspec.msgpack.decode(item, type=output.item_type) for item in items]

    @property
    def forgotten(self) -> bool:
        """Whether it called `forget`."""
        return self._turn.forgotten is not None


@contextmanager
def turn(entity: Entity, *, key: str = "test", now: datetime | None = None) -> Iterator[Observed]:
    """Run handlers of one entity in a turn, and see what they leave behind.

    Args:
        entity: an object of an entity class.
        key: the entity's key meanwhile, unless it has one.
        now: what `now()` returns. Default: the wall clock.

    Returns:
        A context manager whose value is an `Observed`.

    Raises:
        TypeError: at the end, the entity holds a value that could not be stored as it is.

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
    before, here.turn = here.turn, running
    try:
        yield Observed(running)
    finally:
        here.turn = before
    type(entity).__skerry__.seal([entity])
