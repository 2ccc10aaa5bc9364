"""Which slots a shard serves, and that its driver is told so."""

from __future__ import annotations

import msgspec

from skerry.runtime.core.events import SLOTS, Adopt, Durable, Table, Ticked
from skerry.runtime.core.ownership import Ownership, balanced
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.tables.positions import PositionRow, partition_slot
from skerry.runtime.simulator.disk import MemoryStore

PLACEMENT = balanced([3, 5], version=7, next_id=6)


def test_every_slot_is_served_by_its_owner_and_by_no_other_shard() -> None:
    here, there = Ownership(3, PLACEMENT), Ownership(5, PLACEMENT)
    assert here.served.isdisjoint(there.served)
    assert here.served | there.served == set(range(SLOTS))
    for slot in range(SLOTS):
        assert here.serves(slot) == (here.owner(slot) == 3)
        assert there.serves(slot) == (there.owner(slot) == 5)
    assert here.serves_all(sorted(here.served))
    assert not here.serves_all([*here.served, min(there.served)])


def adopted(shard: Shard) -> list[Adopt]:
    """What the driver was told to serve since it last asked."""
    return [effect for effect in shard.take_effects() if isinstance(effect, Adopt)]


def test_the_driver_is_told_once_what_to_read_when_the_opening_is_durable() -> None:
    store, slot = MemoryStore(), partition_slot("lines", "0")
    me = PLACEMENT.slots[slot]
    settings = Settings(me=me, incarnation=bytes(16), placement=PLACEMENT, types={}, pipelines={})
    shard = Shard(settings, store, store.last)
    shard.accept(Ticked(10**18, 10**18))
    row = msgspec.msgpack.encode(PositionRow("lines", "0", 41))
    shard.positions.load([(Table.POSITION, slot.to_bytes(2, "big"), row)])
    opening = shard.open()
    store.append(opening)
    assert adopted(shard) == []
    for _ in range(2):
        shard.accept(Durable(opening.no))
    (adopt,) = adopted(shard)
    assert adopt.slots == shard.ownership.served
    assert adopt.positions == {("lines", "0"): 41}
