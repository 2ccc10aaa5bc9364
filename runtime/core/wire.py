"""The wire format between shards: packets, frames, and the runs of messages in a frame.

A pipe message is a fixed header and a body. The body of a frame holds its messages in order,
as runs of one handler with a column per argument, at half the cost of an array per message.
Outbox and log hold the same bytes, so a frame is encoded once.

A frame's own checksum covers what never changes (stream, number, count, body); the header's
checksum covers the fields that are stamped anew each time the frame leaves.

Pure: bytes in, bytes out. Foreign bytes raise `Garbage` and nothing else.
Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import xxhash
from msgspec import Meta, Raw, Struct

from skerry.entity_type import STATE_BYTES_MAX
from skerry.handler import Handler
from skerry.limits import KEY_BYTES_MAX

MAGIC = b"SK"
VERSION = 3
FRAME_BYTES_MAX = STATE_BYTES_MAX + (16 << 20)
"""Size limit of a pipe message. The largest holds one state on its way to another shard, with what goes
beside it; the limit belongs to the wire's version, so all shards agree on it."""

_HEADER = struct.Struct("<2sBBIIQQIQQIQQQ?QQ")
"""Magic, version, and the fields of a `Packet` in order, without the body."""

_CHECKSUM = struct.Struct("<Q")
_BODY_AT = _HEADER.size + _CHECKSUM.size
_SEALED = struct.Struct("<IIQI")
_checksum = xxhash.xxh3_64_intdigest
_encoder = msgspec.msgpack.Encoder()


class Kind(enum.IntEnum):
    """The kinds of pipe messages."""

    FRAME = 1
    ACK = 2
    HELLO = 3
    RESUME = 4
    FENCED = 5


FRAME, KINDS = int(Kind.FRAME), frozenset(map(int, Kind))
"""Plain numbers, as packets hold them: an enum lookup takes as long as unpacking a header."""


class Garbage(ValueError):
    """Bytes that no shard of this app and version sends. They are refused and harm nothing."""


def token_of(incarnation: bytes) -> int:
    """The number by which every packet names its incarnation."""
    return int.from_bytes(incarnation[:8], "big")


class Packet(Struct, frozen=True, gc=False):
    """An unpacked pipe message."""

    kind: int
    src: int
    dst: int
    src_epoch: int
    """The sender's own epoch."""
    dst_epoch: int
    """The receiver's epoch as far as the sender knows it, else 0."""
    placement: int
    seq: int
    """FRAME: its number. HELLO: newest frame sent. RESUME: newest frame received. FENCED: an epoch."""
    position: int
    """FRAME: bytes of bodies up to its end. HELLO: number of the newest acked frame. RESUME: number
    of the frame that should have come by then."""
    count: int
    checksum: int
    """FRAME: its own checksum. RESUME: that of the newest frame received, 0 for none."""
    ack: int = 0
    """For the opposite stream: every frame up to this number is durable at the sender."""
    credit: int = 0
    """For the opposite stream: the absolute byte position up to which the receiver may send."""
    pressed: bool = False
    """Backpressure: whether the sender asks its peers to take in less from outside."""
    cut: int = 0
    """Number of the newest snapshot marker that the sender passed before this packet left. It is
    never stored with a frame."""
    incarnation: int = 0
    """The sender's `token_of` its incarnation, checked before any other field is believed."""
    body: bytes = b""


def pack(packet: Packet) -> bytes:
    """Encode a pipe message."""
    head = _HEADER.pack(
        MAGIC,
        VERSION,
        packet.kind,
        packet.src,
        packet.dst,
        packet.src_epoch,
        packet.dst_epoch,
        packet.placement,
        packet.seq,
        packet.position,
        packet.count,
        packet.checksum,
        packet.ack,
        packet.credit,
        packet.pressed,
        packet.cut,
        packet.incarnation,
    )
    return b"".join((head, _CHECKSUM.pack(_checksum(head)), packet.body))


def unpack(raw: bytes) -> Packet:
    """Decode and verify a pipe message. Raises Garbage."""
    if len(raw) < _BODY_AT:
        raise Garbage(f"{len(raw)} bytes are too few for a header of {_BODY_AT}")
    head = raw[: _HEADER.size]
    magic, version, *fields = _HEADER.unpack(head)
    if magic != MAGIC or version != VERSION:
        raise Garbage(f"begins with {magic!r} version {version}, not {MAGIC!r} version {VERSION}")
    if _CHECKSUM.unpack_from(raw, _HEADER.size)[0] != _checksum(head):
        raise Garbage("the header's checksum does not match")
    fields.append(raw[_BODY_AT:])
    packet = Packet(*fields)
    if packet.kind not in KINDS:
        raise Garbage(f"unknown kind {packet.kind}")
    if packet.kind == FRAME and packet.checksum != frame_checksum(
        packet.src, packet.dst, packet.seq, packet.count, packet.body
    ):
        stream = f"{packet.src}->{packet.dst}"
        raise Garbage(f"frame {packet.seq} of stream {stream} does not match its checksum")
    return packet


