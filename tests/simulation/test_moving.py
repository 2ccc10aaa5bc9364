"""Slots that move, packet by packet: each rule of a move at the moment when it counts.

Three shards and what is on its way between them are driven by hand: a way can be held, so that
what goes there comes late. `test_moves.py` lets chance do the same with whole clusters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any
from unittest import mock

import msgspec
import pytest

from skerry import App, Entity, Output, StoreDamaged, ask, emit, forget, now, send, set_timer
from skerry.runtime.app import placer
from skerry.runtime.app.reshard import deal
from skerry.runtime.app.scaling import Scaling
from skerry.runtime.core import handover, moves, wire
from skerry.runtime.core.demand import ALL, Budget, Standing
from skerry.runtime.core.events import (
    SLOTS,
    SLOTTED,
    Adopt,
    Arrived,
    Confirmed,
    Items,
    Operated,
    Reply,
    Requested,
    RequestRun,
    Stop,
    Table,
    Told,
    Transmit,
    Write,
)
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.progress import stored
from skerry.runtime.core.streams.outbound import OutboxRow
from skerry.runtime.core.tables.outputs import home
from skerry.runtime.core.tables.positions import partition_slot
from skerry.runtime.core.wire import Call, Packet
from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.disk import MemoryStore
from skerry.testing import NO_FAULTS
from tests.simulation.test_packets import End, request_of

broken: set[int] = set()
"""Numbers that nobody takes now."""

said: Output[int] = Output("said", partitions=1)


class Node(Entity):
    got: list[int] = []
    heard: list[str] = []

    def forward(self, to: str, number: int) -> None:
        send(Node.at(to).take, number)

    def burst(self, to: str, first: int, count: int) -> None:
        for number in range(first, first + count):
            send(Node.at(to).take, number)

    def take(self, number: int) -> None:
        if number in broken:
            raise ValueError("broken")
        self.got.append(number)

    def remind(self, seconds: int) -> None:
        set_timer("once", seconds, self._remember, "first", "second")

    def _remember(self, first: str, second: str) -> None:
        self.heard.append(f"{first} {second}")

    def buy(self, of: str) -> None:
        ask(Node.at(of).sell).then(self._paid).timeout(3600, self._late)

    def sell(self) -> int:
        self.got.append(1)
        return 1

    def _paid(self, amount: int) -> None:
        self.heard.append("paid")

    def _late(self) -> None:
        self.heard.append("late")

    def look(self) -> None:
        self.heard.append(now().isoformat())

    def say(self, number: int) -> None:
        emit(said, number)

    def clear(self) -> None:
        forget()


APP = App("moving", entities=[Node], outputs=[said])
PLACEMENT = balanced([0, 1, 2], version=1, next_id=3)
SESSION = bytes(16)
"""The session of all requests; any other stands for an idempotency key."""

Copy = tuple[bytes, list[RequestRun]]


def keys_of(shard: int, count: int) -> list[str]:
    """Keys that live on this shard, each in a slot of its own."""
    found: dict[int, str] = {}
    for key in map(str, range(999)):
        slot = slot_of("Node", key)
        if PLACEMENT.slots[slot] == shard:
            found.setdefault(slot, key)
    return list(found.values())[:count]


X, Y, Z = keys_of(0, 1), keys_of(1, 4), keys_of(2, 1)
AT = {0: X[0], 1: Y[1], 2: Z[0]}
"""A key on each shard, which stays there."""

MOVED = Y[0]
"""A key on shard 1, whose slot moves."""

SLOT = slot_of("Node", MOVED)

BESIDE = next(key for n in count() if slot_of("Node", key := f"beside-{n}") == SLOT)
"""Another key in that slot."""


class Owner(End):
    app, placement = APP, PLACEMENT


class Trio:
    """Three shards and what is on its way between them."""

    def __init__(self, *, copied: bool = False) -> None:
        broken.clear()
        self.placement = PLACEMENT
        self.copied = copied
        """Whether a version before names the slot that moves, and all of it is copied by then."""
        self.ends: dict[int, Owner] = {}
        self.ways: dict[tuple[int, int], deque[Packet]] = {}
        self.held: set[tuple[int, int]] = set()
        """Ways on which nothing arrives for now."""
        self.budget = ALL
        self.asked = 0
        self.told: dict[int, list[str]] = {}
        """The kinds of what each shard has answered."""
        self.writes: dict[int, list[Write]] = {}
        self.adopted: dict[int, Adopt] = {}
        for shard in PLACEMENT.members:
            self.join(shard)

    def join(self, shard: int) -> None:
        """Open a shard."""
        self.ends[shard] = Owner(shard)
        self.told[shard], self.writes[shard] = [], []

    # ── what happens ──

    def move(self, slot: int, to: int, *, told: list[int] | None = None) -> None:
        """Make the next version, by which a slot has another owner; tell these shards, or all."""
        if self.copied and self.placement.slots[slot] != to:
            self.name(slot, to)
            self.talk()
        slots = list(self.placement.slots)
        slots[slot] = to
        self._make(slots, {})
        self.tell(*(self.ends if told is None else told))

    def move_all(self, owners: dict[int, int]) -> None:
        """Make the next version, by which slots have other owners; tell all."""
        self._make([owners.get(slot, old) for slot, old in enumerate(self.placement.slots)], {})
        self.tell(*self.ends)

    def name(self, slot: int, to: int) -> None:
        """Make the next version, which names a slot that is to come to a shard; tell all."""
        self._make(self.placement.slots, {slot: to})
        self.tell(*self.ends)

    def give_up(self) -> None:
        """Make the next version, which names no slot; tell all."""
        self._make(self.placement.slots, {})
        self.tell(*self.ends)

    def leave(self, shard: int, *, told: list[int]) -> None:
        """Make the next version, of which a shard is no member; tell others."""
        del self.ends[shard]
        self._make(self.placement.slots, {})
        self.tell(*told)

    def _make(self, slots: list[int], coming: dict[int, int]) -> None:
        version, next_id = self.placement.version + 1, max(self.ends) + 1
        self.placement = Placement(version, sorted(self.ends), slots, next_id, coming)

    def tell(self, *shards: int) -> None:
        """Tell shards of the newest version."""
        for shard in shards:
            self.ends[shard].shard.accept(self.placement)

    def ask(
        self,
        shard: int,
        key: str,
        handler: str,
        *args: Any,
        entity: str = "Node",
        session: bytes = SESSION,
    ) -> Copy:
        """A client's request at a shard's door; returns a copy of it."""
        self.asked += 1
        first_ns, blob = self.ends[shard].clock_ns, msgspec.msgpack.encode(args)
        copy = request_of(session, self.asked, first_ns, entity, key, handler, blob)
        self.copy(shard, copy)
        return copy

    def copy(self, shard: int, copy: Copy) -> None:
        """A copy of a request arrives at a shard's door."""
        named = copy[0] != SESSION
        self.ends[shard].shard.accept(Requested("client", *copy, named=named))

    def crash(self, *shards: int) -> None:
        """Shards crash and start; they hear of the newest version again."""
        for shard in shards:
            self.ends[shard].reopen()
            self.tell(shard)

    def round(self) -> bool:
        """A batch of each shard, and a packet's way of time. Returns whether any batch ran."""
        ran = False
        for end in self.ends.values():
            end.tick(0.05)
            if end.shard.runnable:
                ran = end.run(self.budget) is not None or ran
            self._take_effects(end)
        for way, packets in self.ways.items():
            if way[1] not in self.ends:
                packets.clear()
            while packets and way not in self.held:
                self.ends[way[1]].shard.accept(Arrived(wire.pack(packets.popleft())))
        return ran

    def talk(self) -> None:
        """Rounds until nothing happens, for longer than a peer waits to ask again."""
        idle = 0
        for _ in range(2000):
            idle = 0 if self.round() else idle + 1
            if idle > 10:
                return
        raise AssertionError("it goes on and on")

    def release(self) -> None:
        """Let what was held arrive, and all else happen."""
        self.held.clear()
        self.talk()

    def _take_effects(self, end: Owner) -> None:
        for effect in end.effects():
            match effect:
                case Stop(error):
                    raise error
                case Transmit(peer, raw):
                    self.ways.setdefault((end.me, peer), deque()).append(wire.unpack(raw))
                case Reply(_, kind, _, _):
                    self.told[end.me].append(kind)
                case Told(_, _, outcome):
                    self.told[end.me].append(outcome.kind)
                case Write():
                    self.writes[end.me].append(effect)
                case Adopt():
                    self.adopted[end.me] = effect

    # ── what is so ──

    def serves(self, shard: int, slot: int = SLOT) -> bool:
        """Whether turns of this slot run at this shard."""
        return self.ends[shard].shard.ownership.serves(slot)

    def arrived(self, slot: int = SLOT) -> int:
        """The only shard that serves the slot, which is its owner: nothing is on its way."""
        (owner,) = (shard for shard in self.ends if self.serves(shard, slot))
        assert owner == self.placement.slots[slot]
        for end in self.ends.values():
            standing = end.shard.standing()
            assert (standing.version, standing.settled) == (self.placement.version, True)
            assert list(end.store.scan(Table.PARKED)) == []
            assert end.me == owner or self.rows(end.me, slot) == {}, "what is sent is deleted"
        return owner

    def rows(self, shard: int, slot: int = SLOT) -> dict[Any, bytes]:
        """All that a shard's store has of a slot."""
        store = self.ends[shard].store
        found: dict[Any, bytes] = dict(store.states("Node", slots=[slot]))
        for table in sorted(SLOTTED):
            prefix = slot.to_bytes(2, "big")
            found |= {(table, bytes(key)): value for key, value in store.scan(table, prefix)}
        return found

    def rows_to(self, shard: int, peer: int) -> int:
        """How many frames to a peer lie in a shard's store."""
        return len(list(self.ends[shard].store.scan(Table.OUTBOX, peer.to_bytes(4, "big"))))

    def node(self, key: str = MOVED) -> Node:
        """An entity, from the store of its owner."""
        store = self.ends[self.placement.slots[slot_of("Node", key)]].store
        state = store.state("Node", key)
        assert state is not None
        return APP.types["Node"].decode(state, key, lambda _: None)  # type: ignore[return-value]


