"""One line to one worker's listener, on an asyncio loop: sends, hears, and connects again.

While nobody listens, nothing is queued: sending fails at once, and `up` is called when there is
somebody to send to. So a worker that was away never finds a heap of old messages, and its callers
learn that it was away.

A connection may outlive its listener, if a process that a handler has forked holds the other end.
So the line looks now and then whether the listener at its place is still the same.

Nothing is sent before the listener has proven that it is the app's own (`knock.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from skerry.runtime.gateway import knock
from skerry.runtime.gateway.channel import Broken, Channel, listener
from skerry.runtime.gateway.protocol import turns_away

TRY_S = 0.02
TRY_MAX_S = 0.2
"""How long until a listener that was not there is tried again: twice as long each time."""

HEARD_BYTES_MAX = 1 << 30
"""No limit in practice: a worker is ours, and says no more than it was asked for."""


class Way(Struct, frozen=True):
    """Where a listener is, and how a caller knows that it is the right one."""

    path: str
    secret: str
    doubt: Callable[[int], str]
    """Says why a process of this user may not be the app's own; empty: it may."""


class Line:
    """A channel to a listener that is opened again when it breaks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        way: Way,
        hear: Callable[[bytes], None],
        up: Callable[[], None],
        doubted: Callable[[str], None],
    ) -> None:
        self._loop, self._way = loop, way
        self._hear, self._on_up, self._on_doubt = hear, up, doubted
        self._channel: Channel | None = None
        self._number = b""
        """The number that the listener has yet to prove itself by; empty: it has."""
        self._listener: tuple[int, int] | None = None
        """The listener that the channel leads to."""
        self._try_s = TRY_S
        self._next_try: asyncio.Handle | None = loop.call_soon(self._try)

    @property
    def up(self) -> bool:
        """Whether a proven listener is connected now."""
        return self._channel is not None and not self._number

    def _try(self) -> None:
        """Connect, now or in a while."""
        self._listener = listener(self._way.path)
        channel = Channel.to(self._way.path, message_bytes_max=HEARD_BYTES_MAX)
        if channel is not None and (doubt := self._way.doubt(channel.user)):
            channel.close()
            channel = None
            self._on_doubt(doubt)
        if channel is None:
            self._try_later()
            return
        self._next_try = None
        self._channel, self._number = channel, knock.drawn()
        self._loop.add_reader(channel.fileno(), self._ready, channel)
        self._say(channel, knock.knock(self._way.secret, self._number))

    def say(self, raw: bytes) -> bool:
        """Send a message; False: nobody is connected."""
        channel = self._channel
        return channel is not None and not self._number and self._say(channel, raw)

    def _say(self, channel: Channel, raw: bytes) -> bool:
        try:
            channel.say(raw)
        except Broken:
            self._broke(channel)
            return False
        if channel.unsent:
            self._loop.add_writer(channel.fileno(), self._go_on, channel)
        return True

    def _go_on(self, channel: Channel) -> None:
        try:
            channel.go_on()
        except Broken:
            self._broke(channel)
            return
        if not channel.unsent:
            self._loop.remove_writer(channel.fileno())

    def look(self) -> None:
        """Connect to the listener that is at this place now, if it is another."""
        if self._channel is not None and listener(self._way.path) not in (None, self._listener):
            self._broke(self._channel)

    def hear(self) -> None:
        """Take what has come, before the loop gets to it."""
        if self._channel is not None:
            self._ready(self._channel)

    def _ready(self, channel: Channel) -> None:
        try:
            heard = channel.hear()
        except Broken:
            self._broke(channel)
            return
        if self._number and heard:
            first = heard.pop(0)
            if not knock.is_answer(self._way.secret, self._number, first):
                # Most likely the app was started anew, with another secret; it is looked for.
                if turns_away(first):
                    self._hear(first)
                self._broke(channel)
                return
            self._number, self._try_s = b"", TRY_S
            self._on_up()
        for raw in heard:
            self._hear(raw)

    def _broke(self, channel: Channel) -> None:
        if self._channel is channel:
            self._let_go()
            self._try_later()

    def _try_later(self) -> None:
        self._next_try = self._loop.call_later(self._try_s, self._try)
        self._try_s = min(2 * self._try_s, TRY_MAX_S)

    def _let_go(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            self._loop.remove_reader(channel.fileno())
            self._loop.remove_writer(channel.fileno())
            channel.close()

    def close(self) -> None:
        """Disconnect. What was sent just now still arrives."""
        if self._next_try is not None:
            self._next_try.cancel()
        self._let_go()
