"""Packet by packet: what two shards answer each other, driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import msgspec
import pytest

from skerry import App, Entity, StoreDamaged, send
from skerry.message import message
from skerry.runtime.core import wire
from skerry.runtime.core.demand import ALL, Batch, Budget
from skerry.runtime.core.events import (
    Arrived,
    Cut,
    Durable,
    Effect,
    Identity,
    Keep,
    Reply,
    Requested,
    RequestRun,
    Stop,
    Table,
    Ticked,
    Transmit,
)
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.settings import Pipeline, Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.streams import inbound, outboxes
from skerry.runtime.core.wire import Kind, Packet
from skerry.runtime.simulator.disk import MemoryStore


class Post(Entity):
    got: list[int] = []

    def forward(self, to: str, number: int, size: int = 0) -> None:
        send(Post.at(to).take, number, "x" * size)

    def burst(self, to: str, count: int) -> None:
        for number in range(count):
            send(Post.at(to).take, number, "")

    def take(self, number: int, padding: str) -> None:
        self.got.append(number)


APP = App("packets", entities=[Post])
TYPES = APP.types
PLACEMENT = balanced([0, 1], version=1, next_id=2)


def key_of(shard: int) -> str:
    """A key that lives on this shard."""
    names = (f"k{n}" for n in range(100))
    return next(name for name in names if PLACEMENT.slots[slot_of("Post", name)] == shard)


HERE, THERE = key_of(0), key_of(1)


def request_of(
    session: bytes,
    number: int,
    first_ns: int,
    entity: str,
    key: str,
    handler: str,
    args: bytes,
    *,
    reply: bool = True,
) -> tuple[bytes, list[RequestRun]]:
    """A session's request, alone in its message, that follows no other."""
    alone = msgspec.Raw(b"\x91" + args)
    return session, [RequestRun(entity, handler, reply, first_ns, [number], [0], [key], alone)]


class End:
    """A shard on its disk; all packets pass through our hands."""

    app, placement = APP, PLACEMENT
    """What it runs when it opens, and where its slots are while its store says nothing else."""

    def __init__(self, me: int, store: MemoryStore | None = None, *, slow: bool = False) -> None:
        self.me, self.store, self.asked = me, store or MemoryStore(), 0
        self.slow = slow
        self.watch: Callable[[Identity], None] = lambda _: None
        self.pipelines: dict[str, Pipeline] = {}
        self.clock_ns = 10**18
        self.open()

    def open(self) -> None:
        """Take over from what is on the disk."""
        settings = Settings(
            me=self.me,
            incarnation=bytes(16),
            placement=self.placement,
            types=self.app.types,
            pipelines=self.pipelines,
            outlets=dict(self.app.outlets),
            slow=self.slow,
        )
        self.shard = Shard(settings, self.store, self.store.last, self.watch)
        self.keep: Callable[[int], object] = self.store.keep
        self._effects: list[Effect] = []
        self.tick()
        self.commit(self.shard.open())

    def reopen(self) -> None:
        """A crash, and a start."""
        self.store.crash()
        self.open()

    def effects(self) -> list[Effect]:
        """Take what it wants outside; rows for a backup are kept at once."""
        self._keep()
        effects, self._effects = self._effects, []
        return effects

    def _keep(self) -> None:
        for effect in self.shard.take_effects():
            if isinstance(effect, Keep):
                self.keep(effect.no)
            else:
                self._effects.append(effect)

    def run(self, budget: Budget = ALL, *, synced: bool = True) -> Batch | None:
        """Run a batch."""
        self._keep()
        batch = self.shard.run(budget)
        self.commit(None if batch is None else batch.commit, synced=synced)
        return batch

    def cut(self, no: int) -> None:
        """Take a cut for a backup."""
        self.shard.accept(Cut(no))
        self._keep()

    def tick(self, seconds: float = 0) -> None:
        """Time passes."""
        self.clock_ns += int(seconds * 1e9)
        self.shard.accept(Ticked(self.clock_ns, self.clock_ns))

    def commit(self, commit: object, *, synced: bool = True) -> None:
        """Append, and sync unless told otherwise."""
        if commit is not None:
            self.store.append(commit)  # type: ignore[arg-type]
            if synced:
                self.sync()

    def sync(self) -> None:
        """The disk finishes all."""
        self.store.sync(self.shard.no)
        self.shard.accept(Durable(self.shard.no))

    def forward(self, number: int, *, size: int = 0, synced: bool = True) -> None:
        """A client's request whose turn sends one message to the other shard."""
        one = message(Post.at(HERE if self.me == 0 else THERE).forward, "", number)
        self.asked += 1
        args = msgspec.msgpack.encode([THERE if self.me == 0 else HERE, number, size])
        self.last_request = request_of(
            bytes(16), self.asked, self.clock_ns, "Post", one.key, "forward", args, reply=False
        )
        self.shard.accept(Requested("client", *self.last_request))
        self.run(synced=synced)

    def says(self) -> list[Packet]:
        """What it wants to send, unpacked. Raises what stops it."""
        packets = []
        for effect in self.effects():
            if isinstance(effect, Stop):
                raise effect.error
            if isinstance(effect, Transmit):
                packets.append(wire.unpack(effect.raw))
        return packets

    def replies(self) -> list[Reply]:
        """The outcomes among what it wants outside."""
        return [effect for effect in self.effects() if isinstance(effect, Reply)]

    def frames(self) -> list[Packet]:
        """The frames among what it wants to send."""
        return [packet for packet in self.says() if packet.kind == Kind.FRAME]

    def receives(self, *packets: Packet) -> None:
        """Let packets arrive."""
        self.tick()
        for packet in packets:
            self.shard.accept(Arrived(wire.pack(packet)))

    def hears(self, *packets: Packet) -> list[Packet]:
        """Let packets arrive, run what they bring, and hear the answer."""
        self.receives(*packets)
        while self.shard.runnable:
            self.run()
        return self.says()

    def waits(self) -> list[Packet]:
        """What it says when nothing else happens for a while."""
        self.tick(0.05)
        return self.says()

    @property
    def got(self) -> list[int]:
        """What has arrived at this shard's entity."""
        state = self.store.state("Post", HERE if self.me == 0 else THERE)
        return [] if state is None else TYPES["Post"].decode(state, "", lambda _: None).got