@pytest.fixture(params=[False, True], ids=["at once", "copied before"])
def trio(request: pytest.FixtureRequest) -> Iterator[Trio]:
    """Three shards; shard 1 has the slot that moves."""
    yield Trio(copied=request.param)
    broken.clear()


def moved(trio: Trio, to: int, slot: int = SLOT) -> None:
    """Move a slot; all of it happens."""
    trio.move(slot, to)
    trio.talk()
    assert trio.arrived(slot) == to


def connect(trio: Trio) -> None:
    """The others shake hands with shard 1, so that their marks come though it is not heard."""
    trio.ask(0, AT[0], "forward", AT[1], 0)
    trio.ask(2, AT[2], "forward", AT[1], 0)
    trio.talk()


# ── what is sent to the slot ──


@pytest.mark.parametrize("sender", [0, 2])
def test_what_was_sent_to_the_old_owner_runs_before_what_was_sent_to_the_new_one(
    trio: Trio, sender: int
) -> None:
    """Also when the sender's shard is the new owner. The numbers fall: order is not that of bytes."""
    trio.held.add((sender, 1))
    trio.ask(sender, AT[sender], "forward", MOVED, 9)
    trio.talk()
    trio.move(SLOT, 2)
    trio.talk()
    for number in (8, 7, 6):
        trio.ask(sender, AT[sender], "forward", MOVED, number)
        trio.talk()
    assert trio.serves(1), "one mark has not come"
    assert not trio.serves(2)
    assert len(list(trio.ends[2].store.scan(Table.PARKED))) == 3
    trio.release()
    assert trio.arrived() == 2
    assert trio.node().got == [9, 8, 7, 6]


