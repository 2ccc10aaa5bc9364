"""Seeds of the simulator: whatever the network, disk and crashes do, the promises hold."""

from __future__ import annotations

import os
from collections import Counter

import msgspec
import pytest

from skerry.message import message
from skerry.runtime.core.events import Table
from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.ledger import compare
from skerry.testing import NO_FAULTS
from tests.simulation import campaign, workload
from tests.simulation.apps import Account, Alarm, Memo, app
from tests.simulation.world import drawn

SEEDS = int(os.environ.get("SKERRY_TEST_SEEDS", "40"))


@pytest.mark.timeout(0)
@pytest.mark.parametrize("first", range(0, SEEDS, 50))
def test_money_order_timers_and_requests_survive_loss_repetition_and_crashes(first: int) -> None:
    crashes = 0
    for seed in range(first, min(first + 50, SEEDS)):
        crashes += workload.run(seed).crashes
    assert crashes, "a campaign without a crash tries nothing"


@pytest.mark.timeout(0)
@pytest.mark.parametrize("first", range(0, SEEDS // 4, 10))
def test_the_same_promises_hold_where_shards_live_on_hosts_that_come_and_go(first: int) -> None:
    met: Counter[str] = Counter()
    for seed in range(first, min(first + 10, SEEDS // 4)):
        met += workload.run(seed, world=drawn(seed, hosts=True)).points
    assert met["began to lead"] and met["servers: answer lost"]


REGRESSIONS = {
    34: "a client that was refused by a full store asks anew, behind what it asked since",
    146: "a source waited for ever for a peer that had said in its last ack that it is pressed",
    525: "each who waited for one name sent a copy of its own, and asked anew at each answer",
    273: "a copy of a request that a full store had refused ran when there was room again",
}
"""Every seed that failed since the simulator draws its faults as it does now, and why."""


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_a_seed_that_once_failed_keeps_every_promise(seed: int) -> None:
    workload.run(seed)


def test_a_workload_that_raises_is_no_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(cluster: Cluster) -> list[str]:
        raise KeyError("a mistake of the checker")

    monkeypatch.setattr(workload, "dead_letters", wrong)
    _, _, said = campaign.one(3)
    assert said.startswith(campaign.OURS)
    monkeypatch.setattr(workload, "check_order", lambda cluster: 1 / 0)
    monkeypatch.setattr(Cluster, "settle", lambda self: check_settled())
    _, _, said = campaign.one(3)
    assert not said.startswith(campaign.OURS), "I8 is one"


def check_settled() -> None:
    """As the core says that a promise is broken."""
    raise AssertionError("I8: not quiet")


def test_the_same_seed_gives_the_same_run(monkeypatch: pytest.MonkeyPatch) -> None:
    traces: list[list[bytes]] = []
    send = Cluster.send
    for _ in range(2):
        trace: list[bytes] = []
        traces.append(trace)

        def note(
            self: Cluster, src: int, peer: int, raw: bytes, trace: list[bytes] = trace
        ) -> None:
            trace.append(raw)
            send(self, src, peer, raw)

        monkeypatch.setattr(Cluster, "send", note)
        workload.run(11)
    assert len(traces[0]) > 100
    assert traces[0] == traces[1]


def quiet_cluster() -> Cluster:
    """Two shards and no faults."""
    return Cluster(app(), seed=1, shards=2, faults=NO_FAULTS)


def dead(cluster: Cluster) -> list[str]:
    """What the dead letters say, over all shards."""
    rows = [row for machine in cluster.machines for _, row in machine.disk.scan(Table.DEAD)]
    return sorted(msgspec.msgpack.decode(row)[7] for row in rows)


def test_a_list_that_was_sent_stays_as_it_was_sent() -> None:
    cluster = quiet_cluster()
    cluster.ask(message(Memo.at("a").note, "one", "b"))
    cluster.settle()
    assert cluster.state("Memo", "b").items == ["one"]
    assert cluster.state("Memo", "a").items == ["one", "after"]


def test_a_refused_message_leaves_no_trace_and_the_asker_is_told() -> None:
    cluster = quiet_cluster()
    cluster.ask(message(Account.at("a").deposit, 5))
    number = cluster.ask(message(Account.at("a").transfer, "b", 6))
    cluster.settle()
    outcome = cluster.outcomes[number]
    assert outcome.kind == "rejected"
    assert msgspec.msgpack.decode(outcome.body) == ["insufficient funds", {"balance": 5}]
    assert cluster.state("Account", "a").balance == 5
    assert dead(cluster) == []


def test_a_refused_message_that_nobody_asked_for_is_a_dead_letter() -> None:
    cluster = quiet_cluster()
    cluster.ask(message(Account.at("a").transfer, "b", 6), reply=False)
    cluster.settle()
    assert len(dead(cluster)) == 1
    assert "insufficient funds" in dead(cluster)[0]


def test_a_broken_handler_loses_only_its_own_message_and_is_compensated() -> None:
    cluster = quiet_cluster()
    cluster.ask(message(Account.at("a").deposit, 50))
    cluster.ask(message(Account.at("a").transfer, "broken", 20))
    cluster.ask(message(Account.at("a").transfer, "b", 10))
    cluster.settle()
    alice = cluster.state("Account", "a")
    assert (alice.balance, alice.refunds) == (40, 1)
    assert cluster.state("Account", "b").balance == 10
    assert cluster.state("Account", "broken") is None
    assert dead(cluster) == ["ValueError: this account takes nothing"]


def test_a_timer_set_again_rings_once_and_a_cancelled_one_never() -> None:
    cluster = quiet_cluster()
    for _ in range(3):
        cluster.ask(message(Alarm.at("a").arm, "again", 0.05))
    cluster.ask(message(Alarm.at("a").arm, "gone", 0.05))
    cluster.ask(message(Alarm.at("a").disarm, "gone"))
    cluster.settle()
    assert cluster.state("Alarm", "a").rung == ["again"]


def test_forget_removes_state_and_timers_and_what_was_sent_later_stays_sent() -> None:
    cluster = quiet_cluster()
    cluster.ask(message(Alarm.at("a").arm, "never", 0.05))
    cluster.ask(message(Alarm.at("a").later, "b", "from a"))
    cluster.ask(message(Alarm.at("a").vanish))
    cluster.settle()
    assert cluster.state("Alarm", "a") is None
    assert cluster.state("Alarm", "b").rung == ["from a"]


def test_a_source_item_that_raises_is_a_dead_letter_and_the_others_go_on() -> None:
    cluster = Cluster(app(drums=2, beats=20), seed=3, shards=2, faults=NO_FAULTS)
    cluster.run(200)
    cluster.settle()
    assert [cluster.state("Sender", f"drum-{n}").sent for n in range(2)] == [19, 19]
    assert len(dead(cluster)) == 2
    assert "position 7" in dead(cluster)[0]


def test_a_query_is_answered_and_leaves_no_row_behind() -> None:
    cluster = quiet_cluster()
    cluster.ask(message(Account.at("a").deposit, 5))
    number = cluster.ask(message(Account.at("a").worth))
    cluster.settle()
    assert msgspec.msgpack.decode(cluster.outcomes[number].body) == 5
    written = [
        key
        for machine in cluster.machines
        for table, key, value in machine.disk.rows_ever()
        if table == Table.REQUEST and value is not None
    ]
    assert len(written) == 1, "the deposit's"


@pytest.mark.parametrize("first", range(0, 60, 20))
def test_an_app_is_found_to_be_over_when_it_is_and_not_before_traces_14_and_51(first: int) -> None:
    for seed in range(first, first + 20):
        cluster = Cluster(app(drums=2, beats=workload.BEATS), seed=seed, shards=1 + seed % 4)
        while not cluster.keeper.over:
            cluster.step()
            assert cluster.step_no < 20_000, f"seed {seed}: I8: the end was never found"
        shards = [machine.shard for machine in cluster.machines]
        assert all(shard is not None and shard.quiet for shard in shards), f"seed {seed}"
        beats = [cluster.state("Sender", f"drum-{n}").sent for n in range(2)]
        assert beats == [workload.BEATS - 1] * 2, (
            f"seed {seed}: it was said to be over after {beats} beats"
        )
        assert compare(machine.books for machine in cluster.machines) == []
        assert all(machine.books.all_run for machine in cluster.machines), "books hear of turns"
        workload.check_emitted(cluster)
