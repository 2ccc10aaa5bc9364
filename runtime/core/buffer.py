"""Messages on their way, in order, as runs of one handler.

A run holds keys and a column of arguments (`Handler.column`), so many messages to one handler
are never looked at one by one. It is closed when a message comes that does not fit behind the
others. What turns left and nobody has routed yet are `Runs`; messages to one shard gather in
a `Buffer` of that shard until the batch is sealed.

Pure. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

from msgspec import Struct

from skerry.handler import Handler
from skerry.runtime.core import wire
from skerry.runtime.core.wire import Call

HEADS_MAX = 4096
"""How many heads of a kind are remembered. A head that is made anew only begins a run of its own."""

Extra = tuple[Any, ...]


class Head(Struct, frozen=True, eq=False):
    """What the messages of a run have in common. Compared by identity: see `Heads`."""

    call: int
    handler: Handler | None
    """None for outcomes and items, which name none."""
    type: str


class Heads(dict[Handler | str, Head]):
    """The heads of one kind of call: by handler, or by type where messages name no handler."""

    def __init__(self, call: int) -> None:
        self._call = call

    def __missing__(self, named: Handler | str) -> Head:
        if len(self) >= HEADS_MAX:
            self.clear()
        if isinstance(named, str):
            head = self[named] = Head(self._call, None, named)
        else:
            head = self[named] = Head(self._call, named, named.entity)
        return head


HEADS = tuple(map(Heads, sorted(Call)))
"""By kind of call."""
SENDS, ASKS, OUTCOMES, EMITS, MARKS, CHUNKS = HEADS


class Messages(Struct, gc=False):
    """A run of messages, in order."""

    head: Head
    keys: list[str]
    column: Sequence[Any]
    extras: list[Extra]
    """What each message carries besides, where its kind of call has that: see `Call`."""

    def split(self, first: int) -> tuple[Messages, Messages]:
        """The first so many messages, and the rest."""
        one, two = slice(0, first), slice(first, None)
        return self._part(one), self._part(two)

    def _part(self, part: slice) -> Messages:
        return Messages(self.head, self.keys[part], self.column[part], self.extras[part])

    def each(self) -> Iterator[tuple[str, Any, Any]]:
        """(key, entry of the column, extra) of each message; None where there is none."""
        entries: Iterable[Any] = self.column or repeat(None)
        extras: Iterable[Extra | None] = self.extras or repeat(None)
        return zip(self.keys, entries, extras)

    def encoded(self) -> wire.Run:
        """The messages as they travel."""
        head, extras = self.head, self.extras or None
        if head.handler is None:
            return wire.Run(head.call, head.type, 0, 0, self.keys, wire.NO_COLUMNS, None, extras)
        return wire.run_of(head.call, head.handler, self.keys, self.column, extras)


class Runs:
    """Messages in order. `head` is that of the run that is open: others like it may follow by
    appending to `keys`, `column` (where the handler has arguments) and `extras`."""

    __slots__ = ("_closed", "column", "extras", "head", "keys")

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Throw all messages away."""
        self._closed: list[Messages] = []
        self._renew()

    def _renew(self) -> None:
        self.head: Head | None = None
        self.keys: list[str] = []
        self.column: list[Any] = []
        self.extras: list[Extra] = []

    # ── in ──

    def open(self, head: Head) -> None:
        """Begin a run with this head."""
        self.close()
        self.head = head

    def extend(self, handler: Handler, keys: Sequence[str], column: Sequence[Any]) -> None:
        """Add many messages to one handler that nobody waits for."""
        head = SENDS[handler]
        if self.head is not head:
            self.open(head)
        self.keys.extend(keys)
        self.column.extend(column)

    def add(self, head: Head, key: str, entry: Any, extra: Extra | None) -> None:
        """Add one message. `entry`: its arguments as `Handler.entry`."""
        if self.head is not head:
            self.open(head)
        self.keys.append(key)
        if head.handler is not None and head.handler.arity:
            self.column.append(entry)
        if extra is not None:
            self.extras.append(extra)

    def close(self) -> None:
        """End the open run."""
        if self.head is not None and self.keys:
            self._closed.append(Messages(self.head, self.keys, self.column, self.extras))
        self._renew()

    # ── out ──

    def take(self) -> list[Messages]:
        """Take all messages out."""
        self.close()
        taken, self._closed = self._closed, []
        return taken

    def frames(self) -> list[tuple[bytes, int]]:
        """(body, messages) of the frames that carry all of them."""
        self.close()
        return wire.bodies([messages.encoded() for messages in self._closed])


class Buffer(Runs):
    """Messages to one shard; noted in `filled` while there are any."""

    __slots__ = ("_filled", "owner")

    def __init__(self, owner: int, filled: dict[int, Buffer]) -> None:
        self.owner, self._filled = owner, filled
        super().__init__()

    def open(self, head: Head) -> None:
        """Begin a run with this head."""
        self._filled[self.owner] = self
        super().open(head)
