"""Which slots move by load: it comes to rest, in small steps, and never makes things worse."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.runtime.app import placer
from skerry.runtime.app.balancing import (
    AHEAD,
    BUSY,
    BYTES_LOOKS,
    BYTES_MAX,
    FORGET,
    LOOKS,
    REST,
    SLOTS_MAX,
    Balancing,
    Transfer,
)
from skerry.runtime.config import HALF_LIFE
from skerry.runtime.core.demand import Load
from skerry.runtime.core.events import SLOTS
from skerry.runtime.core.placement import Placement


def reassigned(placement: Placement, owners: dict[int, int]) -> Placement:
    """The placement when these slots have moved, by versions that name them first."""
    while (found := placer.reassigned(placement, owners)) is not None:
        assert found.version == placement.version + 1
        moved = {s: b for s, (a, b) in enumerate(zip(placement.slots, found.slots)) if a != b}
        assert moved == placement.coming, "what moves was named, so that it was copied before"
        placement = found
    assert not placement.coming
    return placement


class Model:
    """An app whose slots have a constant load, measured as meters do: what was before fades."""

    def __init__(
        self, shards: int, slots: dict[int, float], *, slot_bytes: int = 0, fades: bool = True
    ) -> None:
        self.placement, self.slots, self.slot_bytes = placer.first(shards), slots, slot_bytes
        self.balancing = Balancing()
        self.left = 0.5 ** (1 / HALF_LIFE) if fades else 0.0
        self.measured = self.busy()
        self.parts = dict(slots)
        """What the meter of a slot's owner knows of it."""
        self.transfers: list[tuple[int, Transfer]] = []
        self.look = 0

    def busy(self) -> dict[int, float]:
        busy = dict.fromkeys(self.placement.members, 0.0)
        for slot, load in self.slots.items():
            busy[self.placement.slots[slot]] += load
        return busy

    def loads(self) -> dict[int, Load]:
        found = {}
        for shard in self.placement.members:
            slots = {s: p for s, p in self.parts.items() if self.placement.slots[s] == shard}
            found[shard] = Load(self.measured[shard], slots, slot_bytes=self.slot_bytes)
        return found

    def step(self) -> Transfer | None:
        """One look, and what comes of it."""
        self.look += 1
        real = self.busy()
        self.measured = {
            shard: self.measured[shard] * self.left + busy * (1 - self.left)
            for shard, busy in real.items()
        }
        self.parts = {
            slot: self.parts[slot] * self.left + load * (1 - self.left)
            for slot, load in self.slots.items()
        }
        found = self.balancing.look(self.placement, self.loads())
        if found is not None:
            owners = dict.fromkeys(found.slots, found.taker)
            assert all(self.placement.slots[slot] == found.giver for slot in found.slots)
            self.placement = reassigned(self.placement, owners)
            self.parts |= dict.fromkeys(found.slots, 0.0)
            self.balancing.moved(found.slots, self.slot_bytes * len(found.slots))
            self.transfers.append((self.look, found))
        return found

    def run(self, looks: int) -> None:
        for _ in range(looks):
            self.step()


