"""Messages on their way, in order, as runs of one handler.

A run holds keys and a column of arguments (`Handler.column`), so many messages to one handler
are never looked at one by one. It is closed when a message comes that does not fit behind the
others. What turns left and nobody has routed yet are `Runs`; what goes to one shard gathers in
a `Buffer` of that shard until the batch is sealed.

Pure. Idea: docs/streams.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from skerry.handler import Handler
from skerry.runtime.core import wire
from skerry.runtime.core.wire import Call

Extra = tuple[Any, ...]


class Messages(Struct, gc=False):
    """A run: messages to one handler, in order."""

    call: int
    handler: Handler | None
    """None for outcomes and items, which name none."""
    type: str
    keys: list[str]
    column: Sequence[Any]
    extras: list[Extra]
    """Of each message, where its kind of call has any."""

    def split(self, first: int) -> tuple[Messages, Messages]:
        """The first so many messages, and the rest."""
        one, two = slice(0, first), slice(first, None)
        return self._part(one), self._part(two)

    def _part(self, part: slice) -> Messages:
        keys, column, extras = self.keys[part], self.column[part], self.extras[part]
        return Messages(self.call, self.handler, self.type, keys, column, extras)

    def encoded(self) -> wire.Run:
        """As they travel."""
        extras = self.extras or None
        if self.handler is None:
            return wire.Run(self.call, self.type, 0, 0, self.keys, wire.NO_COLUMNS, None, extras)
        return wire.run_of(self.call, self.handler, self.keys, self.column, extras)


class Runs:
    """Messages in order."""

    __slots__ = (
        "_call",
        "_closed",
        "_named",
        "_type",
        "column",
        "extras",
        "handler",
        "keys",
        "told",
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """There are none."""
        self._closed: list[Messages | wire.Run] = []
        self._renew()

    def _renew(self) -> None:
        self.handler: Handler | None = None
        """Whose messages, that nobody waits for, may follow by `keys` and `column` now."""
        self.keys: list[str] = []
        self.column: list[Any] = []
        self.extras: list[Extra] = []
        self.told = ""
        """Of which type those are whose outcomes may follow by `keys` and `extras` now."""
        self._call, self._type = -1, ""
        self._named: Handler | None = None

    # ── in ──

    def open(self, handler: Handler) -> None:
        """Messages to this handler follow, that nobody waits for."""
        self._open(Call.SEND, handler, handler.entity)
        self.handler = handler

    def open_outcomes(self, type_name: str) -> None:
        """Outcomes to askers of this type follow."""
        self._open(Call.OUTCOME, None, type_name)
        self.told = type_name

    def extend(self, handler: Handler, keys: Sequence[str], column: Sequence[Any]) -> None:
        """Many messages to one handler that nobody waits for."""
        if self.handler is not handler:
            self.open(handler)
        self.keys.extend(keys)
        self.column.extend(column)

    def add(
        self, call: int, handler: Handler | None, type_name: str, key: str, entry: Any, extra: Any
    ) -> None:
        """One message. `entry`: its arguments as `Handler.entry`."""
        if handler is not self._named or type_name != self._type or call != self._call:
            self._open(call, handler, type_name)
            if call == Call.SEND:
                self.handler = handler
        self.keys.append(key)
        if handler is not None and handler.arity:
            self.column.append(entry)
        if call != Call.SEND:
            self.extras.append(extra)

    def _open(self, call: int, handler: Handler | None, type_name: str) -> None:
        self.close()
        self._call, self._named, self._type = call, handler, type_name

    def add_encoded(self, run: wire.Run) -> None:
        """Messages as they have travelled."""
        self.close()
        self._closed.append(run)

    def close(self) -> None:
        """What follows is a run of its own."""
        if self.keys:
            self._closed.append(
                Messages(self._call, self._named, self._type, self.keys, self.column, self.extras)
            )
        self._renew()

    # ── out ──

    def take(self) -> list[Messages]:
        """All of them; there are none then."""
        self.close()
        taken, self._closed = self._closed, []
        assert all(type(run) is Messages for run in taken), "what has travelled goes on as it is"
        return taken  # type: ignore[return-value]

    def frames(self, *, each: bool) -> list[tuple[bytes, int]]:
        """(body, messages) of the frames that carry all of them. `each`: one message a frame."""
        self.close()
        runs = [run.encoded() if isinstance(run, Messages) else run for run in self._closed]
        return wire.bodies(runs, each=each)


class Buffer(Runs):
    """Messages to one shard; noted in `filled` while there are any."""

    __slots__ = ("_filled", "owner")

    def __init__(self, owner: int, filled: dict[int, Buffer]) -> None:
        self.owner, self._filled = owner, filled
        super().__init__()

    def _open(self, call: int, handler: Handler | None, type_name: str) -> None:
        self._filled[self.owner] = self
        super()._open(call, handler, type_name)

    def add_encoded(self, run: wire.Run) -> None:
        """See `Runs`."""
        self._filled[self.owner] = self
        super().add_encoded(run)