def test_messages_on_the_own_stream_run_before_the_slot_stops(trio: Trio) -> None:
    """The mark of a shard to itself counts when it is reached."""
    trio.budget = Budget(turns=2)
    trio.ask(1, AT[1], "burst", MOVED, 0, 60)
    trio.round()
    trio.move(SLOT, 2)
    trio.round()
    trio.ask(1, AT[1], "forward", MOVED, 60)
    trio.talk()
    assert trio.arrived() == 2
    assert trio.node().got == list(range(61))


def test_what_is_sent_to_a_leaving_slot_does_not_join_the_own_stream_behind_the_mark(
    trio: Trio,
) -> None:
    trio.budget = Budget(turns=2)
    trio.ask(1, Y[2], "burst", Y[3], 0, 20)
    trio.round()
    trio.move(SLOT, 2)
    trio.round()  # Adopted; the own mark is behind the burst.
    trio.ask(1, AT[1], "burst", MOVED, 0, 60)
    for number in range(60, 100):
        trio.round()
        trio.ask(1, AT[1], "forward", MOVED, number)
    trio.talk()
    assert trio.arrived() == 2
    assert trio.node().got == list(range(100))


@pytest.mark.parametrize("late", [1, 2])
def test_a_frame_waits_for_the_version_by_which_it_left(trio: Trio, late: int) -> None:
    """The new owner, or the old one, hears of it last."""
    trio.held.add((0, 1))
    trio.ask(0, AT[0], "forward", MOVED, 1)
    trio.talk()
    trio.move(SLOT, 2, told=[shard for shard in trio.ends if shard != late])
    trio.talk()
    trio.ask(0, AT[0], "forward", MOVED, 2)
    trio.held.clear()
    trio.held.add((0, 1))
    trio.talk()
    assert trio.ends[2].shard.quiet is False
    assert trio.rows(1) == trio.rows(2) == {}, "nothing has run"
    trio.tell(late)
    trio.release()
    assert trio.arrived() == 2
    assert trio.node().got == [1, 2]


def test_a_new_member_is_heard_by_those_who_do_not_know_it_yet(trio: Trio) -> None:
    trio.ask(0, AT[0], "forward", MOVED, 1)
    trio.talk()
    trio.join(3)
    trio.move(SLOT, 3, told=[3])
    trio.talk()
    trio.tell(1)
    trio.talk()
    assert trio.serves(1), "members that have not adopted may have sent something"
    trio.tell(0)
    trio.talk()
    trio.ask(0, AT[0], "forward", MOVED, 2)
    trio.tell(2)
    trio.talk()
    assert trio.arrived() == 3
    assert trio.node().got == [1, 2]
    assert [end.shard.stats()["refused"] for end in trio.ends.values()] == [{}] * 4


@pytest.mark.parametrize("sender", [0, 2])
def test_parked_messages_run_before_later_ones_also_when_batches_are_small(
    trio: Trio, sender: int
) -> None:
    trio.budget = Budget(turns=2)
    trio.held.add((0, 1))
    trio.move(SLOT, 2)
    trio.talk()
    trio.ask(sender, AT[sender], "burst", MOVED, 0, 30)
    trio.talk()
    trio.held.clear()
    for number in range(30, 70):
        trio.ask(sender, AT[sender], "forward", MOVED, number)
        trio.round()
    assert trio.serves(2)
    trio.talk()
    assert trio.arrived() == 2
    assert trio.node().got == list(range(70))


@pytest.mark.parametrize("crashes", [[2], [1], [0, 1, 2]])
def test_parked_messages_outlive_a_crash(trio: Trio, crashes: list[int]) -> None:
    trio.held.add((0, 1))
    trio.move(SLOT, 2)
    trio.talk()
    for number in (3, 2, 1):
        trio.ask(0, AT[0], "forward", MOVED, number)
        trio.talk()
    trio.crash(*crashes)
    trio.talk()
    trio.ask(0, AT[0], "forward", MOVED, 0)
    trio.talk()
    trio.release()
    assert trio.arrived() == 2
    assert trio.node().got == [3, 2, 1, 0]


def test_parked_messages_run_once_however_often_the_slot_comes_back(trio: Trio) -> None:
    for n in range(3):
        trio.held.add((0, 1))
        trio.move(SLOT, 2)
        trio.talk()
        trio.ask(0, AT[0], "forward", MOVED, n)
        trio.talk()
        trio.release()
        trio.crash(2)
        moved(trio, 1)
    assert trio.node().got == [0, 1, 2]


# ── what the slot sends ──


