"""A frame in parts: each message in one of them, in order, at a cost that does not grow."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from skerry.runtime.core import wire
from skerry.runtime.core.events import Table
from skerry.runtime.core.streams.inbound import Inbound
from skerry.runtime.core.streams.parts import CutFrame
from skerry.runtime.core.wire import Call, Kind, Packet, Run
from tests.core.effort import effort, grows_like

SHAPES = ("columns", "blobs", "outcomes", "unreadable")


def run_of(shape: str, count: int, first: int) -> Run:
    """A run of messages whose keys are their numbers."""
    keys, numbers = [str(first + n) for n in range(count)], list(range(first, first + count))
    columns, blobs, extras = wire.NO_COLUMNS, None, None
    if shape == "columns":
        columns = Raw(wire._encoder.encode([numbers, keys]))
    elif shape == "blobs":
        blobs = [Raw(wire._encoder.encode([n])) for n in numbers]
    elif shape == "outcomes":
        extras = [(b"%d" % n, "done", b"") for n in numbers]
    else:
        columns = Raw(b"\x91\xdd" + count.to_bytes(4, "big") + wire.UNREAD * count)
    call = Call.OUTCOME if shape == "outcomes" else Call.SEND
    return Run(call, "T", 1, 2, keys, columns, blobs, extras)


def listed(runs: list[Run]) -> list[Any]:
    """Messages one by one."""
    found: list[Any] = []
    for run in runs:
        extras = run.extras or [None] * len(run.keys)
        found += zip(run.keys, wire.blobs_of(run), extras, strict=True)
    return found


def frame_of(count: int, seq: int = 1) -> Packet:
    """A frame of so many messages."""
    return Packet(Kind.FRAME, 1, 0, 1, 1, 1, seq, seq, count, 0)


@given(
    st.lists(st.tuples(st.sampled_from(SHAPES), st.integers(1, 768)), max_size=4),
    st.lists(st.integers(1, 512), min_size=1),
)
def test_parts_are_the_messages_of_the_frame_in_order(
    shapes: list[tuple[str, int]], sizes: list[int]
) -> None:
    runs: list[Run] = []
    count = 0
    for shape, messages in shapes:
        runs.append(run_of(shape, messages, count))
        count += messages
    frame, found, at = CutFrame(runs), list[Any](), 0
    while at < count:
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        part = listed(frame.part(at, min(count, at + size)))
        assert len(part) == min(count, at + size) - at
        found += part
        at += size
    assert found == listed(runs)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8), st.data())
def test_each_message_is_taken_once_whatever_is_lost_between_two_batches(
    counts: list[int], moments: st.DataObject
) -> None:
    """After a crash the sender says all frames again that were not taken whole."""
    stream, taken = Inbound(1), list[tuple[int, int]]()
    frames = [frame_of(count, seq) for seq, count in enumerate(counts, 1)]
    for frame in frames:
        stream.receive(frame)
    while stream.waiting:
        part = stream.take(moments.draw(st.integers(1, 7)))
        taken += [(part.packet.seq, n) for n in range(part.start, part.end)]
        if moments.draw(st.booleans()):
            _, _, row = stream.row()
            stream = Inbound(1)
            stream.recover(row)
            for frame in frames[stream.taken :]:
                stream.receive(frame)
    assert taken == [(seq, n) for seq, count in enumerate(counts, 1) for n in range(count)]


def test_a_frame_that_is_under_way_is_one_that_was_not_taken() -> None:
    """An ack of it would let its sender forget messages that have not run."""
    stream = Inbound(1)
    stream.receive(frame_of(10))
    assert not stream.take(9).ends
    assert (stream.taken, stream.taken_position) == (0, 0)
    with pytest.raises(AssertionError, match="I4"):
        stream.durable_upto(1, 1)
    assert stream.take(9).ends
    assert stream.taken == 1
    table, _, _ = stream.row()
    assert table == Table.STREAM


def test_to_run_a_frame_in_parts_costs_as_much_for_each_message_however_large_it_is() -> None:
    def in_parts(count: int) -> int:
        def run() -> None:
            frame = CutFrame([run_of("columns", count, 0)])
            for at in range(0, count, 100):
                frame.part(at, min(count, at + 100))

        return effort(run)

    assert grows_like(in_parts(2000), in_parts(16_000), 8)