def frame_checksum(src: int, dst: int, seq: int, count: int, body: bytes) -> int:
    """Checksum of the parts of a frame that no epoch changes."""
    return _checksum(body, seed=_checksum(_SEALED.pack(src, dst, seq, count)))


# ── runs: the messages of a frame ─────────────────────────────────────────────


class Call(enum.IntEnum):
    """How the messages of a run came about, which decides where their outcomes go."""

    SEND = 0
    """Nobody waits for the outcome: a refusal or failure becomes a dead letter."""
    ASK = 1
    """An entity waits. extras: (asker type, asker key, ask id) per message."""
    OUTCOME = 2
    """The outcome of an ask. extras: (ask id, outcome kind, body) per message; `keys` are askers."""
    EMIT = 3
    """An item for an output. extras: (item,) per message; `keys` are partitions of the output."""
    MARK = 4
    """Behind it nothing comes for slots that another shard owns by this version of the placement.
    extras: (version,); `keys` name nothing."""
    CHUNK = 5
    """Rows of a slot on its way. extras: (slot, the chunk) as `handover.Chunk` encodes it."""


class Run(Struct, array_like=True, gc=False):
    """Messages to one handler, in order, a column per argument.

    A handler of scalars has `columns` (one list per argument); any other has the
    encoded arguments of each message in `blobs`.
    """

    call: int
    type: str
    handler: int
    params: int
    keys: list[str]
    columns: Raw
    blobs: list[Raw] | None = None
    extras: list[tuple[Any, ...]] | None = None


UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
"""Errors of a decoder: bytes may also be no text, or nest too deep."""

UNREAD = b"\xc1"
"""Placeholder for arguments that do not decode; it does not decode either."""

_runs = msgspec.msgpack.Decoder(list[Run])
_EXTRAS: dict[int, Any] = {
    Call.ASK: list[tuple[str, str, bytes]],
    Call.OUTCOME: list[tuple[bytes, Literal["done", "rejected", "failed"], bytes]],
    Call.EMIT: list[tuple[bytes]],
    Call.MARK: list[tuple[int]],
    Call.CHUNK: list[tuple[int, bytes]],
}
_ERRORS: dict[str, Any] = {"rejected": tuple[str, dict[str, Any]], "failed": tuple[str, str]}
NO_COLUMNS = Raw(b"\x90")


def run_of(
    call: int,
    handler: Handler,
    keys: list[str],
    column: Sequence[Any],
    extras: list[tuple[Any, ...]] | None,
) -> Run:
    """Build a run of messages to `handler`. `column` is of the form of `Handler.column`."""
    columns, blobs = NO_COLUMNS, None
    if handler.bare:
        columns = Raw(_encoder.encode((column,)))
    elif handler.scalar:
        columns = Raw(_encoder.encode(list(zip(*column))))
    else:
        blobs = [Raw(args) for args in column if type(args) is bytes]
        assert len(blobs) == len(keys), "arguments that are not scalars are bytes from the verb on"
    return Run(call, handler.entity, handler.id, handler.params_id, keys, columns, blobs, extras)


def column_of(run: Run, handler: Handler) -> Sequence[Any] | None:
    """Decode the arguments of a run as a column. None: they do not fit the handler's parameters."""
    if run.params != handler.params_id or (run.blobs is None) != handler.scalar:
        return None
    if run.blobs is not None:
        return list(map(bytes, run.blobs))
    try:
        columns = handler.columns.decode(run.columns)
    except UNREADABLE:
        return None  # Sent by an older release with other types: each message is judged alone.
    if handler.bare:
        return columns[0]  # type: ignore[no-any-return]
    return list(zip(*columns))


def encode_runs(runs: list[Run]) -> bytes:
    """Encode the body of a frame."""
    return _encoder.encode(runs)


def decode_runs(body: bytes) -> list[Run]:
    """Decode the body of a frame. Raises Garbage."""
    try:
        return _runs.decode(body)
    except msgspec.MsgspecError as error:
        raise Garbage(f"a frame's body does not decode: {error}") from error


class _Checked(Run, array_like=True, gc=False):
    """A `Run` from a peer: equal fields in equal order, with bounds."""

    call: Annotated[int, Meta(ge=0, le=int(max(Call)))]
    type: str
    handler: int
    params: int
    keys: list[Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]]
    columns: Raw
    blobs: list[Raw] | None = None
    extras: list[tuple[Any, ...]] | None = None


_checked = msgspec.msgpack.Decoder(list[_Checked]).decode
_columns = msgspec.msgpack.Decoder(list[Raw]).decode


