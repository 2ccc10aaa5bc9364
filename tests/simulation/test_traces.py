"""Orders of events that would break such a core, each replayed by hand.

Most were thought of before there was any code: a crash, a copy, a late packet, a clock or a
release at the worst moment. The name of a test says what holds all the same. Traces of moves, of the
store, of backups, packets and ends of apps are beside what they are about.
"""

from __future__ import annotations

from itertools import count
from typing import Any
from unittest import mock

import msgspec
import pytest

from skerry import (
    App,
    Entity,
    Failed,
    Output,
    Rejected,
    SkerryError,
    ask,
    emit,
    forget,
    message,
    query,
    rng,
    send,
    send_later,
    set_timer,
)
from skerry.runtime.core import wire
from skerry.runtime.core.events import (
    Durable,
    Items,
    Operated,
    Requested,
    RequestRun,
    Table,
    Write,
    Written,
)
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.streams import inbound
from skerry.runtime.core.wire import Kind
from skerry.runtime.simulator.backup import Backup
from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.faults import Died
from skerry.sources import Generate
from skerry.testing import NO_FAULTS
from tests.simulation.apps import Dropped
from tests.simulation.test_packets import End, connected, request_of, talk

broken: set[str] = set()
"""Names of what raises now: mended when it is taken out."""

marks = count()
"""What differs from run to run of a handler, on purpose."""


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

    def drop(self) -> None:
        forget()

    def mark(self, to: str) -> None:
        token = str(rng().random()) + str(next(marks))
        self.heard.append(token)
        send(Box.at(to).marked, token)

    def marked(self, token: str) -> None:
        self.heard.append(token)

    def chatter(self, to: str, left: int) -> None:
        self.got.append(left)
        for _ in range(2 if left else 0):
            send(Box.at(to).chatter, self.key, left - 1)

    def remind(self, name: str) -> None:
        set_timer(name, 3600, self._remember, name)

    def _remember(self, name: str) -> None:
        self.heard.append(name)

    def shout(self, to: str, size: int) -> None:
        send(Box.at(to).marked, "x" * size)

    def poison(self, to: str) -> None:
        self.got.append(0)
        send(Box.at(to).die)

    def die(self) -> None:
        raise Died

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


def test_a_frame_of_a_sender_that_restarted_is_no_store_that_went_back() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    b.hears(frame)  # Taken; its ack is lost with the sender.
    a.reopen()
    talk(a, b)
    a.forward(2)
    talk(a, b)
    assert b.got == [1, 2]


def test_frames_that_name_a_receiver_s_old_epoch_do_not_end_their_sender() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    b.reopen()
    b.says()
    a.hears(*b.hears(frame))
    a.tick(1)  # What it answered is lost, too.
    talk(a, b)
    assert b.got == [1]


def test_a_restarted_shard_does_not_creep_with_the_credit_of_its_first_byte() -> None:
    a, b = connected()
    for number in range(20):
        a.forward(number, size=1000)
    talk(a, b)
    b.reopen()
    talk(a, b)
    for number in range(20, 30):
        a.forward(number, size=1000)
    assert len(a.frames()) == 10, "all at once, not one per round trip"


def test_a_retry_is_not_answered_from_a_row_that_is_not_durable() -> None:
    a = End(0)
    a.forward(1)
    a.says()
    a.forward(2, synced=False)
    request = a.last_request
    a.shard.accept(Requested("again", *request))
    a.run(synced=False)
    assert a.replies() == []
    a.sync()
    assert len(a.replies()) == 2


def test_local_messages_wait_behind_those_that_did_not_fit() -> None:
    broken.clear()
    app = App("traces", entities=[Box])
    cluster = Cluster(app, seed=1, shards=1, faults=NO_FAULTS, limits=Limits(turns_per_batch_max=3))
    cluster.ask(message(Box.at("x").fill_twice, "y", 40))
    cluster.settle()
    assert cluster.state("Box", "y").got == list(range(80))


