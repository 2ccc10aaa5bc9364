"""Frames that have come and wait to be run: whose turn it is, and who has to wait.

The shard's own stream comes first, up to a frame that may lie behind what peers have sent; then
each peer has its turn. A frame that left by a version of the placement that is not adopted here
waits until it is: no shard runs what was sent by a placement that it does not know (I2).

Pure. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from collections import deque

from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.streams.inbound import Inbound


class Arrivals:
    """The streams on which frames wait."""

    def __init__(self, ownership: Ownership, own: Inbound) -> None:
        self._ownership = ownership
        self.own = own
        """The shard's own stream."""
        self.first = 0
        """Own frames up to this number run before any peer's: what was dealt to this shard or parked
        here comes before what peers have sent since (I2)."""
        self.ready: deque[Inbound] = deque()
        """Streams of peers on which frames wait, each once, in the order of their turn."""
        self._ahead: dict[int, Inbound] = {}
        """Streams whose oldest frame left by a version that is news here."""

    def __bool__(self) -> bool:
        return bool(self.ready or self._ahead or self.own.waiting)

    def wait(self, stream: Inbound) -> None:
        """Let the frames of a stream wait for their turn, or for their version."""
        if stream.waiting[0].placement > self._ownership.version:
            self._ahead[stream.peer] = stream
        else:
            self.ready.append(stream)

    def adopted(self) -> None:
        """Let run what has waited for the version that was adopted."""
        ahead, self._ahead = self._ahead, {}
        for stream in ahead.values():
            self.wait(stream)

    def run_own_first(self) -> None:
        """Let all that has come on the shard's own stream run before any peer's frames."""
        self.first = self.own.received
