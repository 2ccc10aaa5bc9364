"""What the next batch takes of what waits: own frames, peers' frames, timers, then the outside."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import msgspec
import pytest

from skerry.runtime.core.events import Items, Requested, RequestRun
from skerry.runtime.core.schedule import Schedule, Work
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.streams.inbound import Inbound
from skerry.runtime.core.wire import Kind, Packet

ME = 0


def stream(peer: int, counts: tuple[int, ...]) -> Inbound:
    """A stream on which frames of so many messages wait."""
    made = Inbound(peer)
    for seq, count in enumerate(counts, 1):
        made.receive(Packet(Kind.FRAME, peer, ME, 1, 1, 1, seq, seq, count, 0))
    return made


class Waiting:
    """Frames and timers that wait."""

    def __init__(
        self, own: tuple[int, ...], peers: dict[int, tuple[int, ...]], timers: int
    ) -> None:
        self.own = stream(ME, own)
        self.ready = deque(stream(peer, counts) for peer, counts in peers.items())
        self.first = 0
        self._timers = timers

    @property
    def next_ns(self) -> int | None:
        return 1 if self._timers else None

    def due(self, now_ns: int, most: int) -> list[Any]:
        taken = min(most, self._timers)
        self._timers -= taken
        return [(b"key", None)] * taken

    def wait(self, stream: Inbound) -> None:
        self.ready.append(stream)


class Steps:
    """Slots that move, so many steps of them."""

    def __init__(self, steps: int = 0) -> None:
        self.left = steps

    @property
    def due(self) -> bool:
        return self.left > 0


def requests(count: int) -> Requested:
    """So many requests of one session, in one message."""
    numbers = list(range(1, count + 1))
    args = msgspec.Raw(msgspec.msgpack.encode([[]] * count))
    run = RequestRun("T", "h", True, 1, numbers, [0] * count, ["k"] * count, args)
    return Requested("caller", bytes(16), [run], size=count)


class Taken(NamedTuple):
    """What a batch took: frames as (sender, number), and how much of the others."""

    frames: list[tuple[int, int]]
    timers: int = 0
    requests: int = 0
    items: int = 0


def taken(work: Work) -> Taken:
    frames = [(part.packet.src, part.packet.seq) for part in work.frames]
    return Taken(frames, len(work.timers), work.requests, work.items)


def scheduled(waiting: Waiting, *, slow: bool = False, **limits: int) -> Schedule:
    return Schedule(Limits(**limits), waiting, waiting, Steps(), lambda session: True, slow=slow)


def test_a_step_of_slots_that_move_is_a_batch_of_its_own_and_every_other_at_most() -> None:
    waiting = Waiting((), {1: (1, 1, 1)}, 0)
    steps = Steps(9)
    schedule = Schedule(Limits(), waiting, waiting, steps, lambda session: True, slow=False)
    batches = [schedule.gather(1, 1) for _ in range(6)]
    assert [work.step for work in batches] == [True, False] * 3
    assert [len(work.frames) for work in batches] == [0, 1] * 3
    assert schedule.gather(1, 1).step
    assert schedule.gather(1, 1).step, "nothing else waits"


@pytest.mark.parametrize(
    ("own", "peers", "requested", "first"),
    [
        ((), {}, 100, Taken([], requests=64)),
        ((10,), {}, 100, Taken([(ME, 1)], requests=54)),
        ((64, 64), {}, 100, Taken([(ME, 1)], requests=8)),
        ((40, 40, 40), {}, 100, Taken([(ME, 1), (ME, 2)], requests=8)),
        ((64,), {1: (5, 5)}, 0, Taken([(ME, 1), (1, 1), (1, 2)])),
        ((), {1: (30, 30, 30), 2: (30,)}, 0, Taken([(1, 1), (2, 1), (1, 2)])),
        ((), {1: (1, 1), 2: (1,), 3: (1,)}, 100, Taken([(1, 1), (2, 1), (3, 1), (1, 2)], 0, 60)),
        ((200,), {1: (200,)}, 100, Taken([(ME, 1), (1, 1)], requests=8)),
    ],
)
def test_the_inside_comes_first_peers_in_turn_and_the_outside_always_has_a_part(
    own: tuple[int, ...], peers: dict[int, tuple[int, ...]], requested: int, first: Taken
) -> None:
    schedule = scheduled(Waiting(own, peers, timers=0))
    if requested:
        schedule.add(requests(requested))
    assert taken(schedule.gather(1, 64)) == first


def test_no_peer_runs_before_what_lay_on_the_own_stream() -> None:
    waiting = Waiting((40, 40), {1: (1,)}, timers=0)
    waiting.first = waiting.own.received
    schedule = scheduled(waiting)
    assert [taken(schedule.gather(1, 32)).frames for _ in range(3)] == [
        [(ME, 1)],
        [(ME, 1), (ME, 2)],
        [(ME, 2), (1, 1)],
    ]


def test_a_frame_is_cut_where_a_batch_of_its_own_would_be_too_small_for_it() -> None:
    schedule = scheduled(Waiting((), {1: (100, 30), 2: (64,)}, timers=0))
    found = [
        [(part.packet.src, part.start, part.end) for part in schedule.gather(1, 64).frames]
        for _ in range(3)
    ]
    assert found == [[(1, 0, 64)], [(2, 0, 64)], [(1, 64, 100), (1, 0, 30)]]


def test_in_quarantine_a_batch_is_one_message_and_the_inside_comes_first() -> None:
    schedule = scheduled(Waiting((2,), {1: (3,)}, timers=2), slow=True)
    schedule.add(requests(2))
    schedule.add(Items("s", "0", None, [1, 2, 3], ["a", "b", "c"]))
    found = [taken(schedule.gather(1, 64)) for _ in range(13)]
    assert found == [
        *[Taken([(ME, 1)])] * 2,
        *[Taken([(1, 1)])] * 3,
        *[Taken([], timers=1)] * 2,
        *[Taken([], requests=1)] * 2,
        *[Taken([], items=1)] * 3,
        Taken([]),
    ]


def test_items_that_are_cut_follow_each_other() -> None:
    first, rest = Items("s", "0", 4, [5, 6, 7], ["a", "b", "c"]).split(1)
    assert (first, rest) == (
        Items("s", "0", 4, [5], ["a"]),
        Items("s", "0", 5, [6, 7], ["b", "c"]),
    )


def test_the_queue_has_room_again_when_a_batch_has_taken_requests() -> None:
    schedule = scheduled(Waiting((), {}, timers=0), waiting_requests_max=10)
    schedule.add(requests(12))
    assert not schedule.has_room()
    work = schedule.gather(1, 5)
    assert (work.requests, schedule.crowded, schedule.has_room()) == (5, True, True)
    assert not schedule.asking, "not all that wait will be in the next batch"
    schedule.gather(1, 64)
    assert not schedule.waits(1)