anywhere = st.dictionaries(st.integers(0, SLOTS - 1), st.floats(0, 0.2), max_size=60)
on_one_shard = st.lists(st.floats(0.005, 0.1), max_size=60)


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Mostly uneven: the slots of shard 0 have more to do."""
    shards = draw(st.integers(1, 5))
    slots = draw(anywhere) | {shards * n: load for n, load in enumerate(draw(on_one_shard))}
    return Model(shards, slots, fades=draw(st.booleans()))


@settings(max_examples=60, deadline=None)
@given(model=models())
def test_a_constant_load_comes_to_rest_and_the_maximum_never_rises(model: Model) -> None:
    highest = max(model.busy().values())
    for _ in range(REST * 12):
        giver_before = model.busy()
        found = model.step()
        if found is not None:
            assert max(model.busy().values()) <= highest + 1e-9
            pair = (found.giver, found.taker)
            assert max(model.busy()[shard] for shard in pair) < giver_before[found.giver]
        highest = max(model.busy().values())
    settled = len(model.transfers)
    model.run(REST * 2)
    assert len(model.transfers) == settled, "it has come to rest"


@settings(max_examples=60, deadline=None)
@given(model=models())
def test_a_slot_that_has_moved_rests_and_under_a_constant_load_never_comes_back(
    model: Model,
) -> None:
    model.run(REST * 8)
    moves = [(look, slot) for look, found in model.transfers for slot in found.slots]
    last: dict[int, int] = {}
    for look, slot in moves:
        assert look - last.get(slot, -REST) >= REST
        last[slot] = look
    for slot, times in Counter(slot for _, slot in moves).items():
        assert times == 1 or len(model.placement.members) > 2, slot


@settings(max_examples=60, deadline=None)
@given(model=models(), slot_bytes=st.sampled_from([0, 1 << 10, 1 << 20, 16 << 20, 1 << 30]))
def test_no_more_moves_at_once_and_per_time_than_the_limits_say(
    model: Model, slot_bytes: int
) -> None:
    model.slot_bytes = slot_bytes
    model.run(REST * 6)
    for (look, found), (after, _) in zip(model.transfers, model.transfers[1:]):
        size = slot_bytes * len(found.slots)
        assert after - look >= max(FORGET + LOOKS - 1, size * BYTES_LOOKS // BYTES_MAX)
    for _, found in model.transfers:
        assert len(found.slots) <= SLOTS_MAX
        assert len(found.slots) == 1 or slot_bytes * len(found.slots) <= BYTES_MAX


def test_large_slots_move_one_by_one_with_a_pause_by_their_size() -> None:
    model = Model(2, dict.fromkeys(range(0, 40, 2), 0.04), slot_bytes=BYTES_MAX * 2)
    model.run(100)
    looks = [look for look, found in model.transfers if len(found.slots) == 1]
    assert len(looks) == len(model.transfers) >= 3
    assert all(after - look >= BYTES_LOOKS * 2 for look, after in itertools.pairwise(looks))


def test_a_slot_that_has_moved_rests_though_its_new_shard_is_the_busiest_now() -> None:
    placement, balancing = placer.first(3), Balancing()
    heavy = {0: 0.3, 3: 0.01}
    before = {0: Load(0.9, heavy), 1: Load(0.0), 2: Load(0.1)}
    while (found := balancing.look(placement, before)) is None:
        pass
    assert (found.slots, found.taker) == ([0, 3], 1)
    moved = reassigned(placement, dict.fromkeys(found.slots, 1))
    after = {0: Load(0.1), 1: Load(0.9, heavy), 2: Load(0.0)}
    assert [balancing.look(moved, after) for _ in range(REST - 1)] == [None] * (REST - 1)
    assert balancing.look(moved, after) is not None


def test_slots_of_one_size_on_one_shard_are_shared_until_it_is_nearly_even() -> None:
    model = Model(2, dict.fromkeys(range(0, 80, 2), 0.8 / 40))
    assert model.busy() == pytest.approx({0: 0.8, 1: 0.0})
    model.run(REST * 2)
    busy = sorted(model.busy().values())
    assert busy[1] <= AHEAD * sum(busy) / 2
    assert sum(len(found.slots) for _, found in model.transfers) <= 20


@pytest.mark.parametrize("others", [0.0, 0.1])
def test_one_hot_entity_is_carried_nowhere_though_its_neighbours_may_leave_it(
    others: float,
) -> None:
    model = Model(2, {0: 0.9, **dict.fromkeys(range(2, 42, 2), others / 20)})
    model.run(REST * 6)
    assert model.placement.slots[0] == 0
    settled = len(model.transfers)
    assert bool(settled) == (others > 0)
    model.run(REST * 6)
    assert len(model.transfers) == settled


def test_a_hot_entity_goes_once_where_that_relieves_many_others() -> None:
    model = Model(2, {0: 0.9, **dict.fromkeys(range(2, 42, 2), 0.5 / 20)})
    model.run(REST * 12)
    assert [found.slots for _, found in model.transfers] == [[0]]
    assert max(model.busy().values()) == pytest.approx(0.9)


def test_a_load_that_comes_and_goes_moves_nothing() -> None:
    model = Model(2, dict.fromkeys(range(10), 0.0), fades=False)
    for n in range(300):
        model.slots = dict.fromkeys(model.slots, 0.0)
        if n % LOOKS:  # Never so many looks in a row.
            model.slots |= {0: 0.3, 2: 0.3, 4: 0.2}
        assert model.step() is None


def test_what_is_hardly_busy_is_left_alone_however_uneven_it_is() -> None:
    model = Model(2, dict.fromkeys(range(0, 20, 2), BUSY / 11))
    model.run(100)
    assert not model.transfers


def test_a_load_that_is_even_enough_moves_nothing() -> None:
    model = Model(2, {0: 0.3, 2: 0.3, 1: 0.25, 3: 0.2})
    model.run(100)
    assert not model.transfers


def test_nothing_moves_while_a_member_does_not_say_its_load() -> None:
    placement = placer.first(3)
    loads = {0: Load(0.9, {0: 0.2, 3: 0.2}), 1: Load(0.1)}
    balancing = Balancing()
    assert not any(balancing.look(placement, loads) for _ in range(20))
    loads[2] = Load(0.1)
    found = [balancing.look(placement, loads) for _ in range(LOOKS)]
    assert found[:-1] == [None] * (LOOKS - 1) and found[-1] is not None


def test_slots_that_are_another_shards_by_now_do_not_move() -> None:
    placement = Placement(1, [0, 1], [1] * SLOTS, 2)
    loads = {0: Load(0.9, {0: 0.2, 3: 0.2}), 1: Load(0.1)}
    balancing = Balancing()
    assert not any(balancing.look(placement, loads) for _ in range(20))


def test_the_heaviest_slots_that_fit_go_so_few_have_to() -> None:
    model = Model(2, {0: 0.3, **dict.fromkeys(range(2, 62, 2), 0.01)})
    while (found := model.step()) is None:
        pass
    assert found.slots == [0]
    assert (found.giver, found.taker) == (0, 1)


def test_slots_too_light_to_matter_stay_though_they_would_fit() -> None:
    light = dict.fromkeys(range(2, 42, 2), 0.0001)
    model = Model(2, {0: 0.9, **light})
    model.run(100)
    assert not model.transfers
