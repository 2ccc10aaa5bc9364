"""The entities that a shard holds in memory, and which of them the open batch changed.

A key is looked up once: its location is the live entity, or the buffer of the shard that it
belongs to. A location that is missing is read from the store's newest sealed rows. Entities
leave the memory in the order in which they came (FIFO): tracking their use would cost every
turn more than an occasional reload.

No I/O but `Committed`. Idea: docs/ideas/entities.md. Asserts I11.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from msgspec import Raw

from skerry.entity import Entity
from skerry.entity_type import EntityType
from skerry.errors import StoreDamaged
from skerry.limits import check_keys
from skerry.runtime.core.buffer import Buffer
from skerry.runtime.core.events import StateGroup
from skerry.runtime.core.ownership import slot_of, slots_of
from skerry.runtime.core.results import Raised
from skerry.runtime.core.settings import TURN_ERRORS

ENTITY_BYTES = 176
"""What a cached entity costs in memory beside its fields, about: its object, its key and its
entry in a dict that has room to grow."""

AWAY_BYTES = 130
"""What it costs to remember that a key belongs to another shard: the key and its entry."""

EVICTED_PART = 64
"""When the cache is full, about this part of it is evicted at once, not one location at a time."""

OBJECTS_BYTES = 4
"""How many bytes of objects a byte of an encoded state becomes, about."""

Location = Entity | Buffer
"""Where messages to a key go: a live entity of this shard, or the buffer of another."""


class Locations(dict[str, Location]):
    """Locations by key. A key that is looked up and not there is noted, and there is none then."""

    __slots__ = ("missing",)

    def __init__(self) -> None:
        self.missing: dict[str, None] = {}

    def __missing__(self, key: str) -> None:
        self.missing[key] = None


class Cached:
    """What the shard holds of one entity type in memory."""

    __slots__ = (
        "away",
        "dirty",
        "forgotten",
        "isolated",
        "locations",
        "name",
        "state_bytes",
        "type",
    )

    def __init__(self, entity_type: EntityType) -> None:
        self.type = entity_type
        self.name = entity_type.name
        self.locations = Locations()
        self.away = 0
        """How many of the locations are other shards."""
        self.dirty: dict[str, Entity] = {}
        """Changed in the open batch."""
        self.forgotten: set[str] = set()
        """Forgotten in the open batch; an entity may have come back since."""
        self.isolated = 0
        """For how many more batches the turns of this type run isolated."""
        self.state_bytes = 0.0
        """The mean size of the states seen lately, encoded."""

    @property
    def bytes(self) -> float:
        """The memory that the locations take, about."""
        return self.away * AWAY_BYTES + self.bytes_of(len(self.locations) - self.away)

    def bytes_of(self, entities: int) -> float:
        """The memory that so many entities take, about."""
        return entities * (ENTITY_BYTES + OBJECTS_BYTES * self.state_bytes)

    def shrink(self, bytes_max: int) -> None:
        """Evict the oldest locations until the rest fits in so many bytes."""
        size = self.bytes
        if size > bytes_max:
            locations = self.locations
            count = int(len(locations) * (1 - bytes_max / size)) + len(locations) // EVICTED_PART
            self.evict(list(islice(locations, count + 1)))

    def evict(self, keys: Iterable[str]) -> None:
        """Forget where these keys live. None of them is dirty."""
        for key in keys:
            if isinstance(self.locations.pop(key), Buffer):
                self.away -= 1

    def note_size(self, size: float) -> None:
        """Let the mean size follow what is seen."""
        self.state_bytes += (size - self.state_bytes) / 8


class Cache:
    """The entities of one shard that are in memory.

    Args:
        states: reads the newest sealed states of keys, each with its slot.
        schemas: reads the schema of an id.
        elsewhere: knows the buffer of the shard that owns a slot, None when this one does.
    """

    def __init__(
        self,
        types: Mapping[str, EntityType],
        *,
        states: Callable[[str, Sequence[str], Sequence[int]], list[bytes | None]],
        schemas: Callable[[int], bytes | None],
        elsewhere: Callable[[int], Buffer | None],
        bytes_max: int,
    ) -> None:
        self.types = {name: Cached(entity_type) for name, entity_type in types.items()}
        self._states, self._schemas, self._elsewhere = states, schemas, elsewhere
        self._bytes_max = bytes_max // max(1, len(types))

    # ── where keys live ──

    def location(self, cached: Cached, key: str) -> Location:
        """The location of a key. Raises what stands against loading its entity."""
        location = cached.locations[key]
        if location is None:
            self._find(cached)
            location = cached.locations[key]
        return location

    def locations(self, cached: Cached, keys: Sequence[str]) -> list[Location]:
        """The locations of keys. Raises Raised: one can't be a key, or can't be loaded."""
        try:
            known = cached.locations
            found = list(map(known.__getitem__, keys))
            if known.missing:
                self._find(cached)
                found = [known[k] if place is None else place for k, place in zip(keys, found)]
        except StoreDamaged:
            raise
        except Exception as error:
            cached.locations.missing.clear()
            unfit = isinstance(error, TypeError | ValueError)
            raise Raised(None if unfit else cached.name) from error
        assert not cached.locations.missing, "each location that was missing has been found"
        return found

    def buffers_of(self, type_name: str, keys: Iterable[str]) -> Iterator[Buffer | None]:
        """The buffer of the shard that each key lives on, None when it is this one. The type may be
        that of entities or of anything else that lives in slots."""
        cached, elsewhere = self.types.get(type_name), self._elsewhere
        known = {} if cached is None else cached.locations
        for key, location in zip(keys, map(known.get, keys)):
            if location is None:
                yield elsewhere(slot_of(type_name, key))
            else:
                yield location if isinstance(location, Buffer) else None

    def _find(self, cached: Cached) -> None:
        """Find the missing locations. Raises TypeError, ValueError: a key can't be one."""
        missing, cached.locations.missing = cached.locations.missing, {}
        keys = list(missing)
        check_keys(keys)
        own, own_slots = list[str](), list[int]()
        for key, slot in zip(keys, slots_of(cached.name, keys)):
            buffer = self._elsewhere(slot)
            if buffer is None:
                own.append(key)
                own_slots.append(slot)
            else:
                cached.locations[key] = buffer
                cached.away += 1
        for key, state in zip(own, self._states(cached.name, own, own_slots)):
            if state is None:
                cached.locations[key] = cached.type.new(key)
            else:
                cached.locations[key] = self.restore(cached, key, state)
                cached.note_size(len(state))

    # ── within a batch ──

    def restore(self, cached: Cached, key: str, state: bytes) -> Entity:
        """Make the entity anew from its state. Raises what stands against decoding it."""
        entity = cached.locations[key] = cached.type.decode(state, key, self._schemas)
        return entity

    def forget(self, cached: Cached, entity: Entity) -> None:
        """Remove an entity's state when the batch commits. Later messages meet the defaults, in the
        same object: the loop that is under way holds it as the location of its key."""
        fresh = cached.type.new(entity.key)
        for field in cached.type.fields:
            setattr(entity, field, getattr(fresh, field))
        cached.dirty.pop(entity.key, None)
        cached.forgotten.add(entity.key)

    def begin(self) -> None:
        """Begin a batch, or begin it again."""
        for cached in self.types.values():
            clean = not cached.dirty and not cached.forgotten
            assert clean, f"I11: a run of {cached.name} begins on what another run left"

    def states(self) -> tuple[list[StateGroup], list[list[Entity]]]:
        """The states that the batch changed, encoded, and their entities. Raises Raised for a state
        that would not come back as it is."""
        changed = [cached for cached in self.types.values() if cached.dirty or cached.forgotten]
        live = [list(cached.dirty.values()) for cached in changed]
        return list(map(self._states_of, changed, live)), live

    def _states_of(self, cached: Cached, live: list[Entity]) -> StateGroup:
        dirty = cached.dirty
        try:
            states = cached.type.seal(live)
        except TURN_ERRORS as error:
            raise Raised(cached.name) from error
        cached.note_size(len(states) / max(1, len(dirty)))
        gone = [key for key in cached.forgotten if key not in dirty]
        return StateGroup(cached.name, list(dirty), Raw(states), gone)

    def undo(self) -> None:
        """Throw away what the batch did to live objects."""
        for cached in self.types.values():
            for key in (*cached.dirty, *cached.forgotten):
                cached.locations.pop(key, None)
            cached.dirty.clear()
            cached.forgotten.clear()

    def sealed(self) -> None:
        """Make the batch count; what has no room is evicted."""
        for cached in self.types.values():
            if cached.dirty or cached.forgotten:
                cached.dirty.clear()
                cached.forgotten.clear()
                if cached.isolated:
                    cached.isolated -= 1
            cached.shrink(self._bytes_max)

    def drop(self, slots: Container[int]) -> None:
        """Forget where the keys of these slots live: their owner has changed."""
        for name, cached in self.types.items():
            keys = list(cached.locations)
            cached.evict(k for k, slot in zip(keys, slots_of(name, keys)) if slot in slots)
