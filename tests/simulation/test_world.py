"""The simulator's world, option by option: each happens, and every promise holds across it."""

from __future__ import annotations

import random
import re
from collections import Counter

import msgspec
import pytest

from skerry import App, StoreDamaged
from skerry.message import message
from skerry.runtime.core.events import Table
from skerry.runtime.gateway import protocol
from skerry.runtime.simulator.callers import Name
from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.lines import Lines
from skerry.testing import NO_FAULTS
from tests.simulation import workload
from tests.simulation.apps import Account, Alarm, Sender, Tally, app
from tests.simulation.world import World, drawn

WORLDS = {
    "re-sharded": World(reshards=3),
    "hours passed": World(leaps=3),
    "a day passed": World(days=1),
    "scans beside writes": World(scans=0.5),
    "dead letters retried in bulk": World(retries=0.3),
    "requests of another release": World(releases=0.5),
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
    worlds = [drawn(seed, hosts=seed % 10 == 0) for seed in range(100)]
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
    to_door = Lines.to_door

    def noted(self: Lines, name: Name, raw: bytes) -> None:
        said.append(raw)
        to_door(self, name, raw)

    monkeypatch.setattr(Lines, "to_door", noted)
    cluster = Cluster(app(), seed=1, shards=2, faults=NO_FAULTS)
    cluster.ask(message(Tally.at("t").next))
    cluster.settle()
    (asked,) = (raw for raw in said if isinstance(protocol.decode_call(raw), protocol.Asks))
    assert not any(list(m.disk.scan(Table.REQUEST)) for m in cluster.machines), "it is confirmed"
    cluster.reshard(3)
    cluster.run(100)
    to_door(cluster.lines, cluster.callers[0].line(cluster.owner("Tally", "t")), asked)
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


def put_back(seed: int, cut_off_steps: int) -> str:
    """What is said when a shard's folder is replaced by an older copy; nothing: all drains, and no
    message between entities is lost, doubled or overtaken."""
    rng = random.Random(f"put back {seed}")
    cluster = Cluster(App("bank", entities=[Account]), seed=seed, shards=3)
    machine = cluster.machines[rng.randrange(3)]

    def transfers(rounds: int) -> None:
        for _ in range(rounds):
            for _ in range(3):
                give = Account.at(f"a{rng.randrange(9)}").transfer
                cluster.ask(message(give, f"a{rng.randrange(9)}", 0), reply=False)
            cluster.run(8)

    try:
        transfers(rng.randrange(5, 15))
        machine.disk.keep(1)
        copy = machine.disk.restored()
        transfers(rng.randrange(2, 15))
        cluster.crash(machine.id)
        machine.put_back(copy)
        others = [other.id for other in cluster.machines]
        cluster.network.cut_off(machine.id, others, cluster.step_no + cut_off_steps)
        transfers(20)
        cluster.crash_all()  # Who is opened greets all that it had to do with.
        cluster.settle()
    except StoreDamaged as damage:
        return str(damage)
    return ""


@pytest.mark.parametrize("cut_off_steps", [0, 150])
def test_a_shard_that_is_put_back_to_an_older_copy_of_its_disk_is_noticed(
    cut_off_steps: int,
) -> None:
    """`cut_off_steps`: so long it seals other frames under the numbers of those that it forgot."""
    said = [put_back(seed, cut_off_steps) for seed in range(12)]
    named = [one for one in said if one]
    assert len(named) > 6, "the others forgot nothing that anybody knew of"
    for one in named:
        assert re.search("went back in time|was replaced", one)
    differ = ["differs at its two ends" in one for one in named]
    assert any(differ) or not cut_off_steps


@pytest.mark.parametrize("seed", range(8))
def test_an_app_that_lost_commits_with_sync_off_goes_on_with_what_is_there(seed: int) -> None:
    """It comes to rest, its clients are told that they can't know, and it takes what is new."""
    cluster = Cluster(app(drums=2), seed=seed, shards=3, callers=2)
    for n in range(4):
        cluster.ask(message(Sender.at(f"s{n}").begin, 8))
    asked = [cluster.ask(message(Tally.at("t").next), caller=n % 2) for n in range(40)]
    cluster.run(60 + 20 * seed)
    told = {n: cluster.outcomes[n] for n in asked if n in cluster.outcomes}
    cluster.accept_loss(1 + seed % 4)
    cluster.run(200)
    new = [cluster.ask(message(Tally.at("t").next), caller=n % 2) for n in range(40)]
    cluster.settle()
    kinds = {cluster.outcomes[n].kind for n in asked if n not in told}
    assert kinds <= {"done", "late"}
    places = [msgspec.msgpack.decode(cluster.outcomes[n].body) for n in new]
    count = cluster.state("Tally", "t").count
    assert sorted(places) == list(range(count - 39, count + 1))
    assert count <= len(told) + 80
