"""What lies in an outbox when shards are dealt out anew: all of it, in order, each frame read once."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.app import reshard
from skerry.runtime.core import wire
from skerry.runtime.core.buffer import HEADS, Runs
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.streams.inbound import Inbound, InboundRow
from skerry.runtime.core.streams.outbound import OutboxRow, outbox_key
from skerry.runtime.core.wire import Call
from tests.core.shapes import HANDLERS, NAMES, args_of

PLACEMENT = balanced([5, 6, 7], version=2, next_id=8)
SENDER, RECEIVER = 0, 1

Sent = tuple[int, str, str, int]
"""(call, handler's name, key, number)."""


def body_of(messages: list[Sent]) -> bytes:
    """A frame's."""
    runs = Runs()
    for call, name, key, number in messages:
        handler = HANDLERS[name]
        extra = None if call == Call.SEND else ("Thing", "z", b"%d" % number)
        runs.add(HEADS[call][handler], key, handler.entry(args_of(name, number)), extra)
    ((body, count),) = runs.frames()
    assert count == len(messages)
    return body


class Outbox:
    """The store of a shard that had sent these frames, and of the one that took some of them."""

    def __init__(self, bodies: list[bytes], known: InboundRow | None) -> None:
        self._bodies, self._known = bodies, known

    def read(self, table: int, key: bytes) -> bytes | None:
        """What was taken."""
        assert (table, key) == (Table.STREAM, Inbound.row_key(SENDER))
        return None if self._known is None else msgspec.msgpack.encode(self._known)

    def scan(self, table: int, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        assert (table, prefix) == (Table.OUTBOX, RECEIVER.to_bytes(4, "big"))
        for seq, body in enumerate(self._bodies, 1):
            yield outbox_key(RECEIVER, seq), msgspec.msgpack.encode(OutboxRow(0, 1, 0, body))


def deal(frames: list[list[Sent]], known: InboundRow | None = None) -> dict[int, list[wire.Run]]:
    """What becomes of these frames: by new owner."""
    outbox: Any = Outbox([body_of(messages) for messages in frames], known)
    new: Any = {shard: SimpleNamespace(waiting=[]) for shard in PLACEMENT.members}
    held = reshard._Held(RECEIVER, {}, {})
    ends = {SENDER: outbox, RECEIVER: outbox}
    reshard._deal_frames(ends, SENDER, RECEIVER, held, PLACEMENT, new)
    return {shard: made.waiting for shard, made in new.items()}


def told(runs: list[wire.Run]) -> list[tuple[int, int, str, bytes, Any]]:
    """Message by message: call, handler, key, arguments and what else it carries."""
    return [
        (run.call, run.handler, key, blob, extra)
        for run in runs
        for key, blob, extra in zip(
            run.keys, wire.blobs_of(run), run.extras or [None] * len(run.keys), strict=True
        )
    ]


MESSAGE = st.tuples(
    st.sampled_from([Call.SEND, Call.ASK]), st.sampled_from(NAMES), st.integers(0, 5)
)


@given(st.lists(st.lists(MESSAGE, min_size=1, max_size=20), max_size=3), st.data())
def test_each_owner_gets_whatever_has_not_run_in_the_order_of_the_stream(
    drawn: list[list[tuple[int, str, int]]], run: st.DataObject
) -> None:
    """Frames that were taken are over, and of the next one a part may have run."""
    frames = [
        [(call, name, f"k{key}", number) for number, (call, name, key) in enumerate(messages)]
        for messages in drawn
    ]
    known = None
    if taken := run.draw(st.integers(0, len(frames))):
        known = InboundRow(taken - 1, begun=run.draw(st.integers(0, len(frames[taken - 1]) - 1)))
    left = [*frames]
    if known is not None:
        left = [frames[known.taken][known.begun :], *frames[known.taken + 1 :]]
    sent = told([run for messages in left for run in wire.decode_runs(body_of(messages))])
    dealt = {shard: told(runs) for shard, runs in deal(frames, known).items()}
    for shard, messages in dealt.items():
        assert messages == [m for m in sent if PLACEMENT.slots[slot_of("Thing", m[2])] == shard]
    assert sum(map(len, dealt.values())) == len(sent)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_of_many_messages_is_read_once_and_cut_once_per_owner(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame: list[Sent] = [(Call.SEND, name, f"k{number}", number) for number in range(1000)]
    reads, decode = 0, msgspec.msgpack.decode

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal reads
        reads += 1
        return decode(*args, **kwargs)

    monkeypatch.setattr(msgspec.msgpack, "decode", counted)
    dealt = deal([frame])
    assert reads <= 2, "the row, and the columns of its run"
    assert [len(runs) for runs in dealt.values()] == [1, 1, 1]
