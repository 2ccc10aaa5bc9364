"""The sending end of one stream: numbers, outbox, credit, resume.

A stream is the numbered frames 1, 2, 3... from one shard to another. A frame is sealed
with the commit of the turns that sent it, may leave once that commit is durable, and
stays in the outbox until the receiver says that it is durable there too.

Credit is an absolute byte position: it bounds what is on the wire and in the receiver's
memory, and never stops a turn. With nothing in flight one frame may always go.

Knows nothing of entities, time or sockets. Idea: docs/ideas/streams.md. Asserts I3, I12.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core import wire
from skerry.runtime.core.events import Row, Seq, Table

BODIES_IN_MEMORY_BYTES = 32 << 20
"""Bodies of unacked frames kept in memory per stream; older ones are read from the store again."""

BODIES_IN_MEMORY_BYTES_OF_ALL = 512 << 20
"""Bodies of unacked frames kept in memory for all streams, which share it evenly (I7)."""


NEVER_NS = -(1 << 62)


class Sealed(Struct, gc=False):
    """A frame in the outbox. `body` is None when it is to be read from the store."""

    seq: int
    position: int
    """Bytes of bodies up to the end of this frame."""
    count: int
    checksum: int
    body: bytes | None


class OutboxRow(Struct, array_like=True, frozen=True):
    """A frame as it lies in the store."""

    position: int
    count: int
    checksum: int
    body: bytes


class OutboundRow(Struct, array_like=True, frozen=True):
    """The stream's own row: how far it is sealed, and the newest frame that was released."""

    sealed: int = 0
    position: int = 0
    released: int = 0
    released_position: int = 0
    released_checksum: int = 0


_row = msgspec.msgpack.Decoder(OutboundRow)
_outbox_row = msgspec.msgpack.Decoder(OutboxRow)
_encode = msgspec.msgpack.Encoder().encode


def outbox_key(peer: int, seq: int) -> bytes:
    """The key of a frame's row."""
    return peer.to_bytes(4, "big") + seq.to_bytes(8, "big")