def unacked(trio: Trio) -> None:
    """The slot has sent a message to another shard, where it does not arrive for now."""
    connect(trio)
    trio.held.add((1, 0))
    trio.ask(1, MOVED, "forward", AT[0], 1)
    trio.talk()


def test_what_the_slot_has_sent_is_acked_before_its_entities_run_elsewhere(trio: Trio) -> None:
    unacked(trio)
    trio.move(SLOT, 2)
    trio.talk()
    assert not trio.serves(1)
    assert not trio.serves(2), "its last message is not acked"
    trio.ask(1, MOVED, "forward", AT[0], 2)
    trio.ask(2, MOVED, "forward", AT[0], 2)
    trio.talk()
    assert trio.told == {0: ["done"], 1: ["done", "moved"], 2: ["done", "moved"]}
    trio.release()
    trio.ask(2, MOVED, "forward", AT[0], 2)
    trio.talk()
    assert trio.arrived() == 2
    assert trio.node(AT[0]).got == [1, 2]


def test_what_the_slot_has_sent_on_the_own_stream_runs_before_its_entities_run_elsewhere(
    trio: Trio,
) -> None:
    trio.budget = Budget(turns=2)
    trio.held.add((0, 1))
    trio.move(SLOT, 2)
    trio.talk()
    trio.ask(1, MOVED, "burst", AT[1], 0, 60)  # Behind the own mark.
    trio.round()
    trio.held.clear()
    number = 60
    for _ in range(100):
        trio.round()
        if trio.serves(2):
            trio.ask(2, MOVED, "forward", AT[1], number)
            number += 1
    trio.talk()
    assert trio.arrived() == 2
    assert trio.node(AT[1]).got == list(range(number))


# ── a slot that comes back ──


def test_a_slot_that_comes_back_meets_none_of_its_old_entities(trio: Trio) -> None:
    other = next(k for k in map(str, range(9999)) if slot_of("Node", k) == SLOT and k != MOVED)
    trio.ask(1, MOVED, "take", 1)
    trio.ask(1, other, "take", 1)
    trio.talk()
    moved(trio, 2)
    trio.ask(2, MOVED, "take", 2)
    trio.ask(2, other, "clear")
    trio.talk()
    moved(trio, 1)
    trio.ask(1, MOVED, "take", 3)
    trio.ask(1, other, "take", 3)
    trio.talk()
    assert trio.node().got == [1, 2, 3]
    assert trio.node(other).got == [3]


@pytest.mark.parametrize("back", [True, False])
def test_a_named_timer_fires_once(trio: Trio, back: bool) -> None:
    trio.ask(1, MOVED, "remind", 3600)
    trio.talk()
    moved(trio, 2)
    for end in trio.ends.values():
        end.tick(3500)
    trio.talk()
    assert trio.node().heard == []
    for end in trio.ends.values():
        end.tick(200)
    trio.talk()
    if back:
        moved(trio, 1)
        trio.talk()
    assert trio.node().heard == ["first second"]
    assert all(end.shard.quiet for end in trio.ends.values())


def test_an_outcome_follows_its_asker_and_comes_once(trio: Trio) -> None:
    trio.held.add((1, 0))
    trio.ask(1, MOVED, "buy", AT[0])
    trio.talk()
    trio.move(SLOT, 2, told=[0])
    trio.talk()
    trio.release()  # Shard 0 answers by the new version.
    trio.tell(1, 2)
    trio.talk()
    assert trio.arrived() == 2
    assert trio.node().heard == ["paid"]
    moved(trio, 1)
    for end in trio.ends.values():
        end.tick(4000)
    trio.talk()
    assert trio.node().heard == ["paid"]
    assert all(end.shard.quiet for end in trio.ends.values()), "nobody waits for anything"


# ── requests ──


@pytest.mark.parametrize("session", [SESSION, b"n" * 16])
def test_a_request_that_is_retried_at_the_new_owner_is_answered_from_its_row(
    trio: Trio, session: bytes
) -> None:
    copy = trio.ask(1, MOVED, "take", 1, session=session)
    trio.talk()
    moved(trio, 2)
    trio.copy(1, copy)
    trio.copy(2, copy)
    trio.talk()
    assert trio.told == {0: [], 1: ["done", "moved"], 2: ["done"]}
    assert trio.node().got == [1]


def test_a_late_copy_of_a_confirmed_request_does_not_run_at_the_new_owner(trio: Trio) -> None:
    copy = trio.ask(1, MOVED, "take", 1)
    trio.talk()
    trio.ends[1].shard.accept(Confirmed(SESSION, trio.asked))
    trio.talk()
    moved(trio, 2)
    trio.copy(2, copy)
    trio.talk()
    assert trio.told[2] == []
    assert trio.node().got == [1]


@pytest.mark.parametrize("confirmed", [True, False])
@pytest.mark.parametrize("beside", [True, False])
def test_a_late_copy_of_a_request_that_ran_elsewhere_does_not_run_after_the_return(
    trio: Trio, confirmed: bool, beside: bool
) -> None:
    """`beside`: the old owner has other outcomes of the session, so it remembers the session."""
    trio.ask(1, MOVED, "take", 1)
    if beside:
        trio.ask(1, AT[1], "take", 1)
    trio.talk()
    moved(trio, 2)
    copy = trio.ask(2, MOVED, "take", 2)
    trio.talk()
    if confirmed:
        trio.ends[2].shard.accept(Confirmed(SESSION, trio.asked))
        trio.talk()
    moved(trio, 1)
    trio.copy(1, copy)
    trio.talk()
    assert trio.node().got == [1, 2]
    assert trio.told[1][1 + beside :] == ([] if confirmed else ["done"])


