"""The receiving end of a stream: what its sender is told, and when."""

from __future__ import annotations

from skerry.runtime.core.ownership import Ownership, balanced
from skerry.runtime.core.streams.inbound import CREDIT_BYTES, Inbound
from skerry.runtime.core.streams.links import REASONS_MAX, Streams
from skerry.runtime.core.wire import Kind, Packet

FRAME_BYTES = 1000


def frame(seq: int) -> Packet:
    """A frame of shard 1 to shard 0, each as large as the others."""
    position, body = seq * FRAME_BYTES, bytes(FRAME_BYTES)
    return Packet(Kind.FRAME, 1, 0, 1, 1, 1, seq, position, 1, 7 * seq, 0, 0, False, 0, body)


def test_credit_grows_with_what_is_durable_and_not_with_what_is_received_or_has_run() -> None:
    """What is taken and not durable is in memory still: more of it would be without bound (I7)."""
    stream = Inbound(1)
    for seq in (1, 2, 3):
        stream.receive(frame(seq))
        assert stream.credit == CREDIT_BYTES
    for _ in range(3):
        stream.take(1)
        assert stream.credit == CREDIT_BYTES
    for seq in (1, 3):
        stream.durable_upto(seq, seq * FRAME_BYTES)
        assert stream.credit == CREDIT_BYTES + seq * FRAME_BYTES


def test_frames_are_taken_in_the_order_of_their_numbers() -> None:
    stream = Inbound(1)
    for seq in range(1, 9):
        stream.receive(frame(seq))
        if seq % 3 == 0:
            assert stream.take(1).packet.seq == seq // 3
    assert [stream.take(1).packet.seq for _ in range(len(stream.waiting))] == [3, 4, 5, 6, 7, 8]


def test_of_all_that_strangers_send_as_many_reasons_are_kept_as_fit_and_each_packet_counts() -> (
    None
):
    streams = Streams(
        Ownership(0, balanced([0, 1], version=1, next_id=2)), bytes(16), 1, lambda *_: None
    )
    for first in range(1000):
        streams.arrived(first.to_bytes(2, "big") + bytes(200))
    assert len(streams.refused) == REASONS_MAX + 1
    assert sum(streams.refused.values()) == 1000
