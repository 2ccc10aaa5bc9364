"""The gate to the outside: what a batch says leaves when its commit is durable.

Replies, frames and acks of a batch wait here for its commit. What left before could be acted on,
and then a power cut would make the shard forget that it ever said it.

No I/O, no clock. Asserts I3, I4.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from skerry.runtime.core.events import Effect, Reply, Told
from skerry.runtime.core.streams.links import Streams


class Held(Struct, frozen=True):
    """What may leave when a commit is durable."""

    no: int
    replies: list[Reply | Told]
    sealed: list[tuple[int, int]]
    """(peer, frame) up to which frames may leave."""
    taken: dict[int, tuple[int, int]]
    """(frame, byte position) up to which each peer may be told that it is durable."""


class Gate:
    """What waits for commits. `durable`: the newest durable commit."""

    def __init__(self, durable: int, streams: Streams) -> None:
        self.durable, self._streams = durable, streams
        self._held: deque[Held] = deque()

    def hold(self, held: Held) -> list[Effect]:
        """Hold back what a batch says. Returns what may leave at once: its commit is durable."""
        if held.no > self.durable:
            self._held.append(held)
            return []
        assert not held.sealed, "I3: frames of a batch that has no commit"
        return list(held.replies)

    def release(self, no: int) -> list[Effect]:
        """Return what may leave now that this commit is durable."""
        self.durable = max(self.durable, no)
        effects: list[Effect] = []
        peers: dict[int, None] = {}
        while self._held and self._held[0].no <= no:
            held = self._held.popleft()
            for peer, seq in held.sealed:
                self._streams.outbound[peer].durable_upto(seq)
                peers[peer] = None
            for peer, (seq, position) in held.taken.items():
                self._streams.durable(peer, seq, position)
            effects += held.replies
        return effects + self._streams.speak(peers)