class Outbound:
    """One stream's sending end."""

    __slots__ = (
        "_bodies_bytes",
        "_floor",
        "_gone",
        "_read",
        "_room",
        "connected",
        "credit",
        "durable",
        "me",
        "outbox",
        "peer",
        "position",
        "progress_ns",
        "recovered",
        "released",
        "released_checksum",
        "released_position",
        "sealed",
        "sent",
    )

    def __init__(
        self, me: int, peer: int, read: Callable[[int, bytes], bytes | None], streams: int = 1
    ) -> None:
        self.me, self.peer = me, peer
        self._read = read
        self._room = min(BODIES_IN_MEMORY_BYTES, BODIES_IN_MEMORY_BYTES_OF_ALL // streams)
        self.sealed = 0
        self.position = 0
        self.released = 0
        self.released_position = 0
        self.released_checksum = 0
        self.durable = 0
        self.sent = 0
        self.credit = 0
        self.connected = False
        self.outbox: list[Sealed] = []
        self.progress_ns = NEVER_NS
        """When the peer last said something new, or was asked."""
        self._gone: list[int] = []
        self.recovered = 0
        """The newest frame of an earlier life of this shard, which may have forgotten its ack."""
        self._floor = 0
        """What earlier epochs of the receiver have acked."""
        self._bodies_bytes = 0

    # ── sealing: within a commit ──

    def seal(self, body: bytes, count: int) -> Sealed:
        """Number a frame. It may leave when `durable_upto` says so."""
        self.sealed += 1
        self.position += len(body)
        checksum = wire.frame_checksum(self.me, self.peer, self.sealed, count, body)
        frame = Sealed(self.sealed, self.position, count, checksum, body)
        self.outbox.append(frame)
        self._bodies_bytes += len(body)
        return frame

    def rows(self, frames: list[Sealed]) -> list[Row]:
        """What a commit that seals `frames` says of this stream; released frames go with it."""
        peer, rows = self.peer, list[Row]()
        for frame in frames:
            row = OutboxRow(frame.position, frame.count, frame.checksum, frame.body or b"")
            rows.append((Table.OUTBOX, outbox_key(peer, frame.seq), _encode(row)))
        for seq in self._gone:
            rows.append((Table.OUTBOX, outbox_key(peer, seq), None))
        if rows:
            self._gone.clear()
            rows.append((Table.STREAM, self.row_key(peer), _encode(self._as_row())))
        return rows

    @staticmethod
    def row_key(peer: int) -> bytes:
        """The key of the stream's row."""
        return b"o" + peer.to_bytes(4, "big")

    def _as_row(self) -> OutboundRow:
        return OutboundRow(
            self.sealed,
            self.position,
            self.released,
            self.released_position,
            self.released_checksum,
        )

    @property
    def unacked_bytes(self) -> int:
        """Bytes of frames that the receiver has not acked."""
        return self.position - self.released_position

    @property
    def bulky(self) -> bool:
        """Whether the bodies of frames take too much memory; `spill` then."""
        return self._bodies_bytes > self._room

    def spill(self) -> None:
        """Drop bodies that are far from being sent: the store has them."""
        for frame in reversed(self.outbox):
            if self._bodies_bytes <= self._room // 2:
                return
            if frame.body is not None and self.sent < frame.seq <= self.durable:
                self._bodies_bytes -= len(frame.body)
                frame.body = None

    # ── sending ──

    def offer(self) -> Iterator[Sealed]:
        """Frames that may leave now, in order; what is yielded counts as sent."""
        if not self.connected:
            return
        while self.sent < self.durable:
            frame = self._frame(self.sent + 1)
            if frame.position > self.credit and self.sent > self.released:
                return
            assert frame.seq <= self.durable, f"I3: frame {frame.seq} leaves before it is durable"
            self.sent = frame.seq
            yield frame

    def _frame(self, seq: int) -> Sealed:
        frame = self.outbox[seq - self.released - 1]
        assert frame.seq == seq, f"the outbox has a hole: {frame.seq} stands where {seq} belongs"
        return frame

    def body(self, frame: Sealed) -> bytes:
        """A frame's bytes, from memory or from the store."""
        if frame.body is not None:
            return frame.body
        stored = self._read(Table.OUTBOX, outbox_key(self.peer, frame.seq))
        if stored is None:
            raise StoreDamaged(
                f"Frame {frame.seq} to shard {self.peer} is gone from the outbox of shard {self.me}."
            )
        return _outbox_row.decode(stored).body

    # ── what the receiver says ──

    def acked(self, upto: int) -> bool:
        """The receiver has everything up to `upto` durable. Whether that was news."""
        if upto > self.sealed:  # The peer's claim, so refused and not asserted.
            raise StoreDamaged(
                f"Shard {self.peer} acks frame {upto} of shard {self.me}, which has sealed only "
                f"{self.sealed}: the store of shard {self.me} went back in time. Restore all shards together."
            )
        gone = self.outbox[: max(0, upto - self.released)]
        if not gone:
            return False
        del self.outbox[: len(gone)]
        for frame in gone:
            self._gone.append(frame.seq)
            if frame.body is not None:
                self._bodies_bytes -= len(frame.body)
        last = gone[-1]
        assert last.seq == upto, f"the outbox has a hole: {last.seq} stands where {upto} belongs"
        self.released, self.released_position = last.seq, last.position
        self.released_checksum = last.checksum
        assert len(self.outbox) == self.sealed - self.released, "the outbox has a hole"
        self.sent = max(self.sent, self.released)
        return True

    def resume(self, seq: int, checksum: int, expected: int) -> None:
        """The receiver has frames up to `seq`, the last with this checksum, and all up to
        `expected` should have come: what is missing of these was lost, so go on behind `seq`.
        What was sent behind `expected` may be on its way still.

        Raises StoreDamaged when the two ends disagree: one of the stores went back in time.
        """
        if seq > self.sealed or seq > self.durable:
            raise StoreDamaged(
                f"Shard {self.peer} has frame {seq} of shard {self.me}, which knows only {self.durable}: "
                f"the store of shard {self.me} went back in time (I12). Restore all shards together."
            )
        if seq < self._floor:
            raise StoreDamaged(
                f"Shard {self.peer} wants frame {seq + 1} of shard {self.me}, but had acked up to "
                f"{self._floor}: the store of shard {self.peer} went back in time (I12). "
                f"Restore all shards together."
            )
        # One that was overtaken by an ack of the same epoch is merely old.
        ours = self._checksum(seq) if seq >= self.released else checksum
        if seq and ours != checksum:
            raise StoreDamaged(
                f"Frame {seq} from shard {self.me} to shard {self.peer} differs at its two ends: "
                f"one of the stores went back in time (I12). Restore all shards together."
            )
        self.connected = True
        self.sent = max(seq, self.released, 0 if seq < expected else self.sent)

    def _checksum(self, seq: int) -> int:
        return self.released_checksum if seq == self.released else self._frame(seq).checksum

    def reconnect(self) -> None:
        """The receiver has a new epoch: it must know all that its earlier ones have acked, and
        may not know what was on its way to them."""
        self.connected = False
        self._floor = self.sent = self.released

    def durable_upto(self, seq: int) -> None:
        """Frames up to `seq` are in durable commits."""
        assert seq >= self.durable, f"I3: durable went back, {self.durable} to {seq}"
        assert seq <= self.sealed, f"I3: durable {seq} is past what was sealed, {self.sealed}"
        self.durable = seq

    # ── recovery ──

    def recover(self, row: bytes | None, frames: list[tuple[bytes, bytes]]) -> None:
        """From the stream's row and the outbox rows in order, as a restart finds them."""
        if row is not None:
            known = _row.decode(row)
            self.sealed, self.position = known.sealed, known.position
            self.released, self.released_position = known.released, known.released_position
            self.released_checksum = known.released_checksum
        for key, value in frames:
            stored = _outbox_row.decode(value)
            seq = Seq(int.from_bytes(key[4:], "big"))
            self.outbox.append(
                Sealed(seq, stored.position, stored.count, stored.checksum, stored.body)
            )
            self._bodies_bytes += len(stored.body)
        if len(self.outbox) != self.sealed - self.released or (
            self.outbox and self.outbox[0].seq != self.released + 1
        ):
            raise StoreDamaged(
                f"The outbox of shard {self.me} to shard {self.peer} should hold frames "
                f"{self.released + 1} to {self.sealed} and holds {len(self.outbox)}."
            )
        self.durable = self.recovered = self.sealed
        self.sent = self._floor = self.released
        if self.bulky:
            self.spill()