def connected() -> tuple[End, End]:
    """Two shards that have shaken hands."""
    a, b = End(0), End(1)
    b.shard.accept(Arrived(wire.pack(hello(a, b))))
    talk(a, b)
    return a, b


def hello(a: End, b: End) -> Packet:
    """What one that has never sent a frame says first."""
    return Packet(
        kind=Kind.HELLO, src=a.me, dst=b.me, src_epoch=a.shard.epoch, dst_epoch=0, placement=1,
        seq=0, position=0, count=0, checksum=0, body=bytes(16),
    )  # fmt: skip


def talk(a: End, b: End) -> None:
    """Carry packets until nobody has anything to say."""
    while (from_a := a.waits()) + (from_b := b.waits()):
        while from_a or from_b:
            from_a, from_b = a.hears(*from_b), b.hears(*from_a)


def kinds(packets: list[Packet]) -> list[Kind]:
    return [Kind(packet.kind) for packet in packets]


def test_each_opening_is_a_new_epoch() -> None:
    a, _ = connected()
    epochs = []
    for _ in range(3):
        epochs.append(a.shard.epoch)
        a.reopen()
    assert epochs == sorted(set(epochs))


def test_nothing_leaves_before_its_commit_is_durable() -> None:
    a, b = connected()
    a.forward(1, synced=False)
    assert a.says() == []
    a.sync()
    (frame,) = a.frames()
    assert Kind(frame.kind) == Kind.FRAME
    b.hears(frame)
    assert b.got == [1]


def test_an_ack_comes_when_it_is_durable_and_a_lost_one_is_said_again() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    b.shard.accept(Arrived(wire.pack(frame)))
    b.run(synced=False)
    assert b.says() == []
    b.sync()
    assert b.says() == [], "it waits for company"
    assert kinds(b.waits()) == [Kind.ACK]
    assert b.hears(frame) == []
    assert kinds(b.waits()) == [Kind.ACK]
    assert b.waits() == []
    assert b.got == [1]


def test_a_frame_takes_the_ack_along() -> None:
    a, b = connected()
    a.forward(1)
    b.hears(*a.frames())
    b.forward(2)
    (frame,) = b.says()
    assert (Kind(frame.kind), frame.ack) == (Kind.FRAME, 1)
    assert b.waits() == [], "nothing is left to be said"
    a.hears(frame)
    assert not a.shard.demand().unacked


def test_who_is_asked_says_what_came_and_acks_what_is_durable() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    a.tick(1)
    (hello,) = a.says()
    b.shard.accept(Arrived(wire.pack(frame)))
    answers = [asked(b, hello)]
    b.run(synced=False)
    answers.append(asked(b, hello))
    b.sync()
    answers.append(asked(b, hello))
    assert [(answer.seq, answer.ack) for answer in answers] == [(1, 0), (1, 0), (1, 1)]
    a.hears(answers[-1])
    assert not a.shard.demand().unacked


