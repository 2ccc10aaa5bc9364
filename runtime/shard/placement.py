"""Where a key lives: the slot of an entity, the shard of a slot, at a version.

The slot of an entity never changes; who owns the slot is written in the placement,
whose versions are adopted one by one. Looking a key up must cost next to nothing, so
routes are kept per type in a bounded dict.

Pure but for that dict. Idea: docs/streams.md.
"""

from __future__ import annotations

import xxhash

from skerry.runtime.shard.events import SLOTS, Placement, ShardId, SlotId

ROUTES_MAX = 1 << 20
"""Routes remembered per type: about 100 MB at most; past it they are made anew."""

_hash = xxhash.xxh3_64_intdigest


def slot_of(type_name: str, key: str) -> SlotId:
    """The slot of an entity: the same in every process and release."""
    return SlotId(_hash(f"{type_name}\0{key}".encode()) % SLOTS)


def balanced(members: list[int], *, version: int, next_id: int) -> Placement:
    """A placement that deals the slots out evenly."""
    slots = [members[slot % len(members)] for slot in range(SLOTS)]
    return Placement(version=version, members=members, slots=slots, next_id=next_id)


class Routes(dict[str, ShardId]):
    """Key to shard, for one entity type. A missing key is computed on first use."""

    __slots__ = ("_slots", "_type")

    def __init__(self, type_name: str, placement: Placement) -> None:
        self._type = type_name
        self._slots = placement.slots

    def __missing__(self, key: str) -> ShardId:
        if len(self) >= ROUTES_MAX:
            self.clear()
        owner = ShardId(self._slots[slot_of(self._type, key)])
        self[key] = owner
        return owner