def test_outcomes_of_a_slot_that_has_left_take_no_memory(trio: Trio) -> None:
    trio.ask(1, MOVED, "take", 1)
    trio.talk()
    moved(trio, 2)
    assert [end.shard.stats()["requests"] for end in trio.ends.values()] == [0, 0, 0]
    trio.copy(2, trio.ask(2, MOVED, "take", 2))
    trio.talk()
    assert trio.ends[2].shard.stats()["requests"] == 2


# ── sinks and sources ──

SAID = slot_of(home("said"), "0")
TELLER = PLACEMENT.slots[SAID]
OTHER, THIRD = (shard for shard in PLACEMENT.members if shard != TELLER)


def test_a_sink_that_is_being_written_to_holds_its_slot_and_items_keep_their_numbers(
    trio: Trio,
) -> None:
    trio.ask(TELLER, AT[TELLER], "say", 1)
    trio.talk()
    trio.held.add((OTHER, TELLER))
    trio.ask(OTHER, AT[OTHER], "say", 2)
    trio.talk()
    trio.move(SAID, OTHER)
    trio.talk()
    trio.release()
    assert trio.serves(TELLER, SAID), "its sink has not taken all that it was handed"
    assert trio.writes == {TELLER: [Write("said", 0, "0", 1, [b"\x01"])], OTHER: [], THIRD: []}
    trio.ends[TELLER].shard.accept(trio.writes[TELLER][0].written)
    trio.talk()
    assert trio.arrived(SAID) == OTHER
    assert len(trio.writes[TELLER]) == 1, "who leaves begins no write"
    assert trio.writes[OTHER] == [Write("said", 0, "0", 2, [b"\x02"])]
    trio.ends[OTHER].shard.accept(trio.writes[OTHER][0].written)
    trio.ask(TELLER, AT[TELLER], "say", 3)
    trio.talk()
    assert trio.writes[OTHER][1:] == [Write("said", 0, "0", 3, [b"\x03"])]
    assert len(trio.writes[TELLER]) == 1


def test_a_sink_that_hangs_holds_its_slot_and_no_other_that_moves(trio: Trio) -> None:
    trio.ask(TELLER, AT[TELLER], "say", 1)
    trio.talk()
    beside = next(key for key in keys_of(TELLER, 9) if slot_of("Node", key) != SAID)
    slot = slot_of("Node", beside)
    trio.ask(TELLER, beside, "take", 1)
    trio.talk()
    trio.move_all({SAID: OTHER, slot: OTHER})
    trio.talk()
    assert trio.serves(OTHER, slot) and trio.serves(TELLER, SAID)
    assert trio.rows(TELLER, slot) == {}
    trio.crash(OTHER)
    trio.ask(OTHER, beside, "take", 2)
    trio.talk()
    assert trio.node(beside).got == [1, 2]
    trio.ends[TELLER].shard.accept(trio.writes[TELLER][0].written)
    trio.talk()
    assert trio.arrived(SAID) == trio.arrived(slot) == OTHER


class Numbers:
    """Stages of a pipeline that lead nowhere."""

    def apply(self, items: Any) -> list[Any]:
        return []


def test_a_partition_is_read_on_from_where_its_last_owner_was(trio: Trio) -> None:
    slot = partition_slot("s", "0")
    first, second = PLACEMENT.slots[slot], (PLACEMENT.slots[slot] + 1) % 3
    for end in trio.ends.values():
        end.pipelines = {"s": Numbers()}
    trio.crash(*trio.ends)

    def read(shard: int, after: int | None, position: int) -> None:
        trio.ends[shard].shard.accept(Items("s", "0", after, [position], [position]))
        trio.talk()

    read(first, None, 1)
    moved(trio, second, slot)
    read(first, 1, 2)  # Read ahead: it is no partition of this shard any more.
    assert slot not in trio.adopted[first].slots
    assert trio.adopted[second].positions == {("s", "0"): 1}
    read(second, 1, 5)
    moved(trio, first, slot)
    assert trio.adopted[first].positions == {("s", "0"): 5}


class Counted:
    """A source without an end that notes who reads: each call of `read` is a reader."""

    def __init__(self) -> None:
        self.readers = 0
        self.seen: set[tuple[str, int]] = set()

    def partitions(self) -> list[str]:
        return [str(n) for n in range(7)]

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, int]]:
        self.readers += 1
        reader = self.readers
        for number in count(0 if after is None else after + 1):
            self.seen.add((partition, reader))
            yield number, number


class Nameless:
    """Stages of a pipeline whose messages name no entity."""

    def apply(self, items: Any) -> list[Any]:
        return [(APP.types["Node"].handlers["take"], [""] * len(items), list(items))]


def test_an_item_with_an_empty_key_for_a_leaving_slot_stops_no_stream(trio: Trio) -> None:
    slot = slot_of("Node", "")
    owner = PLACEMENT.slots[slot]
    partition = next(
        p for p in map(str, range(9)) if PLACEMENT.slots[partition_slot("s", p)] == owner
    )
    for end in trio.ends.values():
        end.pipelines = {"s": Nameless()}
    trio.crash(*trio.ends)
    other, third = {0, 1, 2} - {owner}
    trio.ask(other, AT[other], "forward", AT[owner], 0)
    trio.talk()
    trio.held.add((other, owner))
    trio.move(slot, third)
    trio.talk()
    assert trio.serves(owner, slot), "a mark is on its way"
    trio.ends[owner].shard.accept(Items("s", partition, None, [1], [1]))
    trio.talk()
    trio.release()
    assert trio.arrived(slot) == third
    assert trio.ends[owner].shard.dead == 1


