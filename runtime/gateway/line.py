"""One socket to one door: says and hears, and knows whether anybody is there.

A line promises nothing. While no door answers, nothing is queued: what could not be said is
refused at once, and `up` is called when there is somebody to say it to. So a door that was
away never finds a heap of old messages, and its callers learn that it was away.

The descriptor of a ZeroMQ socket is edge-triggered: it wakes us once, for messages and for
connections alike, so all that is there is heard before we sleep again, also after sending.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import zmq

HEAR_MAX = 64
"""Messages heard before others on this loop have their turn."""

LINGER_MS = 200
"""How long a closing line may take for its last words."""


class Line:
    """A DEALER socket on an asyncio loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        path: str,
        hear: Callable[[bytes], None],
        up: Callable[[], None],
    ) -> None:
        self._loop, self._hear, self._on_up = loop, hear, up
        self.up = False
        """Whether a door is connected now."""
        self._socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, LINGER_MS)
        self._socket.setsockopt(zmq.IMMEDIATE, 1)
        # Without a high-water mark writable means connected; what is unanswered is
        # bounded by those who ask.
        self._socket.setsockopt(zmq.SNDHWM, 0)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 20)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.connect(f"ipc://{path}")
        self._fd = int(self._socket.getsockopt(zmq.FD))
        loop.add_reader(self._fd, self._ready)
        loop.call_soon(self._ready)

    def say(self, raw: bytes) -> bool:
        """Send; False when nobody is connected."""
        try:
            self._socket.send(raw, zmq.NOBLOCK)
        except zmq.Again:
            self.up = False
            return False
        # What came while we sent makes no new edge.
        self._loop.call_soon(self._ready)
        return True

    def _ready(self) -> None:
        """Hear what has come, and notice who came or went."""
        for _ in range(HEAR_MAX):
            if self._socket.closed:
                return
            try:
                raw = self._socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
            self._hear(raw)
        if self._socket.closed:
            return
        events = int(self._socket.getsockopt(zmq.EVENTS))
        was_up, self.up = self.up, bool(events & zmq.POLLOUT)
        if events & zmq.POLLIN:
            self._loop.call_soon(self._ready)
        if self.up and not was_up:
            self._on_up()

    def close(self) -> None:
        """Let go; what was said just now still leaves."""
        if not self._socket.closed:
            self._loop.remove_reader(self._fd)
            self._socket.close()