def asked(end: End, hello: Packet) -> Packet:
    """Its answer; nothing runs meanwhile."""
    end.shard.accept(Arrived(wire.pack(hello)))
    (answer,) = end.says()
    return answer


def test_an_ack_that_only_an_older_life_was_told_is_still_said() -> None:
    a, b = connected()
    a.forward(1)
    (old,) = a.frames()
    a.reopen()
    talk(a, b)
    a.forward(2)
    b.hears(*a.frames())
    assert kinds(b.hears(old)) == [Kind.FENCED]
    assert kinds(b.waits()) == [Kind.ACK]


def test_who_has_nothing_to_do_with_each_other_says_nothing() -> None:
    a, b = End(0), End(1)
    for end in (a, b, a, b):
        assert end.waits() == []
        assert list(end.shard.streams.outbound) == [end.me]
        end.reopen()


def test_the_first_frame_waits_for_the_handshake_that_it_asks_for() -> None:
    a, b = End(0), End(1)
    a.forward(1)
    assert kinds(from_a := a.says()) == [Kind.HELLO]
    assert kinds(from_b := b.hears(*from_a)) == [Kind.RESUME]
    assert kinds(from_a := a.hears(*from_b)) == [Kind.RESUME, Kind.FRAME]
    assert b.hears(*from_a) == []
    assert b.got == [1]


def test_a_slow_peer_is_asked_and_gets_nothing_twice() -> None:
    a, b = connected()
    a.forward(1)
    slow = a.frames()
    a.tick(1)
    slow += a.says()
    a.forward(2)
    behind = a.frames()
    (resume,) = b.hears(*slow)
    assert (resume.seq, resume.position) == (1, 1)
    assert a.hears(resume) == [], "the second frame may be on its way"
    b.hears(*behind)
    assert b.got == [1, 2]


def test_an_ack_does_not_wait_while_credit_runs_out() -> None:
    with mock.patch.object(inbound, "CREDIT_BYTES", 1000):
        a, b = connected()
        a.forward(1, size=400)
        assert kinds(b.hears(*a.frames())) == [Kind.ACK]


def test_a_gap_is_asked_for_at_once_and_once() -> None:
    a, b = connected()
    frames = []
    for number in (1, 2, 3, 4):
        a.forward(number)
        frames += a.frames()
    b.hears(frames[0])
    (asked,) = b.hears(frames[2])
    assert (Kind(asked.kind), asked.seq) == (Kind.RESUME, 1)
    assert b.hears(frames[3]) == []
    assert b.got == [1]
    b.hears(*frames)
    assert b.got == [1, 2, 3, 4]


def test_a_peer_that_owes_an_ack_is_asked_again_after_silence() -> None:
    a, b = connected()
    a.forward(1)
    a.says()
    a.tick(0.1)
    assert a.says() == []
    a.tick(1)
    (hello,) = a.says()
    assert Kind(hello.kind) == Kind.HELLO
    resent = a.hears(*b.hears(hello))
    assert Kind.FRAME in kinds(resent)
    b.hears(*resent)
    assert b.got == [1]


def test_a_packet_of_a_sender_s_older_epoch_is_refused_and_told_so() -> None:
    a, b = connected()
    a.forward(1)
    (old,) = a.frames()
    a.reopen()
    talk(a, b)
    assert b.got == [1]
    (fenced,) = b.hears(old)
    assert (Kind(fenced.kind), fenced.seq) == (Kind.FENCED, a.shard.epoch)
    assert a.hears(fenced) == [], "the successor is not the one that was replaced"
    assert b.got == [1]


def test_a_packet_for_a_receiver_s_older_epoch_is_answered_with_hello() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    b.reopen()
    b.says()
    assert kinds(b.hears(frame)) == [Kind.HELLO]
    assert b.got == []


def test_a_frame_of_an_epoch_that_has_not_said_hello_is_answered_with_hello() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    unheard = wire.unpack(wire.pack(msgspec.structs.replace(frame, src_epoch=9)))
    assert kinds(b.hears(unheard)) == [Kind.HELLO]
    assert b.got == []


def test_credit_bounds_what_is_on_the_way_also_after_a_restart() -> None:
    with mock.patch.object(inbound, "CREDIT_BYTES", 1000):
        a, b = connected()
        for number in range(6):
            a.forward(number, size=400)
        assert 1 <= len(a.frames()) <= 3, "what may be sent is bounded"
        a.reopen()
        b.says()
        hello = next(packet for packet in a.says() if packet.kind == Kind.HELLO)
        resume, *_ = b.hears(hello)
        assert Kind(resume.kind) == Kind.RESUME
        offered = [packet for packet in a.hears(resume) if packet.kind == Kind.FRAME]
        assert 2 <= len(offered) <= 3, "RESUME says how far, not only from where"
        talk(a, b)
        a.tick(1)
        talk(a, b)
        assert b.got == list(range(6))