def test_a_partition_is_read_by_one_shard_at_a_time() -> None:
    source = Counted()
    app = App("moving", entities=[Node])
    app.source(source, name="s").key_by(str).to(Node.take)
    cluster = Cluster(app, seed=1, shards=1, faults=NO_FAULTS)
    for shards in (2, 1):
        cluster.scale(shards)
        while not settled(cluster, shards):
            cluster.step()
        source.seen.clear()
        cluster.run(20)
        assert sorted(partition for partition, _ in source.seen) == source.partitions()


def settled(cluster: Cluster, shards: int) -> bool:
    """Whether so many shards have all slots."""
    version = cluster.placement.version
    found = [machine.shard.standing() for machine in cluster.machines if machine.shard is not None]
    known = all((standing.version, standing.settled) == (version, True) for standing in found)
    return known and len(found) == shards and cluster.mover.goal is None


# ── rows ──


def filled(trio: Trio) -> dict[Any, bytes]:
    """The rows of a slot that has several of each kind."""
    trio.ask(1, MOVED, "take", 1)
    trio.ask(1, MOVED, "remind", 3600)
    trio.ask(1, MOVED, "buy", AT[0])
    broken.add(7)
    trio.ask(1, AT[1], "forward", MOVED, 7)
    for _ in range(5):
        trio.ask(1, MOVED, "take", 2, session=trio.asked.to_bytes(16, "big"))
        trio.talk()
    rows = trio.rows(1)
    assert len(rows) > 8
    return rows


@pytest.mark.parametrize("crashes", [[], [1], [2], [1, 2]])
def test_a_crash_between_two_chunks_loses_and_doubles_no_row(crashes: list[int]) -> None:
    served = set()
    with mock.patch.object(handover, "CHUNK_BYTES", 1):
        for rounds in range(0, 24, 1 if crashes else 24):
            trio = Trio()
            rows = filled(trio)
            trio.move(SLOT, 2)
            for _ in range(rounds):
                trio.round()
            trio.crash(*crashes)
            assert not (trio.serves(1) and trio.serves(2))
            served.add((trio.serves(1), trio.serves(2)))
            trio.talk()
            assert trio.arrived() == 2
            assert trio.rows(2) == rows
            assert not trio.rows(1)
    assert len(served) == (3 if crashes else 1)


def test_a_row_that_is_lost_on_its_way_is_named() -> None:
    trio = Trio()
    filled(trio)
    connect(trio)
    trio.held.add((1, 2))
    trio.move(SLOT, 2)
    trio.talk()
    frames = trio.ways[1, 2]
    trio.ways[1, 2] = deque(map(without_a_row, frames))
    assert trio.ways[1, 2] != frames
    with pytest.raises(
        StoreDamaged, match=f"slot {SLOT} has come with .* rows and changes, and was sent"
    ):
        trio.release()


def without_a_row(packet: Packet) -> Packet:
    """A frame whose chunk, if it has one, lacks a row."""
    if packet.kind != wire.Kind.FRAME:
        return packet
    runs = wire.decode_runs(packet.body)
    for run in runs:
        if run.call == Call.CHUNK and run.extras:
            ((slot, raw),) = run.extras
            chunk = handover.chunk_of(raw)
            less = msgspec.structs.replace(chunk, rows=chunk.rows[1:])
            run.extras = [(slot, msgspec.msgpack.encode(less))]
    body = wire.encode_runs(runs)
    checksum = wire.frame_checksum(packet.src, packet.dst, packet.seq, packet.count, body)
    return msgspec.structs.replace(packet, body=body, checksum=checksum)


def test_a_new_owner_is_not_behind_the_time_of_the_old_one(trio: Trio) -> None:
    trio.ends[1].tick(1000)
    trio.ask(1, MOVED, "look")
    trio.talk()
    moved(trio, 2)
    trio.ask(2, MOVED, "look")
    trio.talk()
    first, second = trio.node().heard
    assert first <= second


def older_release() -> App:
    """The app as it was: a node with fewer fields, whose timer has its arguments the other way
    round, and a type that is gone."""

    def take(self: Any, number: int) -> None:
        self.got.append(number)

    def remind(self: Any, seconds: int) -> None:
        set_timer("once", seconds, self._remember, "second", "first")

    def _remember(self: Any, second: str, first: str) -> None: ...

    fields = {"__annotations__": {"got": list[int]}, "got": [], "take": take}
    node = type("Node", (Entity,), {**fields, "remind": remind, "_remember": _remember})
    return App("moving", entities=[node, type("Gone", (Entity,), fields)])


def test_rows_of_an_older_release_keep_their_meaning_where_that_release_never_ran(
    trio: Trio,
) -> None:
    gone = next(key for key in map(str, range(9999)) if slot_of("Gone", key) == SLOT)
    trio.ends[1].app = older_release()
    trio.crash(1)
    trio.ask(1, MOVED, "take", 1)
    trio.ask(1, MOVED, "remind", 3600)
    trio.ask(1, gone, "take", 1, entity="Gone")
    trio.talk()
    state = trio.ends[1].store.state("Gone", gone)
    assert state is not None
    trio.ends[1].app = APP
    trio.crash(1)
    moved(trio, 2)
    assert trio.ends[2].shard.kept_types == {"Node", "Gone"}
    trio.ask(2, MOVED, "take", 2)
    for end in trio.ends.values():
        end.tick(4000)
    trio.talk()
    assert trio.node().got == [1, 2]
    assert trio.node().heard == ["first second"]
    moved(trio, 0)
    assert trio.ends[2].store.state("Gone", gone) is None
    assert trio.ends[0].store.state("Gone", gone) == state