def messages_of(packet: Packet) -> list[Run]:
    """Decode and check the runs of a peer's frame. Raises Garbage when right checksums cover a wrong
    body. Arguments are not decoded here: their turn refuses those that do not decode."""
    try:
        runs: list[Run] = list(_checked(packet.body))
        for run in runs:
            _check(run)
    except UNREADABLE as error:
        raise Garbage(f"it holds no messages: {error}") from error
    count = sum(len(run.keys) for run in runs)
    if count != packet.count:
        raise Garbage(f"it holds {count} messages, and says {packet.count}")
    return runs


def _check(run: Run) -> None:
    """Check what types cannot express about a run. Raises ValueError, or what a decoder raises."""
    count, columns = len(run.keys), _columns(run.columns)
    if not "".join(run.keys).isascii():
        for key in run.keys:
            if len(key.encode()) > KEY_BYTES_MAX:
                raise ValueError(
                    f"a key has at most {KEY_BYTES_MAX} bytes, not {len(key.encode())}"
                )
    counts = [array_length(column) for column in columns]
    counts += [] if run.blobs is None else [len(run.blobs)]
    if run.call != Call.SEND:
        about = msgspec.convert(run.extras, _EXTRAS[run.call])
        counts.append(len(about))
        for _, kind, body in about if run.call == Call.OUTCOME else ():
            if kind != "done":
                msgspec.msgpack.decode(body, type=_ERRORS[kind])
    if any(other != count for other in counts):
        raise ValueError(f"a run of {count} messages has columns of {counts}")


def array_length(array: Raw) -> int:
    """The number of elements of a msgpack array; -1 when the value is no array."""
    head = bytes(memoryview(array)[:5])
    if head[0] & 0xF0 == 0x90:
        return head[0] & 0x0F
    width = {0xDC: 2, 0xDD: 4}.get(head[0], 0)
    return int.from_bytes(head[1 : 1 + width], "big") if width else -1


FRAME_BYTES = 1 << 20
"""Target size of a frame. One large message may exceed it."""


def bodies(runs: list[Run]) -> list[tuple[bytes, int]]:
    """Cut runs into frames: (body, number of messages) of each."""
    count = sum(len(run.keys) for run in runs)
    if not count:
        return []
    body = encode_runs(runs)
    if count == 1 or len(body) <= FRAME_BYTES:
        return [(body, count)]
    first, second = halves(runs, count // 2)
    return bodies(first) + bodies(second)


def halves(runs: list[Run], count: int) -> tuple[list[Run], list[Run]]:
    """Split runs behind the first `count` messages."""
    first: list[Run] = []
    for place, run in enumerate(runs):
        size = len(run.keys)
        if size >= count:
            columns = plain_columns(run)
            rest = [part(run, columns, count, size)] if size > count else []
            return [*first, part(run, columns, 0, count)], rest + runs[place + 1 :]
        first.append(run)
        count -= size
    return first, []


def plain_columns(run: Run) -> list[list[Any]]:
    """Decode the columns of a run, whatever release wrote it. Raises what a decoder raises."""
    return msgspec.msgpack.decode(run.columns, type=list[list[Any]])


def part(run: Run, columns: list[list[Any]], start: int, end: int) -> Run:
    """Cut out the messages from `start` up to `end`, as a run. `columns`: the run's, decoded."""
    blobs, extras = run.blobs, run.extras
    return Run(
        run.call,
        run.type,
        run.handler,
        run.params,
        run.keys[start:end],
        Raw(_encoder.encode([column[start:end] for column in columns])),
        None if blobs is None else blobs[start:end],
        None if extras is None else extras[start:end],
    )


def dealt(run: Run, owners: Sequence[int]) -> dict[int, Run]:
    """Split a run by the owners of its messages; each part keeps the run's order."""
    places: dict[int, list[int]] = {}
    for place, owner in enumerate(owners):
        places.setdefault(owner, []).append(place)
    if len(places) == 1:
        return dict.fromkeys(places, run)
    columns, blobs, extras = plain_columns(run), run.blobs, run.extras
    return {
        owner: Run(
            run.call,
            run.type,
            run.handler,
            run.params,
            [run.keys[place] for place in own],
            Raw(_encoder.encode([[column[place] for place in own] for column in columns])),
            None if blobs is None else [blobs[place] for place in own],
            None if extras is None else [extras[place] for place in own],
        )
        for owner, own in places.items()
    }


def blobs_of(run: Run) -> list[bytes]:
    """Encode the arguments of each message one by one, whatever release wrote the run."""
    if run.blobs is not None:
        return [bytes(blob) for blob in run.blobs]
    try:
        columns = plain_columns(run)
    except UNREADABLE:
        return [UNREAD] * len(run.keys)
    if not columns:
        return [b"\x90"] * len(run.keys)
    return [_encoder.encode(args) for args in zip(*columns)]
