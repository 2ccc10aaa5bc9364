"""What the placer decides: how many shards, which slots each serves, which core a worker keeps to."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.app import placer
from skerry.runtime.core.events import SLOTS


@given(first=st.integers(1, 40), steps=st.lists(st.integers(1, 40), max_size=5))
def test_every_placement_deals_all_slots_evenly_to_shards_that_are_new(
    first: int, steps: list[int]
) -> None:
    placements = [placer.first(first)]
    for shards in steps:
        old = placements[-1]
        members = [old.next_id + 2 * n for n in range(shards)]
        placements.append(placer.after(old, members))
    ids = [shard for placement in placements for shard in placement.members]
    assert len(ids) == len(set(ids))
    for version, placement in enumerate(placements, 1):
        slots = Counter(placement.slots)
        assert placement.version == version
        assert len(placement.slots) == SLOTS and set(slots) == set(placement.members)
        assert max(slots.values()) - min(slots.values()) <= 1


def test_workers_keep_to_a_core_each_only_when_they_are_as_many_as_the_cores() -> None:
    assert [placer.core_of(worker, 3, [3, 5, 7]) for worker in range(3)] == [3, 5, 7]
    assert placer.core_of(0, 4, [3, 5, 7]) is None
    assert placer.core_of(0, 2, [3, 5, 7]) is None