def test_a_store_that_went_back_in_time_is_named() -> None:
    a, b = connected()
    a.forward(1)
    talk(a, b)
    fresh = End(1)
    fresh.reopen()  # An empty disk, in an epoch that is newer than the lost one's.
    a.forward(2)  # It knows of nobody, so it greets nobody; and is known.
    with pytest.raises(StoreDamaged, match="the store of shard 1 went back in time"):
        talk(a, fresh)


@pytest.mark.parametrize("restarts", [0, 1, 2])
def test_an_old_copy_of_a_store_is_named_when_it_opens(restarts: int) -> None:
    """Also when its epoch happens to be the one that the peer knows: it has acked more."""
    a, b = connected()
    a.forward(1)
    talk(a, b)
    b.cut(7)
    b.reopen()
    talk(a, b)
    a.forward(2)
    b.hears(*a.frames())
    a.hears(*b.waits())
    old = End(1, b.store.restored())
    for _ in range(restarts):
        old.reopen()
    with pytest.raises(StoreDamaged, match=r"the store of shard 1 went back in time|was replaced"):
        talk(a, old)
        a.forward(3)
        talk(a, old)
        a.tick(1)
        talk(a, old)


def put_back(end: End) -> End:
    """It and its disk as they were, which others know newer epochs of: opened until it has one."""
    copy = End(end.me, end.store.restored())
    while copy.shard.epoch <= end.shard.epoch:
        copy.reopen()
    return copy


@pytest.mark.parametrize("acked", [True, False])
def test_another_frame_under_a_number_that_the_receiver_has_is_named(acked: bool) -> None:
    """The sender's disk was put back, and has sealed something else since."""
    a, b = connected()
    a.store.keep(7)
    a.forward(1)
    b.hears(*a.frames())
    assert b.got == [1]
    if acked:
        talk(a, b)
    old = put_back(a)
    old.forward(2)
    with pytest.raises(StoreDamaged, match=r"Frame 1 from shard 0 to shard 1 differs at its two"):
        talk(old, b)


@pytest.mark.parametrize("waits", [0, 1])
def test_a_receiver_that_has_more_than_its_sender_has_sealed_is_named(waits: int) -> None:
    """`waits`: so many frames the sender has sealed again, of the three that it had sent."""
    a, b = connected()
    a.store.keep(7)
    for number in range(3):
        a.forward(number)
        b.hears(*a.frames())
    assert b.got == [0, 1, 2]
    old = put_back(a)
    for number in range(waits):
        old.forward(number)
    with pytest.raises(StoreDamaged, match=r"has frame 3 of shard 0, which knows only .*went back"):
        talk(old, b)


def test_an_ack_beyond_what_was_sealed_is_named() -> None:
    a, b = connected()
    a.forward(1)
    b.hears(*a.frames())
    (ack,) = b.waits()
    beyond = wire.unpack(wire.pack(msgspec.structs.replace(ack, ack=2)))
    with pytest.raises(StoreDamaged, match="acks frame 2 of shard 0, which has sealed only 1"):
        a.hears(beyond)


def test_a_shard_of_another_incarnation_is_refused_and_counted_and_harms_nobody() -> None:
    a, b = connected()
    known = b.shard.streams.inbound[0].epoch
    stranger = msgspec.structs.replace(hello(a, b), src_epoch=known + 5, body=b"another's incarn")
    assert b.hears(stranger) == []
    assert list(b.shard.stats()["refused"].values()) == [1]
    assert b.shard.streams.inbound[0].epoch == known
    a.forward(1)
    b.hears(*a.frames())
    assert b.got == [1], "who belongs to it is not fenced by a stranger's epoch"


def test_a_shard_that_was_replaced_stops_when_a_packet_is_meant_for_its_successor() -> None:
    """It does not even run what the packet brings: its successor does (I5)."""
    a, b = connected()
    b.store.keep(7)
    successor = End(1, b.store.restored())
    a.forward(1)
    talk(a, successor)
    a.forward(2)
    (frame,) = a.frames()
    commit = b.shard.no
    with pytest.raises(StoreDamaged, match="was replaced and stops"):
        b.hears(frame)
    assert (b.shard.no, b.got) == (commit, [])
    successor.hears(frame)
    assert successor.got == [1, 2]


