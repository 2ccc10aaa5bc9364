"""One line to one door: says and hears, and knows whether anybody is there.

While no door answers, nothing is queued: what could not be said is refused at once, and `up` is
called when there is somebody to say it to. So a door that was away never finds a heap of old
messages, and its callers learn that it was away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from skerry.runtime.gateway.channel import Broken, Channel

TRY_S = 0.02
TRY_MAX_S = 0.2
"""How long after a door was not there it is tried again: twice as long each time, up to here."""

HEARD_BYTES_MAX = 1 << 30
"""No limit in practice: a door is ours, and says no more than it was asked for."""


class Line:
    """A channel to a door, on an asyncio loop, that is opened again when it breaks."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: str,
        hear: Callable[[bytes], None],
        up: Callable[[], None],
    ) -> None:
        self._loop, self._path = loop, path
        self._hear, self._on_up = hear, up
        self._channel: Channel | None = None
        self._try_s = TRY_S
        self._next_try: asyncio.Handle | None = loop.call_soon(self._try)

    @property
    def up(self) -> bool:
        """Whether a door is connected now."""
        return self._channel is not None

    def _try(self) -> None:
        """Connect, now or in a while."""
        channel = Channel.to(self._path, message_bytes_max=HEARD_BYTES_MAX)
        if channel is None:
            self._try_later()
            return
        self._next_try = None
        self._channel = channel
        self._loop.add_reader(channel.fileno(), self._ready, channel)
        self._on_up()

    def say(self, raw: bytes) -> bool:
        """Send; False when nobody is connected."""
        channel = self._channel
        if channel is None:
            return False
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

    def hear(self) -> None:
        """Hear what has come, before the loop gets to it."""
        if self._channel is not None:
            self._ready(self._channel)

    def _ready(self, channel: Channel) -> None:
        try:
            heard = channel.hear()
        except Broken:
            self._broke(channel)
            return
        for raw in heard:
            self._try_s = TRY_S  # Somebody is there, and takes us.
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
        """Let go; what was said just now still arrives."""
        if self._next_try is not None:
            self._next_try.cancel()
        self._let_go()
