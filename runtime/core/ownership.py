"""Where a key lives: the slot of an entity, and the shard that serves a slot.

The slot of an entity never changes. The owner of a slot is written in the placement, which
has versions. A shard has one `Ownership`, and whatever it asks about slots it asks there: so
a slot changes hands in one place.

Between the versions a slot is on its way. Its old owner serves it until all has run that was
sent there, though new messages go to the new owner; the new owner serves it when it has all
its rows. So owning a slot and serving it are two questions.

Pure. Ideas: docs/ideas/streams.md, docs/ideas/moves.md. Asserts I5.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

from skerry.runtime.core.events import SLOTS, SlotId
from skerry.runtime.core.placement import Placement

_hash = xxhash.xxh3_64_intdigest


def slot_of(type_name: str, key: str) -> SlotId:
    """Return the slot of an entity: the same in every process and release."""
    return SlotId(_hash(f"{type_name}\0{key}".encode()) % SLOTS)


def slots_of(type_name: str, keys: Iterable[str]) -> list[int]:
    """Return the slot of each key of a type."""
    name = f"{type_name}\0".encode()
    return [number % SLOTS for number in map(_hash, map(name.__add__, map(str.encode, keys)))]


def balanced(members: list[int], *, version: int, next_id: int) -> Placement:
    """Return a placement that deals the slots out evenly."""
    slots = [members[slot % len(members)] for slot in range(SLOTS)]
    return Placement(version=version, members=members, slots=slots, next_id=next_id)


class Ownership:
    """The placement as one shard sees it: which slots it serves, and who owns the others.

    Args:
        leaving, arriving: slots that were on their way when the shard was last open.
    """

    def __init__(
        self,
        me: int,
        placement: Placement,
        *,
        leaving: Iterable[int] = (),
        arriving: Iterable[int] = (),
    ) -> None:
        self.me, self.placement = me, placement
        self.members = frozenset(placement.members)
        """The shards of the app."""
        self.leaving = frozenset(leaving)
        """Slots of other shards that are served here until all has run that was sent here."""
        self.arriving = frozenset(arriving)
        """Slots of this shard whose rows are on their way to it."""
        self.served = (self._owned(placement) - self.arriving) | self.leaving
        """The slots whose turns run here."""

    def _owned(self, placement: Placement) -> frozenset[int]:
        return frozenset(placement.of(self.me))

    @property
    def version(self) -> int:
        """The version of the placement."""
        return self.placement.version

    def owner(self, slot: int) -> int:
        """Return the shard that owns a slot: it serves the slot, or is about to."""
        return self.placement.slots[slot]

    def serves(self, slot: int) -> bool:
        """Whether turns of this slot run here."""
        return slot in self.served

    def serves_all(self, slots: Iterable[int]) -> bool:
        """Whether turns of all these slots run here."""
        return self.served.issuperset(slots)

    # ── slots on their way ──

    def adopt(self, placement: Placement) -> dict[int, int]:
        """Go by the next placement. Returns the slots that have another owner now, with the old one."""
        assert placement.version == self.version + 1, f"version {placement.version} skips one"
        assert not self.leaving and not self.arriving, "I5: a move begins before the last has ended"
        both = zip(self.placement.slots, placement.slots)
        moved = {slot: old for slot, (old, new) in enumerate(both) if old != new}
        before, owned = self._owned(self.placement), self._owned(placement)
        self.placement, self.members = placement, frozenset(placement.members)
        self.leaving, self.arriving = before - owned, owned - before
        return moved

    def stop(self, slots: frozenset[int]) -> None:
        """Serve leaving slots no longer."""
        assert slots <= self.leaving, "I5: a slot stops that does not leave"
        self.leaving -= slots
        self.served -= slots

    def serve(self, slots: Iterable[int]) -> None:
        """Serve slots that have arrived."""
        arrived = frozenset(slots)
        assert arrived <= self.arriving, "I5: a slot is served that is not on its way here"
        self.arriving -= arrived
        self.served |= arrived
