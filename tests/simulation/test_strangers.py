"""Packets that no shard of the app sends: refused and counted, and nothing else happens."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw
from msgspec.structs import replace

from skerry import StoreDamaged
from skerry.runtime.core import wire
from skerry.runtime.core.events import Arrived, Table
from skerry.runtime.core.streams import links
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.runtime.core.wire import Call, Kind, Packet, Run
from skerry.testing import Faults
from tests.simulation import workload
from tests.simulation.test_packets import THERE, TYPES, End, connected, hello, kinds, talk

FAR = 10**9
LARGEST = 2**63 - 1
TAKE = TYPES["Post"].handlers["take"]


def sealed(packet: Packet) -> Packet:
    """A frame with the checksum of what it holds."""
    of = packet.src, packet.dst, packet.seq, packet.count, packet.body
    return replace(packet, checksum=wire.frame_checksum(*of))


def next_frame(a: End, **changed: Any) -> Packet:
    """What the first shard's next frame would be, but for this."""
    a.forward(1)
    (frame,) = a.frames()
    return sealed(replace(frame, **changed))


def run_of(**changed: Any) -> Run:
    """A run of one message to the second shard's entity, but for this."""
    columns = Raw(msgspec.msgpack.encode([[1], ["x"]]))
    run = Run(Call.SEND, "Post", TAKE.id, TAKE.params_id, [THERE], columns)
    return replace(run, **changed)


def refused(end: End) -> int:
    return sum(end.shard.stats()["refused"].values())


@pytest.mark.parametrize("kind", [Kind.FRAME, Kind.ACK, Kind.RESUME, Kind.HELLO])
def test_nobody_has_epoch_0(kind: Kind) -> None:
    """A stream's sender has none before it has greeted; that is no epoch that it may name."""
    a, b = End(0), End(1)
    said = hello(a, b)
    packet = replace(
        said, kind=int(kind), src_epoch=0, dst_epoch=b.shard.epoch, seq=1, count=1, ack=FAR,
        body=wire.encode_runs([run_of()]),
    )  # fmt: skip
    assert b.hears(sealed(packet) if kind == Kind.FRAME else packet) == []
    assert (b.got, refused(b)) == ([], 1)


def test_a_frame_before_any_greeting_is_answered_with_hello() -> None:
    a, b = End(0), End(1)
    frame = replace(
        hello(a, b), kind=int(Kind.FRAME), dst_epoch=b.shard.epoch, seq=1, count=1,
        body=wire.encode_runs([run_of()]),
    )  # fmt: skip
    assert kinds(b.hears(sealed(frame))) == [Kind.HELLO]
    assert b.got == []


NO_MESSAGES = {
    "nothing": b"",
    "a number": msgspec.msgpack.encode(7),
    "a list of numbers": msgspec.msgpack.encode([7]),
    "none": msgspec.msgpack.encode([]),
    "too deep": b"\x91" * 100_000,
    "two for one": wire.encode_runs([run_of(), run_of()]),
    "no such call": wire.encode_runs([run_of(call=9)]),
    "no key": wire.encode_runs([run_of(keys=[])]),
    "an empty key": wire.encode_runs([run_of(keys=[""])]),
    "a long key": wire.encode_runs([run_of(keys=["x" * 481])]),
    "a key that is long in bytes": wire.encode_runs([run_of(keys=["ö" * 241])]),
    "fewer arguments": wire.encode_runs([run_of(columns=Raw(msgspec.msgpack.encode([[1], []])))]),
    "no columns": wire.encode_runs([run_of(columns=Raw(msgspec.msgpack.encode({"a": 1})))]),
    "fewer blobs": wire.encode_runs([run_of(blobs=[])]),
    "an ask of nobody": wire.encode_runs([run_of(call=Call.ASK)]),
    "an ask of something": wire.encode_runs([run_of(call=Call.ASK, extras=[(1, 2)])]),
    "an outcome of no kind": wire.encode_runs(
        [run_of(call=Call.OUTCOME, extras=[(b"id", "nothing", b"")])]
    ),
    "a failure without a text": wire.encode_runs(
        [run_of(call=Call.OUTCOME, extras=[(b"id", "failed", b"\x01")])]
    ),
    "no item": wire.encode_runs([run_of(call=Call.EMIT, extras=[(7,)])]),
}


@pytest.mark.parametrize("body", NO_MESSAGES.values(), ids=NO_MESSAGES)
def test_a_frame_with_right_checksums_that_holds_no_messages_has_not_come(body: bytes) -> None:
    """It is not acked, and the one that its sender meant is taken under its number."""
    a, b = connected()
    frame = next_frame(a)
    b.says()
    assert b.hears(sealed(replace(frame, body=body, count=1))) == []
    assert b.waits() == []
    assert refused(b) == 1
    assert "frame 1 of shard 0" in next(iter(b.shard.stats()["refused"]))
    b.hears(frame)
    assert b.got == [1]
    a.hears(*b.waits())
    assert not a.shard.demand().unacked


