"""Traces that break such a core, each replayed by hand and named by its number.

The numbers are those of the design's list of pitfalls; what each says stands in its test.
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from skerry import App, Entity, Failed, Rejected, ask, message, query, send
from skerry.runtime.shard.events import Items, Requested, Table
from skerry.runtime.simulator.cluster import Cluster
from skerry.sources import Generate
from skerry.testing import NO_FAULTS
from tests.simulation.test_packets import End, connected, talk

broken: set[str] = set()
"""Names of what raises now: mended when it is taken out."""


class Box(Entity):
    got: list[int] = []
    heard: list[str] = []

    def take(self, number: int) -> None:
        if "take" in broken:
            raise ValueError("broken")
        self.got.append(number)

    def fill(self, to: str, first: int, count: int) -> None:
        for number in range(first, first + count):
            send(Box.at(to).take, number)

    def fill_twice(self, to: str, count: int) -> None:
        self.fill(to, 0, count)
        send(self.fill, to, count, count)

    def buy(self, of: str) -> None:
        ask(Box.at(of).sell, self.key).then(self._paid).failed(self._unpaid).timeout(5, self._late)

    def sell(self, to: str) -> int:
        if "sell" in broken:
            raise ValueError("broken")
        self.got.append(1)
        return 1

    def _paid(self, amount: int) -> None:
        if "paid" in broken:
            raise ValueError("broken")
        self.heard.append("paid")

    def _unpaid(self, error: Failed) -> None:
        self.heard.append("unpaid")

    def _late(self) -> None:
        self.heard.append("late")

    def spoil(self) -> None:
        self.got = "no list"  # type: ignore[assignment]

    def need(self, number: int) -> int:
        if number not in (0, *self.got):
            raise Rejected("not yet", number=number)
        self.got.append(number + 1)
        return number + 1

    @query
    def peek(self) -> list[int]:
        if "peek" in broken:
            raise ValueError("broken")
        return self.got


@pytest.fixture
def cluster() -> Cluster:
    """Two shards, no faults, nothing broken."""
    broken.clear()
    return Cluster(App("traces", entities=[Box]), seed=1, shards=2, faults=NO_FAULTS)


def outcome(cluster: Cluster, number: int) -> tuple[str, Any]:
    """Kind and body of a request's outcome."""
    found = cluster.outcomes[number]
    return found.kind, msgspec.msgpack.decode(found.body)


def operate(cluster: Cluster, action: str) -> str:
    """Retry or drop the one dead letter; the kind of the answer."""
    for machine in cluster.machines:
        for key, _ in machine.disk.scan(Table.DEAD):
            return str(cluster.operate(machine.id, action, key)[0])
    raise AssertionError("there is no dead letter")


def test_a_frame_of_a_sender_that_restarted_is_no_store_that_went_back_trace_58() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    b.hears(frame)  # Taken; its ack is lost with the sender.
    a.reopen()
    talk(a, b)
    a.forward(2)
    talk(a, b)
    assert b.got == [1, 2]


def test_frames_that_name_a_receiver_s_old_epoch_do_not_end_their_sender_trace_59() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    b.reopen()
    b.says()
    a.hears(*b.hears(frame))
    a.tick(1)  # What it answered is lost, too.
    talk(a, b)
    assert b.got == [1]


def test_a_restarted_shard_does_not_creep_with_the_credit_of_its_first_byte_trace_73() -> None:
    a, b = connected()
    for number in range(20):
        a.forward(number, size=1000)
    talk(a, b)
    b.reopen()
    talk(a, b)
    for number in range(20, 30):
        a.forward(number, size=1000)
    assert len(a.frames()) == 10, "all at once, not one per round trip"


def test_a_retry_is_not_answered_from_a_row_that_is_not_durable_trace_61() -> None:
    a = End(0)
    a.forward(1)
    a.says()
    a.forward(2, synced=False)
    request = a.last_request
    a.shard.accept(Requested("again", request))
    a.commit(a.shard.run(), synced=False)
    assert a.replies() == []
    a.sync()
    assert len(a.replies()) == 2


def test_local_messages_wait_behind_those_that_did_not_fit_trace_46() -> None:
    broken.clear()
    app = App("traces", entities=[Box])
    cluster = Cluster(app, seed=1, shards=1, faults=NO_FAULTS)
    shard = cluster.machines[0].shard
    assert shard is not None
    shard.intake.turns_max = 3
    cluster.ask(message(Box.at("x").fill_twice, "y", 40))
    cluster.settle()
    assert cluster.state("Box", "y").got == list(range(80))