@pytest.mark.parametrize("begin", [Trio.move, Trio.name])
def test_a_slot_is_cut_no_faster_than_its_new_owner_takes_it(
    begin: Callable[[Trio, int, int], None],
) -> None:
    trio = Trio()
    with (
        mock.patch.object(handover, "CHUNK_BYTES", 1),
        mock.patch.object(moves, "AHEAD_BYTES", 1),
        mock.patch.object(moves, "COPY_AHEAD_BYTES", 1),
    ):
        filled(trio)
        connect(trio)
        trio.held.add((1, 2))
        begin(trio, SLOT, 2)
        trio.talk()
        assert trio.rows_to(1, 2) == 1
        trio.release()
        moved(trio, 2)


# ── copies that are made while a slot is served ──


def test_a_slot_is_served_while_it_is_copied_and_its_changes_follow(trio: Trio) -> None:
    rows = filled(trio)
    trio.name(SLOT, 2)
    trio.talk()
    assert trio.serves(1) and not trio.serves(2)
    assert trio.rows(2) == rows
    trio.ask(1, MOVED, "remind", 60)  # Sets the same timer, at another time.
    trio.ask(1, MOVED, "say", 3)
    trio.ask(1, BESIDE, "take", 4)
    trio.talk()
    changed = trio.rows(1)
    assert changed != rows
    assert trio.rows(2) == changed
    assert trio.node(BESIDE).got == [4]
    trio.ask(1, BESIDE, "clear")
    trio.talk()
    assert trio.ends[2].store.state("Node", BESIDE) is None
    moved(trio, 2)
    trio.ask(2, BESIDE, "take", 5)
    trio.talk()
    assert trio.node(BESIDE).got == [5], "what was forgotten stays forgotten"


def test_what_changes_while_a_slot_is_copied_row_by_row_is_as_new_at_the_end() -> None:
    for rounds in range(0, 40, 3):
        with mock.patch.object(handover, "CHUNK_BYTES", 1):
            trio = Trio()
            filled(trio)
            trio.name(SLOT, 2)
            for n in range(rounds):
                trio.round()
                if n % 4 == 0:
                    trio.ask(
                        1, (MOVED, BESIDE)[n % 8 == 0], "take", n, session=n.to_bytes(16, "big")
                    )
                if n % 5 == 0:
                    trio.ask(1, BESIDE, "remind", 600 + n)
                if n % 11 == 0:
                    trio.crash(1 + n % 2)
            trio.talk()
            rows = trio.rows(1)
            assert trio.rows(2) == rows
            moved(trio, 2)
            assert trio.rows(2) == rows


def test_a_copy_that_is_given_up_leaves_nothing_and_disturbs_no_later_one() -> None:
    trio = Trio()
    filled(trio)
    connect(trio)
    trio.name(SLOT, 2)
    trio.talk()
    assert trio.rows(2)
    trio.held.add((1, 2))
    trio.ask(1, MOVED, "take", 8)
    trio.talk()  # A change is on its way when the copy is given up.
    trio.give_up()
    trio.talk()
    assert not trio.rows(2)
    trio.name(SLOT, 2)
    trio.talk()
    trio.release()
    trio.talk()
    rows = trio.rows(1)
    assert trio.rows(2) == rows
    moved(trio, 2)
    assert trio.rows(2) == rows


def test_a_copy_is_given_up_when_the_slot_goes_elsewhere() -> None:
    trio = Trio()
    rows = filled(trio)
    trio.name(SLOT, 0)
    trio.talk()
    assert trio.rows(0) == rows
    moved(trio, 2)
    assert trio.rows(2) == rows
    assert not trio.rows(0)


def test_a_new_owner_takes_what_changed_after_the_copy_was_whole_though_both_were_killed() -> None:
    trio = Trio()
    filled(trio)
    trio.name(SLOT, 2)
    trio.talk()
    trio.crash(1, 2)
    trio.ask(1, MOVED, "take", 9)
    trio.talk()
    trio.crash(1, 2)
    moved(trio, 2)
    assert trio.node().got[-1] == 9


# ── dead letters ──


def test_a_dead_letter_is_sent_anew_by_the_new_owner_and_the_old_one_says_that_it_moved(
    trio: Trio,
) -> None:
    broken.add(7)
    trio.ask(1, AT[1], "forward", MOVED, 7)
    trio.talk()
    broken.clear()
    ((id, _),) = trio.ends[1].store.scan(Table.DEAD)

    def retry(shard: int) -> str:
        trio.ends[shard].shard.accept(Operated("operator", 1, "retry", bytes(id)))
        trio.talk()
        return trio.told[shard][-1]

    unacked(trio)
    trio.move(SLOT, 2)
    trio.talk()
    assert not trio.serves(1)
    assert trio.rows(1), "it waits for an ack"
    assert retry(1) == "moved"
    assert retry(2) == "moved"
    trio.release()
    assert trio.arrived() == 2
    assert retry(1) == "moved"
    assert [end.shard.dead for end in trio.ends.values()] == [0, 0, 1]
    assert retry(2) == "done"
    assert trio.node().got == [7]
    assert [end.shard.dead for end in trio.ends.values()] == [0, 0, 0]


