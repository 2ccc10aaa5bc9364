"""Where a key lives: the slot of an entity, and the shard that serves a slot.

The slot of an entity never changes. The owner of a slot is written in the placement, which
has versions. A shard has one `Ownership`, and whatever it asks about slots it asks there: so
a slot changes hands in one place, when that comes.

Pure. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

from skerry.runtime.core.events import SLOTS, Placement, SlotId

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
    """The placement as one shard sees it: which slots it serves, and who owns the others."""

    def __init__(self, me: int, placement: Placement) -> None:
        self.me, self.placement = me, placement
        self.members = frozenset(placement.members)
        """The shards of the app."""
        self.served = frozenset(s for s, owner in enumerate(placement.slots) if owner == me)
        """The slots whose turns run here."""

    @property
    def version(self) -> int:
        """The version of the placement."""
        return self.placement.version

    def owner(self, slot: int) -> int:
        """Return the shard that serves a slot."""
        return self.placement.slots[slot]

    def serves(self, slot: int) -> bool:
        """Whether turns of this slot run here."""
        return slot in self.served

    def serves_all(self, slots: Iterable[int]) -> bool:
        """Whether turns of all these slots run here."""
        return self.served.issuperset(slots)