def test_one_bad_item_does_not_stop_its_source() -> None:
    broken.clear()
    app = App("traces", entities=[Box])
    numbers = Generate(lambda partition, n: n, partitions=1, count=30)
    app.source(numbers).map(lambda n: n // (n - 17)).key_by(lambda n: "all").to(Box.take)
    cluster = Cluster(app, seed=1, shards=2, faults=NO_FAULTS)
    cluster.settle()
    assert len(cluster.state("Box", "all").got) == 29
    assert [("position 17" in letter.error, letter.answered) for letter in cluster.dead()] == [
        (True, True)
    ], "an item is no message: there is nothing to retry"
    (letter,) = (
        (machine.id, key)
        for machine in cluster.machines
        for key, _ in machine.disk.scan(Table.DEAD)
    )
    kind, body = cluster.operate(letter[0], "retry", letter[1])
    assert (kind, b"It is no message" in body) == ("invalid", True)


def test_a_second_batch_may_follow_one_that_is_not_durable_yet() -> None:
    broken.clear()
    app = App("traces", entities=[Box])
    app.source(Generate(lambda p, n: n, partitions=1), name="s").key_by(str).to(Box.take)
    cluster = Cluster(app, seed=1, shards=1, faults=NO_FAULTS)
    shard = cluster.machines[0].shard
    assert shard is not None
    for after, position in ((None, 0), (0, 1), (1, 2)):
        shard.accept(Items("s", "0", after, [position], [position]))
        batch = shard.run()
        assert batch is not None
        assert batch.commit is not None
    assert shard.durable < shard.no - 2
    assert [type(effect).__name__ for effect in shard.take_effects()].count("Rewind") == 0


def test_requests_of_one_client_to_one_entity_run_in_order(cluster: Cluster) -> None:
    cluster.run(20)
    numbers = [cluster.ask(message(Box.at("a").need, n)) for n in range(5)]
    cluster.step()
    cluster.network.lose_all()  # The first five are lost, and said again in a while.
    numbers += [cluster.ask(message(Box.at("a").need, n)) for n in range(5, 10)]
    cluster.settle()
    assert [outcome(cluster, n) for n in numbers] == [("done", n) for n in range(1, 11)]


def test_a_state_that_does_not_decode_fails_where_it_is_made(cluster: Cluster) -> None:
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


def test_a_failed_ask_is_answered_and_its_dead_letter_can_t_run_again(
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


def test_an_outcome_whose_handler_fails_is_the_only_outcome(cluster: Cluster) -> None:
    broken.add("paid")
    cluster.ask(message(Box.at("a").buy, "b"))
    cluster.settle()
    cluster.run(6000)  # The time-out would have come long ago.
    assert cluster.state("Box", "a") is None or cluster.state("Box", "a").heard == []
    assert len(cluster.dead()) == 1


def test_a_query_that_raises_harms_nobody(cluster: Cluster) -> None:
    broken.add("peek")
    numbers = []
    for n in range(10):
        numbers.append(cluster.ask(message(Box.at("a").take, n)))
        cluster.ask(message(Box.at("a").peek))
    cluster.settle()
    assert [outcome(cluster, number)[0] for number in numbers] == ["done"] * 10
    assert cluster.state("Box", "a").got == list(range(10))


def test_a_dead_letter_that_is_sent_anew_runs_once_behind_the_others(
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


@pytest.mark.parametrize("second", ["retry", "drop"])
def test_a_dead_letter_that_two_operators_send_anew_at_once_runs_once(
    cluster: Cluster, second: str
) -> None:
    """Both words come in one batch, which has not deleted the letter's row yet."""
    broken.add("take")
    cluster.ask(message(Box.at("a").fill, "b", 1, 1))
    cluster.settle()
    broken.clear()
    owner = cluster.machines[cluster.placement.slots[slot_of("Box", "b")]]
    ((id, _),) = owner.disk.scan(Table.DEAD)
    assert owner.shard is not None
    for number, action in enumerate(("retry", second)):
        owner.shard.accept(Operated((("operator", owner.id, 0), number), number, action, id))
    cluster.settle()
    assert cluster.state("Box", "b").got == [1]
    assert cluster.dead() == []


# ── clients ──


Copy = tuple[bytes, list[RequestRun]]


def copy_of(cluster: Cluster, number: int, entity: str, handler: str, args: list[Any]) -> Copy:
    """A request of the first client, as a stuck copy of it: never confirmed, long on its way."""
    session = cluster.callers[0].session.id
    blob = msgspec.msgpack.encode(args)
    return request_of(session, number, cluster.clock_ns, "Box", entity, handler, blob)


def arrive(cluster: Cluster, copy: Copy) -> None:
    """It reaches the door of its owner after all."""
    (key,) = copy[1][0].keys
    shard = cluster.machines[cluster.placement.slots[slot_of("Box", key)]].shard
    assert shard is not None
    shard.accept(Requested((0, 0, -1), *copy))
    cluster.settle()


def test_a_copy_that_comes_after_the_confirm_does_not_run(cluster: Cluster) -> None:
    cluster.ask(message(Box.at("a").take, 1))
    cluster.settle()  # Answered, confirmed; its row is gone.
    kept = [k for m in cluster.machines for k, _ in m.disk.scan(Table.REQUEST)]
    assert kept == []
    arrive(cluster, copy_of(cluster, 1, "a", "take", [1]))
    assert cluster.state("Box", "a").got == [1]


def test_a_request_first_said_half_a_day_ago_is_refused(cluster: Cluster) -> None:
    cluster.settle()
    request = copy_of(cluster, 1, "a", "take", [1])
    cluster.clock_ns += 13 * 3600 * 10**9
    arrive(cluster, request)
    assert cluster.state("Box", "a") is None


def test_a_batch_that_fails_is_run_again_on_the_batch_before() -> None:
    broken.clear()
    a = Cluster(App("traces", entities=[Box]), seed=1, shards=1, faults=NO_FAULTS)
    a.settle()
    shard, disk = a.machines[0].shard, a.machines[0].disk
    assert shard is not None

    def batch(*copies: Copy) -> None:
        for copy in copies:
            shard.accept(Requested((0, 0, -1), *copy))
        batch = shard.run()
        assert batch is not None
        assert batch.commit is not None
        disk.append(batch.commit)  # Sealed, not synced.

    batch(copy_of(a, 1, "a", "take", [10]))
    broken.add("sell")
    batch(copy_of(a, 2, "a", "take", [5]), copy_of(a, 3, "a", "sell", ["b"]))
    assert a.state("Box", "a").got == [10, 5]


def test_what_was_refused_stays_refused_for_a_retry(cluster: Cluster) -> None:
    cluster.run(20)
    arrive(cluster, copy_of(cluster, 1, "a", "need", [5]))
    arrive(cluster, copy_of(cluster, 2, "a", "take", [5]))
    arrive(cluster, copy_of(cluster, 1, "a", "need", [5]))  # It would be granted now.
    assert cluster.state("Box", "a").got == [5]


def test_a_retried_request_that_forgot_its_entity_does_not_run_on_the_next(
    cluster: Cluster,
) -> None:
    arrive(cluster, copy_of(cluster, 1, "a", "drop", []))
    arrive(cluster, copy_of(cluster, 2, "a", "take", [1]))
    arrive(cluster, copy_of(cluster, 1, "a", "drop", []))
    assert cluster.state("Box", "a").got == [1]


def test_a_request_that_a_full_store_refused_never_runs(cluster: Cluster) -> None:
    cluster.run(20)
    for machine in cluster.machines:
        machine.full_until = cluster.step_no + 20
        assert machine.shard is not None
        if cluster.placement.slots[slot_of("Box", "a")] == machine.id:
            machine.shard.accept(Requested((0, 0, -1), *copy_of(cluster, 1, "a", "take", [1])))
    cluster.run(10)
    arrive(cluster, copy_of(cluster, 1, "a", "take", [1]))  # There is room again.
    assert cluster.state("Box", "a") is None


def test_a_client_confirms_only_what_has_no_gap_below_it(cluster: Cluster) -> None:
    cluster.run(20)
    numbers = [cluster.ask(message(Box.at("a").take, n)) for n in range(2)]
    cluster.step()
    cluster.network.lose_all()  # These two are lost, and said again in a while.
    numbers.append(cluster.ask(message(Box.at("b").take, 9)))
    cluster.settle()
    assert [outcome(cluster, n)[0] for n in numbers] == ["done"] * 3
    assert cluster.state("Box", "a").got == [0, 1]


def test_a_name_outlives_confirms_and_its_client(cluster: Cluster) -> None:
    cluster.ask(message(Box.at("a").take, 1), named=b"n" * 16)
    cluster.settle()
    cluster.callers[0].started()  # Another process; it knows no first time.
    cluster.clock_ns += 20 * 3600 * 10**9
    again = cluster.ask(message(Box.at("a").take, 1), named=b"n" * 16)
    cluster.settle()
    assert outcome(cluster, again)[0] == "done"
    assert cluster.state("Box", "a").got == [1]


def test_a_get_waits_until_what_it_saw_is_durable(cluster: Cluster) -> None:
    cluster.settle()
    cluster.faults = msgspec.structs.replace(NO_FAULTS, sync=0.0)
    asked = cluster.ask(message(Box.at("a").take, 1))
    cluster.run(20)
    looked = cluster.look("Box", "a")
    cluster.run(50)
    assert asked not in cluster.outcomes
    assert looked not in cluster.looks, "a crash now would make it a lie"
    cluster.settle()
    assert looked in cluster.looks


# ── turns ──


def test_state_and_messages_come_from_the_same_run_of_a_handler(cluster: Cluster) -> None:
    """Its batch is thrown away and run again: what differs from run to run must agree."""
    broken.add("sell")
    cluster.ask(message(Box.at("a").mark, "b"))
    cluster.ask(message(Box.at("a").sell, "c"))
    cluster.settle()
    assert cluster.state("Box", "a").heard == cluster.state("Box", "b").heard


def test_full_credit_both_ways_stands_nobody_still() -> None:
    broken.clear()
    with (
        mock.patch.object(inbound, "CREDIT_BYTES", 200),
        mock.patch.object(wire, "FRAME_BYTES", 100),
    ):
        cluster = Cluster(App("traces", entities=[Box]), seed=1, shards=2, faults=NO_FAULTS)
        for n in range(6):
            cluster.ask(message(Box.at(f"x{n}").chatter, f"y{n}", 6))
        cluster.settle()
    turns = sum(len(cluster.state("Box", f"{side}{n}").got) for side in "xy" for n in range(6))
    assert turns == 6 * (2**7 - 1)


def test_time_never_goes_back_and_a_leap_of_the_clock_is_not_believed() -> None:
    cluster = Cluster(App("traces", entities=[Box]), seed=1, shards=1, faults=NO_FAULTS)
    cluster.ask(message(Box.at("a").remind, "much later"))
    cluster.run(20)
    shard = cluster.machines[0].shard
    assert shard is not None
    before = shard.now_ns
    cluster.machines[0].clock_off_ns = -(10**12)
    cluster.run(5)
    assert shard.now_ns >= before
    cluster.machines[0].clock_off_ns = 73 * 365 * 86400 * 10**9
    with pytest.raises(SkerryError, match=r"set ahead by 26,6.* days"):
        cluster.run(5)
    assert cluster.state("Box", "a").heard == []


def test_a_start_takes_the_clock_as_it_is() -> None:
    cluster = Cluster(App("traces", entities=[Box]), seed=1, shards=1, faults=NO_FAULTS)
    cluster.ask(message(Box.at("a").remind, "after the weekend"))
    cluster.run(20)
    cluster.crash(0)
    cluster.clock_ns += 3 * 86400 * 10**9
    cluster.settle()
    assert cluster.state("Box", "a").heard == ["after the weekend"]


def test_a_message_from_next_door_that_ends_its_worker_is_found_and_buried() -> None:
    broken.clear()
    cluster = Cluster(App("traces", entities=[Box]), seed=1, shards=1, faults=NO_FAULTS)
    cluster.ask(message(Box.at("x").poison, "y"))  # Handled in the same batch, without a frame.
    other = cluster.ask(message(Box.at("z").take, 1))
    cluster.settle()
    assert outcome(cluster, other)[0] == "done"
    assert cluster.state("Box", "x").got == [0]
    assert [(letter.key, letter.handler) for letter in cluster.dead()] == [("y", "die")]


# ── streams and stores ──


def test_a_late_word_that_an_older_epoch_is_over_ends_nobody() -> None:
    a, b = connected()
    a.forward(1)
    old_epoch = a.shard.epoch
    a.reopen()
    a.says()
    late = wire.Packet(
        kind=Kind.FENCED, src=1, dst=0, src_epoch=b.shard.epoch, dst_epoch=old_epoch,
        placement=1, seq=old_epoch, position=0, count=0, checksum=0,
    )  # fmt: skip
    a.hears(late)  # Would raise what stops it.
    a.tick(1)
    talk(a, b)
    assert b.got == [1]


def test_a_frame_from_a_shard_that_is_no_member_is_refused() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    stranger = msgspec.structs.replace(frame, src=2)
    assert b.hears(stranger) == []
    assert b.got == []
    assert b.shard.stats()["refused"]
    b.hears(frame)
    assert b.got == [1]


def test_names_of_handlers_and_states_do_not_depend_on_what_stands_beside_them() -> None:
    class Other(Entity):
        first: int = 0

        def act(self, number: int) -> None: ...

    alone = App("traces", entities=[Box]).types["Box"]
    beside = App("more", entities=[Other, Box]).types["Box"]
    assert alone.schema_id == beside.schema_id
    assert [h.id for h in alone.handlers.values()] == [h.id for h in beside.handlers.values()]


def test_a_message_to_an_unknown_handler_is_a_dead_letter_and_blocks_nobody() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    (run,) = wire.decode_runs(frame.body)
    body = wire.encode_runs([msgspec.structs.replace(run, handler=run.handler ^ 1)])
    checksum = wire.frame_checksum(0, 1, 1, 1, body)
    b.hears(msgspec.structs.replace(frame, body=body, checksum=checksum))
    ((_, row),) = b.store.scan(Table.DEAD)
    assert "UnknownHandler" in msgspec.msgpack.decode(row)[7]
    b.hears(
        msgspec.structs.replace(
            frame, seq=2, checksum=wire.frame_checksum(0, 1, 2, 1, frame.body), body=frame.body
        )
    )
    assert b.got == [1]


def test_a_message_that_is_too_large_is_refused_in_the_verb(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match=r"Box\.marked: the arguments have 8,388,6.. bytes"):
        message(Box.at("a").marked, "x" * (8 << 20))
    asked = cluster.ask(message(Box.at("a").shout, "b", (8 << 20) + 1))
    fits = cluster.ask(message(Box.at("a").shout, "b", 7 << 20))
    cluster.settle()
    assert outcome(cluster, asked)[0] == "failed"
    assert "more than the 8,388,608 of a message" in outcome(cluster, asked)[1][0]
    assert outcome(cluster, fits)[0] == "done"
    assert [len(text) for text in cluster.state("Box", "b").heard] == [7 << 20]


# ── sinks ──

told: Output[int] = Output("told", partitions=1)


class Teller(Entity):
    count: int = 0

    def tell(self) -> None:
        self.count += 1
        emit(told, self.count)


def test_an_item_is_handed_to_its_sink_when_it_is_durable_and_not_before() -> None:
    cluster = Cluster(
        App("told", entities=[Teller], outputs=[told]), seed=1, shards=1, faults=NO_FAULTS
    )
    shard, disk = cluster.machines[0].shard, cluster.machines[0].disk
    assert shard is not None
    for number in (1, 2):
        copy = request_of(bytes(16), number, cluster.clock_ns, "Teller", "a", "tell", b"\x90")
        shard.accept(Requested((0, 0, -1), *copy))
        batch = shard.run()
        assert batch is not None
        assert batch.commit is not None
        disk.append(batch.commit)
    shard.accept(Durable(shard.no - 1))
    writes = [effect for effect in shard.take_effects() if isinstance(effect, Write)]
    assert [(w.sequence, w.items) for w in writes] == [(1, [b"\x01"])]
    shard.accept(Durable(shard.no))
    assert not [effect for effect in shard.take_effects() if isinstance(effect, Write)], (
        "one at once"
    )


def test_an_emitted_item_whose_stage_raises_is_a_dead_letter_that_is_not_retried() -> None:
    app = App("told", entities=[Teller], outputs=[told])
    app.stream(told).map(lambda number: 1 // (number - 2)).sink(Dropped())
    cluster = Cluster(app, seed=1, shards=1, faults=NO_FAULTS)
    for _ in range(3):
        cluster.ask(message(Teller.at("a").tell))
    cluster.settle()
    [letter] = cluster.dead()
    assert ("ZeroDivisionError" in letter.error, letter.args, letter.answered) == (
        True,
        b"\x91\x02",
        True,
    )
    assert cluster.state("Teller", "a").count == 3


def test_an_app_is_not_over_while_a_sink_does_not_have_everything() -> None:
    cluster = Cluster(
        App("told", entities=[Teller], outputs=[told]), seed=1, shards=1, faults=NO_FAULTS
    )
    machine = cluster.machines[0]
    cluster.ask(message(Teller.at("a").tell))
    while not cluster.emitted:
        cluster.step()
    cluster.network.lose_all()  # The sink has it; that it has, nobody hears.
    cluster.run(200)
    assert machine.shard is not None
    assert not machine.shard.runnable
    assert not machine.shard.quiet
    assert not cluster.keeper.over
    machine.shard.accept(Written("told", 0, "0", 1))
    cluster.run(200)
    assert machine.shard.quiet
    assert cluster.keeper.over


def test_what_a_restored_life_emits_is_not_taken_for_a_repeat() -> None:
    app = App("told", entities=[Teller], outputs=[told])
    first = Cluster(app, seed=1, shards=1, faults=NO_FAULTS)
    for _ in range(3):
        first.ask(message(Teller.at("a").tell))
    first.settle()
    backup = Backup(first)
    backup.begin()
    first.run(20)
    first.ask(message(Teller.at("a").tell))  # Item 4 of the life that goes on.
    first.settle()
    again = backup.restored()
    again.ask(message(Teller.at("a").tell))
    again.settle()
    assert first.shore.out["told", 0, "0"] == [1, 2, 3, 4]
    assert again.shore.out["told", 0, "0"] == [1, 2, 3]
    assert again.shore.out["told", 0, "0-restored"] == [4]


# ── stored bytes, full stores, openings ──


def test_nothing_leaves_before_the_opening_commit_is_synced() -> None:
    a, b = connected()
    a.forward(1)
    talk(a, b)  # Who has to do with nobody greets nobody.
    a.store.crash()
    shard = Shard(a.shard.settings, a.store, a.store.last)
    opening = shard.open()
    a.store.append(opening)
    assert shard.take_effects() == [], "a power cut may still take the epoch back"
    shard.accept(Durable(opening.no))
    assert [type(effect).__name__ for effect in shard.take_effects()] == ["Transmit", "Adopt"]


def due_in_another_release(old: type[Entity], new: type[Entity]) -> Cluster:
    """What `old.later` sends an hour later is due, and the app has `new` in its place."""
    cluster = Cluster(App("releases", entities=[old]), seed=1, shards=1, faults=NO_FAULTS)
    cluster.ask(message(old.at("a").later))  # type: ignore[attr-defined]
    cluster.run(30)
    cluster.app = App("releases", entities=[new])
    cluster.crash(0)
    cluster.clock_ns += 3601 * 10**9
    return cluster


def test_stored_arguments_are_mapped_by_name_in_another_release() -> None:
    def pay(self: Any, amount: int, fee: int) -> None: ...

    def pay_later(self: Any) -> None:
        send_later(3600, type(self).at("till").pay, 100, 1)

    def pay_anew(self: Any, fee: int, amount: int, tip: int = 7) -> None:
        self.got = [amount, fee, tip]

    fields = {"__annotations__": {"got": list[int]}, "got": []}
    old = type("Till", (Entity,), {**fields, "pay": pay, "later": pay_later})
    new = type("Till", (Entity,), {**fields, "pay": pay_anew})
    cluster = due_in_another_release(old, new)
    cluster.run(100)  # The books would miss the message as it was sent.
    assert cluster.state("Till", "till").got == [100, 1, 7]


def test_what_an_outcome_s_handler_was_to_get_behind_it_is_mapped_by_name_too() -> None:
    def serve(self: Any) -> int:
        return 7

    def order(self: Any, of: str) -> None:
        ask(type(self).at(of).serve).then(self._served, 5, "red")

    def _served(self: Any, reply: int, count: int, colour: str) -> None: ...

    def _served_anew(self: Any, reply: int, colour: str, size: int = 3, count: int = 0) -> None:
        self.got = f"{reply} {colour} {size} {count}"

    shared = {"__annotations__": {"got": str}, "got": "", "order": order, "serve": serve}
    old = type("Shop", (Entity,), {**shared, "_served": _served})
    new = type("Shop", (Entity,), {**shared, "_served": _served_anew})
    cluster = Cluster(App("shops", entities=[old]), seed=1, shards=2, faults=NO_FAULTS)
    slots = cluster.placement.slots
    here, there = (
        next(key for key in map(str, range(99)) if slots[slot_of("Shop", key)] == shard)
        for shard in (0, 1)
    )
    cluster.machines[1].hangs_until = cluster.step_no + 1000
    cluster.ask(message(old.at(here).order, there))  # type: ignore[attr-defined]
    cluster.run(100)
    cluster.app = App("shops", entities=[new])
    cluster.crash_all()
    cluster.run(2000)
    assert cluster.dead() == []
    assert cluster.state("Shop", here).got == "7 red 3 5"


def test_stored_arguments_that_another_release_does_not_take_are_a_dead_letter() -> None:
    def put(self: Any, number: int) -> None: ...

    def put_anew(self: Any, number: str) -> None:
        self.got += number

    def put_later(self: Any) -> None:
        send_later(3600, type(self).at("box").put, 1)

    fields = {"__annotations__": {"got": str}, "got": ""}
    old = type("Box", (Entity,), {**fields, "put": put, "later": put_later})
    new = type("Box", (Entity,), {**fields, "put": put_anew})
    cluster = due_in_another_release(old, new)
    cluster.ask(message(new.at("box").put, "x"))  # type: ignore[attr-defined]
    cluster.run(100)
    assert cluster.state("Box", "box").got == "x"
    [letter] = cluster.dead()
    assert (letter.type, letter.key, letter.handler) == ("Box", "box", "put")
    assert "Expected `str`, got `int`" in letter.error
    assert operate(cluster, "retry") == "invalid"
    assert cluster.dead() == [letter]


def test_confirms_free_rows_also_when_the_store_is_full(cluster: Cluster) -> None:
    cluster.run(20)
    numbers = [cluster.ask(message(Box.at(f"b{n}").take, n)) for n in range(20)]
    while not all(number in cluster.outcomes for number in numbers):
        cluster.step()
    for machine in cluster.machines:
        machine.full_until = cluster.step_no + 1000
    cluster.run(60)
    kept = [key for m in cluster.machines for key, _ in m.disk.scan(Table.REQUEST)]
    assert kept == []