# ── versions ──


def test_a_version_that_is_known_changes_nothing(trio: Trio) -> None:
    moved(trio, 2)
    before = [end.shard.no for end in trio.ends.values()]
    trio.tell(0, 1, 2)
    trio.talk()
    assert [end.shard.no for end in trio.ends.values()] == before
    assert trio.arrived() == 2


def test_a_version_is_finished_when_that_is_durable() -> None:
    trio = Trio()
    end = trio.ends[0]
    trio.move(SLOT, 2, told=[0])
    assert end.shard.standing() == Standing(1, False, [])
    end.run(synced=False)
    assert end.shard.standing() == Standing(2, False, [1])
    end.sync()
    assert end.shard.standing() == Standing(2, True, [1])


GOOD = {shard: Standing(1, True, []) for shard in (0, 1, 2)}


@pytest.mark.parametrize(
    "others",
    [{1: Standing(0, True, [])}, {1: Standing(1, False, [])}, {1: None}],
    ids=["one is behind", "one has not finished", "one is down"],
)
def test_the_next_version_waits_until_all_have_finished_the_last(
    others: dict[int, Standing | None],
) -> None:
    standings = {shard: found for shard, found in (GOOD | others).items() if found is not None}
    for goal in ([0, 1], [0, 1, 2, 3]):
        up = {} if 3 not in goal else {3: Standing(1, True, [])}
        scaling = Scaling(goal, slots_max=10)
        assert scaling.next(PLACEMENT, GOOD | up) is not None
        assert scaling.next(PLACEMENT, standings | up) is None


@pytest.mark.parametrize(
    "busy", [{0: Standing(1, True, [2])}, {2: Standing(1, True, [0])}, {2: Standing(1, True, [2])}]
)
def test_a_member_leaves_when_nothing_is_on_its_way_between_it_and_others(
    busy: dict[int, Standing],
) -> None:
    slots = [slot % 2 for slot in range(SLOTS)]
    emptied = Placement(1, [0, 1, 2], slots, 3)
    scaling = Scaling([0, 1], slots_max=10)
    others = {0: Standing(1, True, [1])}
    found = scaling.next(emptied, GOOD | others)
    assert found is not None
    assert (found.members, found.slots) == ([0, 1], slots)
    assert scaling.next(emptied, GOOD | busy) is None


def test_a_kill_that_brings_acked_frames_to_a_member_back_after_it_left_harms_nothing() -> None:
    """Acks are not durable: only the next commit deletes the frames' rows."""
    trio = Trio()
    trio.join(3)
    moved(trio, 3)
    moved(trio, 1)
    assert all(list(end.shard.standing().unacked) == [] for end in trio.ends.values())
    assert trio.rows_to(0, 3) > 0, "its mark is acked, and no commit has come since"
    trio.leave(3, told=[1, 2])
    trio.crash(0)
    trio.talk()
    assert trio.arrived() == 1
    assert trio.rows_to(0, 3) == 0


# ── shards that are dealt out to others, after a loss ──


def dealt_out(trio: Trio) -> dict[Any, bytes]:
    """The slot's rows at the one shard that all slots are dealt out to."""
    new = {7: MemoryStore()}
    new[7].prompt = True
    stores = {end.me: end.store for end in trio.ends.values()}
    deal(stores, placer.after(trio.placement, [*new]), new)
    trio.ends[7] = Owner(7)
    trio.ends[7].store = new[7]
    return trio.rows(7)


@pytest.mark.parametrize("held", [False, True], ids=["all has come", "changes are on their way"])
def test_what_is_dealt_out_of_a_slot_is_its_owners(trio: Trio, held: bool) -> None:
    filled(trio)
    connect(trio)
    trio.name(SLOT, 2)
    trio.talk()
    if held:
        trio.held.add((1, 2))
    trio.ask(1, MOVED, "take", 8)
    trio.talk()
    rows = trio.rows(1)
    assert (trio.rows(2) == rows) is not held
    assert dealt_out(trio) == rows


def test_what_is_left_of_a_copy_that_was_given_up_is_not_dealt_out() -> None:
    trio = Trio()
    filled(trio)
    trio.name(SLOT, 2)
    trio.talk()
    with mock.patch.object(handover, "CHUNK_BYTES", 1):
        trio.give_up()
        while SLOT not in stored(trio.ends[2].store, PLACEMENT).gone:
            trio.round()
        trio.ask(1, MOVED, "remind", 60)
        trio.round()
        assert trio.rows(2), "they are deleted one by one"
    rows = trio.rows(1)
    assert dealt_out(trio) == rows


def test_what_was_sent_by_the_old_version_is_dealt_out_before_what_was_sent_by_the_new_one() -> (
    None
):
    """Neither owner has heard of the version by which the slot moves; only a sender has."""
    trio = Trio()
    trio.held |= {(2, 0), (2, 1)}
    trio.ask(2, AT[2], "forward", MOVED, 9)
    trio.talk()
    trio.move(SLOT, 0, told=[2])
    trio.talk()
    trio.ask(2, AT[2], "forward", MOVED, 8)
    trio.talk()
    dealt_out(trio)
    (frame,) = (value for _, value in trio.ends[7].store.scan(Table.OUTBOX))
    runs = wire.decode_runs(msgspec.msgpack.decode(frame, type=OutboxRow).body)
    assert [number for run in runs for number in wire.plain_columns(run)[0]] == [9, 8]
