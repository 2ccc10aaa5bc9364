"""Which way a message goes: to an entity here, by the shard's own stream, or to a peer.

Each shard that messages go to has one buffer, which becomes frames when the batch is sealed.
A message to an entity of this shard needs none, unless it is queued: while the shard's own
stream holds messages that wait, what is sent locally joins it behind them, so that no later
message overtakes an earlier one of the same sender (I2).

No I/O. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from skerry.runtime.core.buffer import Buffer
from skerry.runtime.core.ownership import Ownership


class Routing:
    """The ways out of one shard, and what the open batch has put on them."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self._buffers: dict[int, Buffer] = {}
        self.filled: dict[int, Buffer] = {}
        """The buffers of the shards that this batch has messages for."""
        self.queueing = False
        """Whether local messages must join the shard's own stream."""

    def begin(self) -> None:
        """Begin a batch, or begin it again."""
        for buffer in self.filled.values():
            buffer.reset()
        self.filled.clear()

    def buffer(self, shard: int) -> Buffer:
        """The buffer of messages to a shard."""
        found = self._buffers.get(shard)
        if found is None:
            found = self._buffers[shard] = Buffer(shard, self.filled)
        return found

    @property
    def own(self) -> Buffer:
        """The buffer of the shard's own stream."""
        return self.buffer(self._ownership.me)

    def elsewhere(self, slot: int) -> Buffer | None:
        """The buffer of the shard that owns a slot; None when this one does."""
        owner = self._ownership.owner(slot)
        return None if owner == self._ownership.me else self.buffer(owner)