def test_one_bad_item_does_not_stop_its_source_trace_54() -> None:
    broken.clear()
    app = App("traces", entities=[Box])
    numbers = Generate(lambda partition, n: n, partitions=1, count=30)
    app.source(numbers).map(lambda n: n // (n - 17)).key_by(lambda n: "all").to(Box.take)
    cluster = Cluster(app, seed=1, shards=2, faults=NO_FAULTS)
    cluster.settle()
    assert len(cluster.state("Box", "all").got) == 29
    assert ["position 17" in letter.error for letter in cluster.dead()] == [True]


def test_a_second_batch_may_follow_one_that_is_not_durable_yet_trace_66() -> None:
    broken.clear()
    app = App("traces", entities=[Box])
    app.source(Generate(lambda p, n: n, partitions=1), name="s").key_by(str).to(Box.take)
    cluster = Cluster(app, seed=1, shards=1, faults=NO_FAULTS)
    shard = cluster.machines[0].shard
    assert shard is not None
    for after, position in ((None, 0), (0, 1), (1, 2)):
        shard.accept(Items("s", "0", after, [(position, position)]))
        commit = shard.run()
        assert commit is not None
    assert shard.durable < shard.no - 2
    assert [type(effect).__name__ for effect in shard.take_effects()].count("Rewind") == 0


def test_requests_of_one_client_to_one_entity_run_in_order_trace_67(cluster: Cluster) -> None:
    cluster.run(20)
    numbers = [cluster.ask(message(Box.at("a").need, n)) for n in range(5)]
    cluster.step()
    cluster._network.clear()  # The first five are lost, and said again in a while.
    numbers += [cluster.ask(message(Box.at("a").need, n)) for n in range(5, 10)]
    cluster.settle()
    assert [outcome(cluster, n) for n in numbers] == [("done", n) for n in range(1, 11)]


def test_a_state_that_does_not_decode_fails_where_it_is_made_trace_44(cluster: Cluster) -> None:
    cluster.ask(message(Box.at("a").take, 1))
    spoilt = cluster.ask(message(Box.at("a").fill, "b", 0, 1))
    cluster.settle()
    cluster.ask(message(Box.at("a").spoil), reply=False)
    good = cluster.ask(message(Box.at("a").peek))
    cluster.settle()
    assert outcome(cluster, spoilt)[0] == "done"
    cluster.crash(0)
    cluster.crash(1)
    last = cluster.ask(message(Box.at("a").take, 2))
    cluster.settle()
    assert outcome(cluster, last)[0] == "done", "the entity lives on after a restart"
    assert outcome(cluster, good)[0] == "done"


def test_a_failed_ask_is_answered_and_its_dead_letter_can_t_run_again_trace_76(
    cluster: Cluster,
) -> None:
    broken.add("sell")
    cluster.ask(message(Box.at("a").buy, "b"))
    cluster.settle()
    assert cluster.state("Box", "a").heard == ["unpaid"]
    broken.clear()
    assert operate(cluster, "retry") == "invalid"
    assert cluster.state("Box", "b") is None, "or both would count"
    assert operate(cluster, "drop") == "done"
    assert cluster.dead() == []


def test_an_outcome_whose_handler_fails_is_the_only_outcome_trace_52(cluster: Cluster) -> None:
    broken.add("paid")
    cluster.ask(message(Box.at("a").buy, "b"))
    cluster.settle()
    cluster.run(6000)  # The time-out would have come long ago.
    assert cluster.state("Box", "a") is None or cluster.state("Box", "a").heard == []
    assert len(cluster.dead()) == 1


def test_a_query_that_raises_harms_nobody_trace_75(cluster: Cluster) -> None:
    broken.add("peek")
    numbers = []
    for n in range(10):
        numbers.append(cluster.ask(message(Box.at("a").take, n)))
        cluster.ask(message(Box.at("a").peek))
    cluster.settle()
    assert [outcome(cluster, number)[0] for number in numbers] == ["done"] * 10
    assert cluster.state("Box", "a").got == list(range(10))


def test_a_dead_letter_that_is_sent_anew_runs_once_behind_the_others_trace_41(
    cluster: Cluster,
) -> None:
    broken.add("take")
    cluster.ask(message(Box.at("a").fill, "b", 1, 1))
    cluster.settle()
    broken.clear()
    cluster.ask(message(Box.at("b").take, 2))
    cluster.settle()
    assert operate(cluster, "retry") == "done"
    assert cluster.state("Box", "b").got == [2, 1]
    assert cluster.dead() == []
