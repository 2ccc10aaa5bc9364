"""Where a key lives: the slot of an entity, the shard of a slot, at a version.

The slot of an entity never changes; who owns the slot is written in the placement,
whose versions are adopted one by one.

Pure. Idea: docs/streams.md.
"""

from __future__ import annotations

from collections.abc import Iterable

import xxhash

from skerry.runtime.core.events import SLOTS, Placement, SlotId

_hash = xxhash.xxh3_64_intdigest


def slot_of(type_name: str, key: str) -> SlotId:
    """The slot of an entity: the same in every process and release."""
    return SlotId(_hash(f"{type_name}\0{key}".encode()) % SLOTS)


def slots_of(type_name: str, keys: Iterable[str]) -> list[int]:
    """The same for many keys of a type."""
    name = f"{type_name}\0".encode()
    return [number % SLOTS for number in map(_hash, map(name.__add__, map(str.encode, keys)))]


def balanced(members: list[int], *, version: int, next_id: int) -> Placement:
    """A placement that deals the slots out evenly."""
    slots = [members[slot % len(members)] for slot in range(SLOTS)]
    return Placement(version=version, members=members, slots=slots, next_id=next_id)
