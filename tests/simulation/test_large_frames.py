"""Frames that are larger than a batch: run in parts, each message once, whatever ends between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from skerry import message
from skerry.runtime.core.demand import Budget
from skerry.runtime.core.events import Identity, Items, Requested
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.tables.positions import partition_slot
from skerry.stream.columns import Columns
from tests.simulation.test_packets import (
    HERE,
    PLACEMENT,
    THERE,
    End,
    Post,
    connected,
    request_of,
    talk,
)

MESSAGES, TURNS = 95, 10


def burst(end: End, to: str) -> None:
    """A client's request whose turn sends many messages to one entity."""
    one = message(Post.at(HERE if end.me == 0 else THERE).burst, "", 0)
    args = msgspec.msgpack.encode([to, MESSAGES])
    asked = request_of(bytes(16), 1, end.clock_ns, "Post", one.key, "burst", args, reply=False)
    end.shard.accept(Requested("client", *asked))
    end.run(Budget(turns=TURNS))


def turns_of(end: End) -> int:
    """Run a batch of messages; how many turns it had."""
    while end.shard.runnable:
        batch = end.run(Budget(turns=TURNS))
        if batch is not None and batch.turns:  # Else it has looked through old requests.
            return batch.turns
    return 0


def says_again(a: End, b: End) -> None:
    """After a crash of `b`: both greet, and what `b` has not taken whole comes again."""
    for _ in range(5):
        a.tick(0.4)
        b.receives(*a.says())
        a.receives(*b.says())


@pytest.mark.parametrize("crash_after", range(0, 10, 3))
def test_a_peers_frame_that_is_larger_than_a_batch_runs_in_parts_once(crash_after: int) -> None:
    """The receiver crashes with a part of it durable; the sender says all of it again."""
    a, b = connected()
    burst(a, THERE)
    (frame,) = a.frames()
    assert frame.count == MESSAGES
    b.receives(frame)
    turns = []
    for number in range(100):
        if number == crash_after:
            assert b.got == list(range(number * TURNS))
            b.reopen()
            assert b.got == list(range(number * TURNS))
            says_again(a, b)
        if not b.shard.runnable:
            break
        turns.append(turns_of(b))
        released = a.shard.streams.outbound[1].released
        assert released == 0, "a frame was acked that has not run whole"
    assert turns == [TURNS] * 9 + [MESSAGES - 9 * TURNS]
    assert b.got == list(range(MESSAGES))
    talk(a, b)
    assert a.shard.streams.outbound[1].released == 1
    assert b.got == list(range(MESSAGES))


@pytest.mark.parametrize("crash_after", range(0, 9, 4))
def test_the_own_stream_is_run_in_parts_too(crash_after: int) -> None:
    """What a turn sends to its own shard beyond a batch lies there, in one frame."""
    a = End(0)
    burst(a, HERE)
    turns = []
    while a.shard.runnable:
        if len(turns) == crash_after:
            a.reopen()
        turns.append(turns_of(a))
    assert max(turns) <= TURNS
    assert a.got == list(range(MESSAGES))


class Keyed:
    """A pipeline whose items are the keys of their messages."""

    def apply(self, items: Sequence[Any], /) -> Sequence[Columns]:
        return [(Post.__skerry__.handlers["take"], list(items), [(0, "")] * len(items))]


def test_a_bad_key_is_a_dead_letter_while_the_own_stream_waits() -> None:
    """In a frame it would be refused by its shard again and again, and hold up the stream."""
    bad = next(name for name in ("", "x" * 500) if PLACEMENT.slots[slot_of("Post", name)] == 1)
    a, b = connected()
    a.pipelines = {"s": Keyed()}
    a.reopen()
    talk(a, b)
    burst(a, HERE)
    assert a.shard.demand().inside
    ours = next(str(n) for n in range(9) if PLACEMENT.slots[partition_slot("s", str(n))] == 0)
    a.shard.accept(Items("s", ours, None, [1, 2], [bad, THERE]))
    while a.shard.runnable:
        a.run(Budget(turns=TURNS))
    talk(a, b)
    assert b.got == [0]
    assert a.shard.dead == 1


def test_in_quarantine_each_message_of_a_frame_is_a_batch_with_a_name() -> None:
    a, b = connected()
    burst(a, THERE)
    (frame,) = a.frames()
    named: list[Identity] = []
    b.slow, b.watch = True, named.append
    b.reopen()
    says_again(a, b)
    turns = [turns_of(b) for _ in range(MESSAGES)]
    assert turns == [1] * MESSAGES
    assert named == [(a.me, frame.seq, number) for number in range(MESSAGES)]
    assert b.got == list(range(MESSAGES))
