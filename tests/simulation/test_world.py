"""The simulator's world, option by option: each happens, and every promise holds across it."""

from __future__ import annotations

from collections import Counter

import pytest

from skerry.message import message
from skerry.runtime.gateway import words
from skerry.runtime.shard.events import Table
from skerry.runtime.simulator.callers import Name
from skerry.runtime.simulator.cluster import Cluster
from skerry.testing import NO_FAULTS
from tests.simulation import workload
from tests.simulation.apps import Alarm, Tally, app
from tests.simulation.world import World, drawn

WORLDS = {
    "re-sharded": World(reshards=3),
    "hours passed": World(leaps=3),
    "a day passed": World(days=1),
    "scans beside writes": World(scans=0.5),
    "dead letters retried in bulk": World(retries=0.3),
    "arguments of another release": World(releases=0.5),
    "said at a wrong door": World(astray=0.2),
    "leftovers behind a torn write": World(torn=0.7),
}


@pytest.mark.parametrize("name", WORLDS)
def test_every_promise_holds_across_what_happens_in_the_world(name: str) -> None:
    """And it does happen."""
    points: Counter[str] = Counter()
    for seed in range(7000, 7008):
        points += workload.run(seed, world=WORLDS[name]).points
    assert points[name] >= 8


def test_most_seeds_have_a_little_of_the_world_and_no_option_is_dead() -> None:
    worlds = [drawn(seed) for seed in range(100)]
    assert all(any(getattr(world, name) for world in worlds) for name in World._fields)
    assert 50 < sum(any(world) for world in worlds) < 100


def test_time_does_not_go_back_over_a_change_of_workers_with_a_clock_that_was_set_back() -> None:
    """The new shards go on from the latest time of all the old ones."""
    cluster = Cluster(app(), seed=1, shards=3, faults=NO_FAULTS)
    for machine, ahead_s in zip(cluster.machines, (1, 3000, 2)):
        machine.clock_off_ns = ahead_s * 10**9
        keys = (f"t{n}" for n in range(1000))
        key = next(key for key in keys if cluster.owner("Tally", key) == machine.id)
        cluster.ask(message(Tally.at(key).next))
    for n in range(20):
        cluster.ask(message(Tally.at(f"t{n}").next))
    cluster.settle()
    before = [cluster.state("Tally", f"t{n}").newest for n in range(20)]
    cluster.reshard(2)
    for n in range(20):
        cluster.ask(message(Tally.at(f"t{n}").next))
    cluster.settle()
    after = [cluster.state("Tally", f"t{n}").newest for n in range(20)]
    assert all(later >= max(before) for later in after)


def test_a_late_copy_of_a_confirmed_request_does_not_run_after_a_change_of_workers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its outcome is deleted; that it is over is known by the floor of its session and slot."""
    said: list[bytes] = []
    to_door = Cluster.to_door

    def noted(self: Cluster, name: Name, raw: bytes) -> None:
        said.append(raw)
        to_door(self, name, raw)

    monkeypatch.setattr(Cluster, "to_door", noted)
    cluster = Cluster(app(), seed=1, shards=2, faults=NO_FAULTS)
    cluster.ask(message(Tally.at("t").next))
    cluster.settle()
    (asked,) = (raw for raw in said if isinstance(words.decode_call(raw), words.Asks))
    assert not any(list(m.disk.scan(Table.REQUEST)) for m in cluster.machines), "it is confirmed"
    cluster.reshard(3)
    cluster.run(100)
    to_door(cluster, cluster.callers[0].line(cluster.owner("Tally", "t")), asked)
    cluster.settle()
    assert cluster.state("Tally", "t").count == 1


def test_a_timer_and_an_idempotency_key_outlive_a_change_of_workers() -> None:
    cluster = Cluster(app(), seed=1, shards=2, faults=NO_FAULTS)
    cluster.ask(message(Alarm.at("a").arm, "rings", 3600))
    first = cluster.ask(message(Tally.at("t").next), named=b"the same request")
    cluster.run(100)
    cluster.reshard(3)
    cluster.run(100)
    cluster.callers[0].started()  # Its successor knows the name, and nothing else.
    again = cluster.ask(message(Tally.at("t").next), named=b"the same request")
    cluster.settle()
    assert cluster.outcomes[again] == cluster.outcomes[first]
    assert cluster.state("Tally", "t").count == 1
    assert cluster.state("Alarm", "a").rung == ["rings"]