@pytest.mark.parametrize("slow", [True, False])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("keys", [[THERE], [HERE, THERE], [THERE, HERE, THERE]])
def test_a_request_at_the_wrong_door_is_told_that_it_moved_and_leaves_no_trace(
    keys: list[str], named: bool, slow: bool
) -> None:
    a = End(0, slow=slow)
    session, (run,) = request_of(bytes(16), 1, a.clock_ns, "Post", "", "take", b"")
    count = len(keys)
    args = msgspec.Raw(msgspec.msgpack.encode([[7, "x"]] * count))
    numbers = list(range(1, count + 1))
    run = msgspec.structs.replace(run, numbers=numbers, previous=[0] * count, keys=keys, args=args)
    a.shard.accept(Requested("client", session, [run], named=named))
    while a.shard.runnable:
        a.run()
    told = {n: reply.kind for reply in a.replies() for n in reply.numbers}
    assert told == {n: "done" if key == HERE else "moved" for n, key in zip(numbers, keys)}
    assert a.store.state("Post", THERE) is None
    assert a.got == [7] * keys.count(HERE)
    slots = {int.from_bytes(key[:2], "big") for key, _ in a.store.scan(Table.REQUEST)}
    assert slots <= {slot_of("Post", HERE)}, "its owner has never seen it"


def test_garbage_is_refused_and_counted_and_harms_nothing() -> None:
    a, b = connected()
    a.forward(1)
    (frame,) = a.frames()
    raw = wire.pack(frame)
    for broken in (b"", b"x", raw[:-1], raw[:20], raw + b"x", bytes(len(raw)), b"\xff" * 5000):
        b.shard.accept(Arrived(broken))
        assert b.says() == []
    for place in range(0, len(raw), 3):
        flipped = bytearray(raw)
        flipped[place] ^= 0x10
        b.shard.accept(Arrived(bytes(flipped)))
        b.says()
        assert not b.shard.runnable
    assert sum(b.shard.stats()["refused"].values()) > 20
    b.hears(frame)
    assert b.got == [1]


def cutting() -> tuple[End, End, list[tuple[int, list[int]]]]:
    """Two shards; the first has taken cut 7. And what the second keeps: (cut, what it had got)."""
    a, b = connected()
    kept: list[tuple[int, list[int]]] = []
    b.keep = lambda no: kept.append((no, b.got))
    a.cut(7)
    return a, b, kept


def test_a_frame_from_behind_a_cut_is_handled_behind_it() -> None:
    a, b, kept = cutting()
    a.forward(1)
    (frame,) = a.frames()
    b.hears(frame)
    assert kept == [(7, [])]
    assert b.got == [1]


def test_an_ack_from_behind_a_cut_is_heard_behind_it() -> None:
    a, b, _ = cutting()
    waiting: list[bool] = []
    b.keep = lambda no: waiting.append(any(True for _ in b.store.scan(Table.OUTBOX)))
    b.forward(1)
    (frame,) = b.frames()
    a.hears(frame)
    (ack,) = a.waits()
    assert b.shard.stats()["snapshot_marker"] == 0
    b.hears(ack)
    assert waiting == [True], "the copy still has the frame that this ack lets go"


def test_a_cut_is_taken_once_whoever_speaks_of_it() -> None:
    a, b, kept = cutting()
    for number in range(3):
        a.forward(number)
        b.hears(*a.frames())
    b.cut(7)
    b.cut(6)
    assert kept == [(7, [])]
    b.cut(8)
    assert kept == [(7, []), (8, [0, 1, 2])]


def test_what_was_sealed_before_a_cut_and_leaves_behind_it_says_the_cut() -> None:
    a, _ = connected()
    a.forward(1, synced=False)
    a.cut(7)
    a.sync()
    assert [packet.cut for packet in a.frames()] == [7]


def test_a_peer_that_was_pressed_is_asked_until_it_says_that_it_is_not() -> None:
    """No packet is lost: its last ack said "pressed", and it has had nothing to say since."""
    with mock.patch.object(outboxes, "PRESSED_BYTES", 1):
        a, b = connected()
        b.forward(1)
        under_way = b.frames()
        a.forward(2)
        b.hears(*a.frames())
        a.hears(*b.waits())
        assert b.shard.demand().backpressured
        assert a.shard.demand().backpressured, "b said so"
        a.hears(*under_way)
        b.hears(*a.waits())
        assert not b.shard.demand().backpressured
        assert a.shard.demand().backpressured, "b had no reason to say anything"
        a.tick(1)
        talk(a, b)
        assert not a.shard.demand().backpressured
