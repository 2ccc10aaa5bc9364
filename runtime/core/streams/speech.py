"""What a shard says to its peers: packets, each with an ack, and the acks that are still owed.

Every packet says how far the stream the other way is durable and how far it may go, so an ack
waits a little for a frame that takes it along. A peer is greeted once between two ticks, however
many packets ask for it.

No I/O, no clock. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from skerry.runtime.core import wire
from skerry.runtime.core.events import Effect, Row, ShardId, Table, Transmit
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.streams.cuts import Cuts
from skerry.runtime.core.streams.inbound import Inbound
from skerry.runtime.core.streams.outbound import Outbound, Sealed
from skerry.runtime.core.streams.outboxes import Outboxes
from skerry.runtime.core.wire import Kind, Packet

RETRY_NS = 300_000_000
"""Silence of a peer that owes an ack, or a hello, before it is asked again. A slow fsync is no silence."""

ACK_NS = 20_000_000
"""How long an ack waits for a frame that takes it along, or for more that it can say at once."""


class Speech:
    """Packets of one shard, made for both ends of each pair of streams."""

    def __init__(
        self,
        ownership: Ownership,
        incarnation: bytes,
        epoch: int,
        outboxes: Outboxes,
        cuts: Cuts,
    ) -> None:
        self.me, self.epoch = ownership.me, epoch
        self._ownership, self._outboxes, self._cuts = ownership, outboxes, cuts
        self._incarnation, self._token = incarnation, wire.token_of(incarnation)
        self.outbound: dict[int, Outbound] = {}
        self.inbound: dict[int, Inbound] = {}
        """Both ends are made together, when one of the two shards first has something to say."""
        self._unsaid: dict[int, Inbound] = {}
        """Streams of which something is durable here and their sender was not told."""
        self._overdue: list[int] = []
        """Senders among these that must hear of it soon."""
        self._greeted: set[int] = set()
        """Peers greeted since the last tick."""
        self.steady_ns = self._unsaid_ns = 0

    # ── acks ──

    @property
    def owes(self) -> bool:
        """Whether a peer waits for an ack that the next ticks will say."""
        return bool(self._unsaid)

    def owe_ack(self, stream: Inbound) -> None:
        """Note that a sender is to be told what is durable."""
        if not self._unsaid:
            self._unsaid_ns = self.steady_ns
        self._unsaid[stream.peer] = stream
        if stream.overdue:
            self._overdue.append(stream.peer)

    def urgent_acks(self) -> list[Effect]:
        """Say the acks for which senders may be waiting."""
        due = [self.say(Kind.ACK, peer) for peer in self._overdue if peer in self._unsaid]
        self._overdue.clear()
        return list(due)

    def tick(self, steady_ns: int) -> list[Effect]:
        """Say the acks that found no company for too long."""
        self.steady_ns = steady_ns
        self._greeted.clear()
        if not self._unsaid or steady_ns - self._unsaid_ns <= ACK_NS:
            return []
        return [self.say(Kind.ACK, peer) for peer in list(self._unsaid)]

    def forget(self, peer: int) -> list[Row]:
        """Forget a peer that is no member any more: the rows that go with it.

        It left when all frames to it were acked. Acks are not durable, so a kill since then has
        brought some of those frames back.
        """
        outbound, inbound = self.outbound.pop(peer), self.inbound.pop(peer)
        newest = max(outbound.released, outbound.recovered)
        assert outbound.sealed <= newest, f"I1: shard {peer} has left with frames unacked"
        assert not inbound.waiting, f"I1: shard {peer} has left with frames unread"
        self._unsaid.pop(peer, None)
        gone = [(Table.STREAM, end.row_key(peer), None) for end in (inbound, outbound)]
        return [*self._outboxes.forget(outbound), *gone]

    # ── packets ──

    def silent(self, stream: Outbound) -> bool:
        """Whether a peer has said nothing new for too long."""
        return self.steady_ns - stream.progress_ns > RETRY_NS

    def frames(self, peer: int) -> list[Effect]:
        """Send the frames that may leave now; greet a peer that is not connected."""
        stream = self.outbound[peer]
        if not stream.connected:
            return self.hello(peer) if self.silent(stream) else []
        if stream.sent == stream.released:
            # It owes nothing so far: its silence begins now.
            stream.progress_ns = self.steady_ns
        return [
            Transmit(ShardId(peer), wire.pack(self.frame(peer, frame, stream.body(frame))))
            for frame in stream.offer()
        ]

    def frame(self, peer: int, frame: Sealed, body: bytes) -> Packet:
        """Make the packet of a frame."""
        return self._packet(
            Kind.FRAME, peer, frame.seq, frame.position, frame.count, frame.checksum, body
        )

    def hello(self, peer: int) -> list[Effect]:
        """Greet a peer, unless that was done since the last tick."""
        if peer in self._greeted:
            return []
        self._greeted.add(peer)
        stream = self.outbound[peer]
        stream.progress_ns = self.steady_ns
        sent, acked = stream.sent, stream.released
        return [self.say(Kind.HELLO, peer, seq=sent, position=acked, body=self._incarnation)]

    def resume(self, peer: int, expected: int) -> Transmit:
        """Say where to go on. `expected`: up to there all frames should have come by now."""
        stream = self.inbound[peer]
        seq, checksum = stream.received, stream.received_checksum
        return self.say(Kind.RESUME, peer, seq=seq, position=expected, checksum=checksum)

    def say(
        self,
        kind: Kind,
        peer: int,
        *,
        seq: int = 0,
        position: int = 0,
        checksum: int = 0,
        body: bytes = b"",
    ) -> Transmit:
        """Send a packet that holds no messages."""
        packet = self._packet(kind, peer, seq, position, 0, checksum, body)
        return Transmit(ShardId(peer), wire.pack(packet))

    def _packet(
        self, kind: int, peer: int, seq: int, position: int, count: int, checksum: int, body: bytes
    ) -> Packet:
        """A packet, with an ack. Of a HELLO or FENCED the peer may be a life that does not hear that:
        it is still unsaid."""
        stream = self.inbound[peer]
        if kind != Kind.HELLO and kind != Kind.FENCED:
            stream.said_position = stream.durable_position
            self._unsaid.pop(peer, None)
        return Packet(
            kind,
            self.me,
            peer,
            self.epoch,
            stream.epoch,
            self._ownership.version,
            seq,
            position,
            count,
            checksum,
            stream.durable,
            stream.credit,
            self._outboxes.full,
            self._cuts.newest,
            self._token,
            body,
        )
