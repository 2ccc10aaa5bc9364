"""Who owns each slot, at one version: what all shards of an app agree on.

Pure. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from msgspec import Struct


class Placement(Struct, frozen=True, array_like=True):
    """The owner of every slot, at a version. As an event it is the next version, and durable."""

    version: int
    members: list[int]
    """Ids of the shards. An id is never used again for another shard."""
    slots: list[int]
    """The owner of slot i, `SLOTS` of them."""
    next_id: int
    """Id of the next new member."""
    coming: dict[int, int] = {}
    """Slots that move with the next version, each with its next owner: their rows are copied to it
    while their owner serves them."""

    def of(self, shard: int) -> list[int]:
        """The slots that a shard owns."""
        return [slot for slot, owner in enumerate(self.slots) if owner == shard]
