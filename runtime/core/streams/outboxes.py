"""Outboxes of all streams: which hold frames without an ack, and whether that is too much.

What is looked at in each commit or tick are these lists, never all streams. A shard with too many
unacked bytes is under backpressure: it takes in nothing from outside until peers have acked.

No I/O, no clock. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from skerry.runtime.core.events import Row
from skerry.runtime.core.streams.outbound import Outbound, Sealed

PRESSED_BYTES = 64 << 20
"""Unacked bytes to one peer above which intake from outside pauses."""

MOVING_BYTES = 1 << 20
"""The same while slots are on their way: they wait until what is unacked now is acked."""

PRESSED_BYTES_OF_ALL = 1 << 30
"""Unacked bytes to all peers together above which it pauses."""


class Outboxes:
    """The outboxes of a shard's streams."""

    def __init__(self) -> None:
        self.unacked: dict[int, Outbound] = {}
        """Streams with frames in their outbox, by peer."""
        self._bytes = 0
        self.moving = False
        """Whether slots are on their way from this shard or to it."""
        self._released: dict[int, Outbound] = {}
        """Streams with frames that were acked; the next commit deletes their rows."""
        self._bulky: dict[int, Outbound] = {}
        """Streams with more bodies in memory than they may have."""

    @property
    def full(self) -> bool:
        """Whether too much is unacked."""
        if self._bytes > PRESSED_BYTES_OF_ALL:
            return True
        most = MOVING_BYTES if self.moving else PRESSED_BYTES
        return self._bytes > most and any(
            stream.unacked_bytes > most for stream in self.unacked.values()
        )

    def loaded(self, stream: Outbound) -> None:
        """Count what a stream has in its outbox after a restart."""
        self._bytes += stream.unacked_bytes
        self._note(stream)

    def seal(self, stream: Outbound, bodies: list[tuple[bytes, int]]) -> list[Sealed]:
        """Number frames of a stream."""
        frames = [stream.seal(body, count) for body, count in bodies]
        self._bytes += sum(len(body) for body, _ in bodies)
        self._note(stream)
        self._released.pop(stream.peer, None)
        return frames

    def release(self, stream: Outbound, upto: int) -> bool:
        """The receiver has everything up to `upto` durable. Whether that was news."""
        before = stream.unacked_bytes
        if not stream.acked(upto):
            return False
        self._bytes -= before - stream.unacked_bytes
        self._released[stream.peer] = stream
        self._note(stream)
        return True

    def forget(self, stream: Outbound) -> list[Row]:
        """Forget a stream whose frames were all acked: the deletion of those that still have a row."""
        self.release(stream, stream.sealed)
        self._released.pop(stream.peer, None)
        self._bulky.pop(stream.peer, None)
        return stream.rows([])

    def rows_of_released(self) -> list[Row]:
        """Delete acked frames, of the streams whose row is not in this commit yet."""
        rows: list[Row] = []
        for stream in self._released.values():
            rows += stream.rows([])
        self._released.clear()
        for peer, stream in list(self._bulky.items()):
            stream.spill()
            if not stream.bulky:
                del self._bulky[peer]
        return rows

    def _note(self, stream: Outbound) -> None:
        """Keep the lists: an outbox has changed."""
        peer = stream.peer
        if stream.outbox:
            self.unacked[peer] = stream
        else:
            self.unacked.pop(peer, None)
        if stream.bulky:
            self._bulky[peer] = stream
