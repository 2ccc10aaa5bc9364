"""Slots that move while messages flow: what is promised holds wherever anything dies."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from skerry.message import message
from skerry.runtime.app import placer
from skerry.runtime.core.events import SLOTS
from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.faults import POINTS
from skerry.testing import NO_FAULTS, Faults
from tests.simulation import workload
from tests.simulation.apps import Account, Sender, app
from tests.simulation.workload import check_emitted, check_order
from tests.simulation.world import World

MOVES = World(scales=6)
"""Shards come and go all the time."""

WEIGHS = World(scales=2, weighs=10)
"""Slots move between shards that stay, mostly."""

QUIET = Faults(crash=0, lose=0.02, repeat=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2012))
def test_what_is_promised_holds_while_shards_come_and_go(seed: int) -> None:
    cluster = workload.run(seed, world=MOVES)
    assert cluster.points["placements"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2200, 2208))
def test_what_is_promised_holds_while_slots_move_by_load(seed: int) -> None:
    cluster = workload.run(seed, world=WEIGHS)
    assert cluster.points["placements"] > 0


def test_slots_that_have_moved_by_load_stay_until_the_number_of_shards_changes() -> None:
    cluster = started(4, 2, QUIET)
    before = list(cluster.placement.slots)
    while not cluster.points["moved by load"]:
        cluster.weigh()
        cluster.run(20)
    cluster.settle()
    assert cluster.placement.slots != before
    cluster.scale(3)
    checked(cluster)
    counts = [cluster.placement.slots.count(shard) for shard in cluster.placement.members]
    assert max(counts) - min(counts) <= 1


def test_a_change_of_the_number_of_shards_takes_the_place_of_a_move_by_load() -> None:
    cluster = started(5, 2)
    cluster.settle()
    cluster.crash(1)
    cluster.machine(1).down_until = cluster.step_no + 200
    while not cluster.mover.moves:
        cluster.weigh()
    cluster.scale(3)
    checked(cluster)
    assert len(cluster.placement.members) == 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101, 111, *range(2101, 2105), 2106])
def test_a_scan_sees_once_what_stood_while_slots_move(seed: int) -> None:
    """Slots are read where they are by then."""
    cluster = workload.run(seed, world=World(scans=0.3, scales=6))
    assert cluster.points["scans beside writes"] > 0


def started(seed: int, shards: int, faults: Faults = NO_FAULTS) -> Cluster:
    """A cluster with senders under way, whose messages must come in order."""
    cluster = Cluster(app(drums=2, beats=workload.BEATS), seed=seed, shards=shards, faults=faults)
    for n in range(workload.SENDERS):
        cluster.ask(message(Sender.at(f"s{n}").begin, 8))
    for n in range(workload.ACCOUNTS):
        cluster.ask(message(Account.at(f"a{n}").deposit, 100))
    return cluster


def checked(cluster: Cluster) -> None:
    """All that was sent has come, once and in order."""
    cluster.settle()
    check_order(cluster)
    check_emitted(cluster)
    states = [cluster.state("Account", f"a{n}") for n in range(workload.ACCOUNTS)]
    assert [state.balance for state in states] == [100] * workload.ACCOUNTS


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("whom", ["each alone", "two at once", "all at once"])
def test_a_kill_at_any_step_of_a_move_loses_doubles_and_turns_nothing_around(
    point: str, whom: str
) -> None:
    """The commits of a move are counted, and a kill comes at each of them in turn."""
    kill: dict[str, Callable[[Cluster, int], list[int]]] = {
        "each alone": lambda cluster, n: [cluster.machines[n % len(cluster.machines)].id],
        "two at once": lambda cluster, n: [
            cluster.machines[n % len(cluster.machines)].id,
            cluster.machines[(n + 1) % len(cluster.machines)].id,
        ],
        "all at once": lambda cluster, n: [machine.id for machine in cluster.machines],
    }
    for step in range(1, 60, 12):
        cluster = started(step, 2, QUIET)
        cluster.run(20)
        cluster.scale(3)
        cluster.run(step)
        for id in kill[whom](cluster, step):
            cluster.machine(id).dies_at = point
        cluster.run(30)
        cluster.scale(2)
        cluster.run(step)
        for id in kill[whom](cluster, step + 1):
            cluster.machine(id).dies_at = point
        checked(cluster)


def test_a_slot_moves_again_and_again_and_comes_back_to_where_it_was() -> None:
    cluster = started(1, 1, QUIET)
    for shards in (2, 1, 3, 2, 1, 4, 1):
        cluster.run(40)
        cluster.scale(shards)
    checked(cluster)
    assert len(cluster.placement.members) == 1
    assert cluster.points["retired"] >= 4


def test_an_id_is_never_used_again() -> None:
    cluster = started(2, 1)
    seen = set(cluster.placement.members)
    for shards in (3, 1, 3, 1, 2):
        before = {machine.id for machine in cluster.machines}
        cluster.scale(shards)
        new = {machine.id for machine in cluster.machines} - before
        assert not new & seen
        seen |= new
        cluster.settle()
    checked(cluster)


def test_a_shard_that_is_down_holds_up_the_next_version_and_no_slot_waits_for_it() -> None:
    cluster = started(3, 3)
    cluster.settle()
    cluster.crash(1)
    cluster.machine(1).down_until = cluster.step_no + 400
    cluster.scale(4)
    version = cluster.placement.version
    cluster.run(300)
    assert cluster.placement.version == version
    asked = cluster.ask(message(Account.at("a0").deposit, 1), caller=0)
    cluster.run(60)
    assert asked in cluster.outcomes or cluster.owner("Account", "a0") == 1
    cluster.settle()
    assert len(cluster.placement.members) == 4


def test_a_shard_that_is_not_wanted_any_more_leaves_when_nothing_is_copied_to_it() -> None:
    """Copies follow each change; a frame to a shard that has left would never be acked."""
    one = placer.first(1)
    named = placer.towards(one, [0, 1], 10)
    assert named is not None and named.coming
    given_up = placer.towards(named, [0], 10)
    assert given_up is not None
    assert (given_up.members, given_up.coming, given_up.slots) == ([0, 1], {}, one.slots)
    left = placer.towards(given_up, [0], 10)
    assert left is not None and left.members == [0]
    assert placer.towards(left, [0], 10) is None


@pytest.mark.parametrize("seed", range(6))
def test_placements_come_to_the_goal_in_small_versions_and_move_no_more_than_needed(
    seed: int,
) -> None:
    rng = random.Random(seed)
    placement = placer.first(rng.randint(1, 9))
    for _ in range(6):
        goal = sorted(
            {m for m in placement.members if rng.random() < 0.6}
            | set(range(placement.next_id, placement.next_id + rng.randint(1, 5)))
        )
        slots_max, moved, changes = rng.choice([1, 7, 64, SLOTS]), 0, rng.choice([0, 0.1, 0.5])
        before, first = list(placement.slots), goal
        while (found := placer.towards(placement, goal, slots_max)) is not None:
            if rng.random() < changes:  # Another goal, on the way there.
                goal = sorted(rng.sample(goal, rng.randint(1, len(goal))))
            changed = sum(a != b for a, b in zip(placement.slots, found.slots))
            assert changed <= slots_max
            assert found.version == placement.version + 1
            if len(found.members) < len(placement.members):
                assert not changed, "a version that removes members moves nothing"
                assert not placement.coming, "nor is anything copied to them any more"
            moved += changed
            placement = found
        assert placement.members == goal
        counts = [placement.slots.count(shard) for shard in goal]
        assert max(counts) - min(counts) <= 1
        share = SLOTS / len(goal)
        needed = sum(
            max(0, before.count(m) - share) if m in goal else before.count(m) for m in set(before)
        )
        assert moved <= needed + len(goal) or goal != first