UNFIT = {
    "no handler": run_of(handler=7),
    "another type's": run_of(type="Nobody"),
    "arguments of other types": run_of(columns=Raw(msgspec.msgpack.encode([["x"], [1]]))),
    "too many arguments": run_of(columns=Raw(msgspec.msgpack.encode([[1], ["x"], [2]]))),
    "arguments that are no text": run_of(columns=Raw(b"\x92\x91\x01\x91\xa1\xff")),
    "arguments of another kind": run_of(columns=Raw(b"\x90"), blobs=[Raw(b"\x07")]),
    "arguments of another release": run_of(
        columns=Raw(b"\x90"), blobs=[Raw(b"\x07")], params=TAKE.params_id ^ 1
    ),
}


@pytest.mark.parametrize("run", UNFIT.values(), ids=UNFIT)
def test_a_message_that_no_handler_takes_is_a_dead_letter(run: Run) -> None:
    a, b = connected()
    b.shard.dispatch.handlers.old_params[TAKE.params_id ^ 1] = ["number"]
    b.hears(next_frame(a, body=wire.encode_runs([run])))
    assert b.got == []
    rows = [row for _, row in b.store.scan(Table.DEAD)]
    assert len(rows) == 1
    assert msgspec.msgpack.decode(rows[0], type=DeadLetter).key == THERE
    a.forward(2)
    talk(a, b)
    assert b.got == [2]


CLAIMS: dict[str, dict[str, Any]] = {
    "an epoch of its own": {"src_epoch": FAR},
    "an epoch of ours": {"dst_epoch": FAR},
    "that we are fenced": {"kind": int(Kind.FENCED), "seq": FAR},
    "more acked than sent": {"kind": int(Kind.HELLO), "seq": 7, "position": FAR, "body": bytes(16)},
    "a cut that none can follow": {"cut": LARGEST},
    "the newest cut but a year": {"cut": LARGEST - 10**18},
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_what_cannot_be_is_refused_whoever_says_it(claim: dict[str, Any]) -> None:
    a, b = connected()
    frame = next_frame(a)
    b.says()
    assert b.hears(sealed(replace(frame, **claim))) == []
    assert (b.got, refused(b), b.shard.stats()["snapshot_marker"]) == ([], 1, 0)
    b.hears(frame)
    assert b.got == [1]


FOREIGN: dict[str, dict[str, Any]] = {
    "a frame": {},
    "that we are fenced": {"kind": int(Kind.FENCED), "seq": 100},
    "another life of ours": {"dst_epoch": 100},
    "a hello": {"kind": int(Kind.HELLO), "src_epoch": 100, "seq": 9, "position": 9},
    "what we have sent": {"kind": int(Kind.RESUME), "seq": FAR, "checksum": 7},
    "acks": {"kind": int(Kind.ACK), "ack": FAR, "credit": FAR},
    "pressure": {"kind": int(Kind.ACK), "pressed": True},
    "a cut": {"kind": int(Kind.ACK), "cut": 10**18},
}


@pytest.mark.parametrize("said", FOREIGN.values(), ids=FOREIGN)
def test_nothing_that_another_incarnation_says_is_believed(said: dict[str, Any]) -> None:
    """Each of these would stop us, or change something, if a shard of ours said it."""
    a, b = connected()
    frame = next_frame(a)
    b.says()
    epoch = b.shard.streams.inbound[0].epoch
    assert b.hears(sealed(replace(frame, incarnation=7, **said))) == []
    streams = b.shard.streams
    found = refused(b), streams.cuts.newest, streams.pressed, streams.inbound[0].epoch
    assert found == (1, 0, False, epoch)
    assert b.hears(frame) == []
    assert b.got == [1]


@pytest.mark.parametrize("claim", [{"kind": int(Kind.FENCED), "seq": 9}, {"dst_epoch": 9}])
def test_what_a_peer_says_of_our_successor_still_stops_us(claim: dict[str, Any]) -> None:
    a, b = connected()
    with pytest.raises(StoreDamaged, match="was replaced and stops"):
        b.hears(next_frame(a, **claim))


def test_reasons_that_name_a_number_of_a_packet_are_counted_and_do_not_pile_up() -> None:
    a, b = connected()
    frame = next_frame(a)
    for dst in range(2, 400):
        b.shard.accept(Arrived(wire.pack(sealed(replace(frame, dst=dst)))))
    assert refused(b) == 398
    assert len(b.shard.stats()["refused"]) <= links.REASONS_MAX + 1


@pytest.mark.parametrize("seed", range(400, 420))
def test_every_promise_holds_beside_a_stranger(seed: int) -> None:
    cluster = workload.run(seed, Faults(stranger=0.1))
    met = sum(count for name, count in cluster.points.items() if name.startswith("a stranger"))
    assert met > 5, "it came by"
