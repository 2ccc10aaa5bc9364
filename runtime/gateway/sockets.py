"""The worker's end of the clients' line: many callers, one list of events for the shard.

A door is a ROUTER socket that the worker polls with its others. Each wake-up drains many
messages at once, and each round's outcomes leave as one message per caller. Nothing here
is a promise: what is lost is asked again by its caller, and counted once by the shard.

What a stranger sends is refused with a sentence and reaches nobody. Never blocks.
Idea: docs/clients.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import zmq

from skerry.runtime.gateway import words
from skerry.runtime.gateway.words import Caller, Control
from skerry.runtime.shard.events import Confirmed, Reply, Requested

DRAIN_MAX = 64
"""Messages taken per wake-up; what is left wakes us again, after a batch has run."""


class Door:
    """The ROUTER socket of one worker."""

    def __init__(self, path: Path) -> None:
        self._context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.MAXMSGSIZE, words.PACKET_BYTES_MAX)
        # A killed worker leaves its file behind; the store's lock says that it is gone.
        path.unlink(missing_ok=True)
        self.socket.bind(f"ipc://{path}")
        self.fd = int(self.socket.getsockopt(zmq.FD))

    def close(self) -> None:
        """Let go of the socket; what was not sent yet is asked for again."""
        self.socket.close()
        self._context.term()

    # ── in ──

    def receive(self) -> list[Requested | Confirmed | Control]:
        """What has come, in order; at most `DRAIN_MAX` messages of it."""
        found: list[Requested | Confirmed | Control] = []
        for _ in range(DRAIN_MAX):
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if len(parts) != 2:
                self._refuse(parts[0], 0, f"a message has one part, this one {len(parts) - 1}")
                continue
            caller, raw = parts
            try:
                found += words.events(caller, words.decode_call(raw))
            # A stranger's bytes may also nest too deep for the decoder, or not be text.
            except (msgspec.DecodeError, ValueError, RecursionError) as error:
                self._refuse(caller, _number_in(raw), str(error))
        return found

    # ── out ──

    def replies(self, replies: Iterable[Reply]) -> None:
        """Outcomes, one message per caller."""
        for caller, outcomes in words.outcomes(replies):
            self._send(caller, outcomes)

    def answer(self, caller: Caller, n: int, value: Any) -> None:
        """The value that call `n` asked for."""
        self._send(caller, words.Answer(n, value))

    def error(self, caller: Caller, n: int, error: Exception) -> None:
        """Call `n` could not be answered."""
        self._send(caller, words.Refusal(n, type(error).__name__, str(error)))

    def welcome(self, caller: Caller, greeting: Mapping[str, Any]) -> None:
        """Who we are, for a caller that said hello."""
        self._send(caller, ["welcome", greeting])

    def _refuse(self, caller: Caller, n: int, why: str) -> None:
        text = f"This door can't read that message: {why}. Use a client of the app's own release."
        self._send(caller, words.Refusal(n, "InvalidMessage", text))

    def _send(self, caller: Caller, word: object) -> None:
        # A caller that is gone or does not read costs nothing: what it misses it asks again.
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            self.socket.send_multipart((caller, words.encode(word)), zmq.NOBLOCK)


def _number_in(raw: bytes) -> int:
    """The number of a call that could not be read otherwise, so that its caller need not wait."""
    try:
        call = msgspec.msgpack.decode(raw)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return 0
    numbered = isinstance(call, list) and len(call) > 1 and type(call[1]) is int
    return call[1] if numbered and abs(call[1]) < 2**63 else 0
