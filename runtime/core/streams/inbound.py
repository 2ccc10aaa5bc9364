"""The receiving end of one stream: which frame is next, and what may be acked.

Each frame of the sender's life that we know is judged by its number only. Three verdicts are
possible and each has one answer, so the shard needs no other rule.

Three positions move: `received` is what waits in memory, `taken` is what turns have run
for, `durable` is what survives a crash. Only `durable` is ever told to the sender as an ack.

A frame that is large for one batch is taken in parts, and each part is committed with its
turns: the row says how many messages of the next frame have run. The three positions count
whole frames only, so to the sender a frame that is under way is one that has not been taken.

Knows nothing of sockets, time or entities. Idea: docs/ideas/streams.md. Asserts I1, I4, I12.
"""

from __future__ import annotations

import enum
from collections import deque

import msgspec
from msgspec import Struct

from skerry.errors import StoreDamaged
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.streams.parts import Part
from skerry.runtime.core.wire import Packet

CREDIT_BYTES = 8 << 20
"""Bytes received and not yet durable, at most, of one stream."""

CREDIT_BYTES_OF_ALL = 256 << 20
"""Bytes received and not yet durable, at most, of all streams. They share it evenly (I7)."""


class Verdict(enum.Enum):
    """What a frame is to us. The value is the reason, in words, for logs and tests."""

    TAKE = "the next one: run its turns"
    REPEAT = "taken before: drop it, ack again"
    GAP = "one before it is missing: ask for that one"


class InboundRow(Struct, array_like=True, frozen=True):
    """How far a stream was taken, and the checksum of the newest frame taken."""

    taken: int = 0
    position: int = 0
    checksum: int = 0
    begun: int = 0
    """Messages of the next frame that have run already."""


_row = msgspec.msgpack.Decoder(InboundRow)
_encode = msgspec.msgpack.Encoder().encode


class Inbound:
    """One stream's receiving end."""

    __slots__ = (
        "_window",
        "begun",
        "durable",
        "durable_position",
        "epoch",
        "gap_asked",
        "peer",
        "received",
        "received_checksum",
        "said_position",
        "taken",
        "taken_checksum",
        "taken_position",
        "waiting",
    )

    def __init__(self, peer: int, streams: int = 1) -> None:
        self.peer = peer
        self._window = min(CREDIT_BYTES, CREDIT_BYTES_OF_ALL // streams)
        self.epoch = 0
        """The newest epoch known of the sender. 0, which no shard has: it has not greeted us yet."""
        self.received = 0
        self.received_checksum = 0
        self.taken = 0
        self.taken_position = 0
        self.taken_checksum = 0
        self.begun = 0
        """Messages of the next frame that were taken already."""
        self.durable = 0
        self.durable_position = 0
        self.said_position = 0
        """Up to where the sender was told that it is durable."""
        self.waiting: deque[Packet] = deque()
        self.gap_asked = -1
        """The frame that we last asked for: once per gap, or go-back multiplies."""

    def judge(self, packet: Packet) -> Verdict:
        """What this frame is to us; changes nothing."""
        if packet.seq <= self.received:
            return Verdict.REPEAT
        if packet.seq > self.received + 1:
            return Verdict.GAP
        return Verdict.TAKE

    def receive(self, packet: Packet) -> None:
        """The next frame came; it waits for its batch."""
        assert packet.seq == self.received + 1, f"I1: frame {packet.seq} after {self.received}"
        self.waiting.append(packet)
        self.received = packet.seq
        self.received_checksum = packet.checksum

    def known_to_sender(self, acked: int, me: int) -> None:
        """The sender says that we acked its frames up to `acked`.

        Raises StoreDamaged when we do not have them: our store went back in time.
        """
        if acked > self.received:
            raise StoreDamaged(
                f"Shard {me} has acked frame {acked} of shard {self.peer} and knows only "
                f"{self.received}: the store of shard {me} went back in time (I12). Restore all "
                f"shards together."
            )

    def take(self, messages_max: int) -> Part:
        """Take the oldest frame that waits, or so many messages of what is left of it."""
        packet, start = self.waiting[0], self.begun
        assert packet.seq == self.taken + 1, f"I1: frame {packet.seq} runs after {self.taken}"
        assert start <= packet.count, f"I1: {start} of {packet.count} messages have run"
        part = Part(packet, start, min(packet.count, start + messages_max))
        if part.ends:
            self.waiting.popleft()
            self.taken, self.taken_position = packet.seq, packet.position
            self.taken_checksum, self.begun = packet.checksum, 0
        else:
            self.begun = part.end
        return part

    def row(self) -> Row:
        """What the commit of the frames taken says of this stream."""
        row = InboundRow(self.taken, self.taken_position, self.taken_checksum, self.begun)
        return Table.STREAM, self.row_key(self.peer), _encode(row)

    @staticmethod
    def row_key(peer: int) -> bytes:
        """The key of the stream's row."""
        return b"i" + peer.to_bytes(4, "big")

    def durable_upto(self, seq: int, position: int) -> None:
        """Everything up to frame `seq` is in a durable commit of this shard."""
        assert seq >= self.durable, f"I4: durable went back, {self.durable} to {seq}"
        assert seq <= self.taken, f"I4: durable {seq} is past what was taken, {self.taken}"
        self.durable, self.durable_position = seq, position

    @property
    def credit(self) -> int:
        """Up to which byte position the sender may send."""
        return self.durable_position + self._window

    @property
    def overdue(self) -> bool:
        """Whether the sender must hear soon what is durable: it may be waiting for credit."""
        return self.durable_position - self.said_position > self._window // 4

    def recover(self, row: bytes | None) -> None:
        """From the stream's row, as a restart finds it."""
        if row is None:
            return
        known = _row.decode(row)
        self.received = self.taken = self.durable = known.taken
        self.taken_position = self.durable_position = known.position
        self.said_position = known.position
        self.received_checksum = self.taken_checksum = known.checksum
        self.begun = known.begun
