"""Which way a message goes: to an entity here, by the shard's own stream, to a peer, or to wait.

Each shard that messages go to has one buffer, which becomes frames when the batch is sealed.
A message to an entity of this shard needs none, unless it is queued: while the shard's own
stream holds messages that wait, what is sent locally joins it behind them, so that no later
message overtakes an earlier one of the same sender (I2).

Messages for a slot that is on its way here are parked until it has come. What is sent to a
slot that leaves goes to its new owner, though what comes for it from elsewhere still runs here.

No I/O. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from skerry.runtime.core.buffer import Buffer, Messages, Runs
from skerry.runtime.core.ownership import Ownership, slots_of

PARKED = -1
"""Stands for a shard where messages are parked. No shard has this id."""


class Routing:
    """The ways out of one shard, and what the open batch has put on them."""

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self._buffers: dict[int, Buffer] = {}
        self.filled: dict[int, Buffer] = {}
        """The buffers of the shards that this batch has messages for."""
        self.queueing = False
        """Whether local messages must join the shard's own stream."""
        self.parked = Buffer(PARKED, {})
        """Messages of the open batch for slots that are on their way here."""

    def begin(self) -> None:
        """Begin a batch, or begin it again."""
        for buffer in self.filled.values():
            buffer.reset()
        self.filled.clear()
        self.parked.reset()

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
        """The buffer for messages to a slot; None when this shard serves it."""
        ownership = self._ownership
        if ownership.serves(slot):
            return None
        owner = ownership.owner(slot)
        return self.parked if owner == ownership.me else self.buffer(owner)

    @property
    def diverting(self) -> bool:
        """Whether messages to some entities here go to other shards."""
        return bool(self._ownership.leaving)

    def staying(self, messages: Messages) -> Messages:
        """Send what turns have sent to leaving slots to the new owners; return the other messages."""
        if not self.diverting:
            return messages
        ownership, head, kept = self._ownership, messages.head, Runs()
        for slot, (key, entry, extra) in zip(slots_of(head.type, messages.keys), messages.each()):
            leaves = slot in ownership.leaving
            (self.buffer(ownership.owner(slot)) if leaves else kept).add(head, key, entry, extra)
        return next(iter(kept.take()), Messages(head, [], [], []))
