"""All streams of a shard: handshakes, epochs, acks, and who must stop.

    HELLO   "I am shard a in epoch e": the peer answers RESUME
    RESUME  "I took your frames up to n, with this checksum; credit to byte p": send on from there
    FRAME   one numbered run of messages
    ACK     "durable here up to n; credit to byte p"
    FENCED  "shard a has a newer epoch than yours": only the shard named, in an older epoch, stops

Each packet names both ends' epochs. An old epoch of the receiver is answered with HELLO, an
old epoch of the sender with FENCED. The stream to the shard itself needs none of this: it is
numbered, kept and released in the same commits, and never leaves.

No I/O, no clock. Idea: docs/streams.md. Asserts I3, I4, I5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from skerry.errors import StoreDamaged
from skerry.runtime.shard import wire
from skerry.runtime.shard.events import Effect, Placement, Row, ShardId, Stop, Transmit
from skerry.runtime.shard.inbound import Inbound, Verdict
from skerry.runtime.shard.outbound import Outbound, Sealed
from skerry.runtime.shard.wire import Kind, Packet

RETRY_NS = 300_000_000
"""Silence of a peer that owes an ack, or a hello, before it is asked again. A slow fsync is no silence."""

PRESSED_BYTES = 64 << 20
"""Unacked bytes to one peer above which intake from outside pauses."""


class Streams:
    """The streams between one shard and all members."""

    def __init__(
        self,
        me: int,
        placement: Placement,
        incarnation: bytes,
        epoch: int,
        read: Callable[[int, bytes], bytes | None],
    ) -> None:
        self.me, self.epoch = me, epoch
        self._placement = placement
        self._incarnation = incarnation
        self.outbound = {peer: Outbound(me, peer, read) for peer in placement.members}
        self.inbound = {peer: Inbound(peer) for peer in placement.members}
        self.first = 0
        """Own frames up to this number run before any peer's: see `load`."""
        self.refused: dict[str, int] = {}
        """How often what was refused, by reason."""
        self._steady_ns = 0
        self.cut = 0
        """The newest cut of a backup that we took; every packet says it."""
        self.keep: Callable[[int], None] = _nobody_keeps
        """Told to keep the rows as they are durable now, for the backup of this number."""

    def load(
        self, rows: Iterator[tuple[bytes, bytes]], outbox: Iterator[tuple[bytes, bytes]]
    ) -> None:
        """From the store's rows, as a restart finds them.

        After a change of the number of shards, what was under way lies in the new owners' own
        streams, while its senders now send by other streams: those wait until it has run (I2).
        """
        streams = {bytes(key): bytes(value) for key, value in rows}
        frames: dict[int, list[tuple[bytes, bytes]]] = {}
        for key, value in outbox:
            frames.setdefault(int.from_bytes(key[:4], "big"), []).append((bytes(key), bytes(value)))
        for peer in self._placement.members:
            self.outbound[peer].recover(streams.get(Outbound.row_key(peer)), frames.get(peer, []))
            self.inbound[peer].recover(streams.get(Inbound.row_key(peer)))
        own = self.outbound[self.me]
        for frame in own.outbox:
            self._receive_own(frame)
        self.first = own.sealed

    # ── the shard's own stream ──

    def _receive_own(self, frame: Sealed) -> None:
        body = self.outbound[self.me].body(frame)
        self.inbound[self.me].receive(
            self._packet(
                Kind.FRAME,
                self.me,
                seq=frame.seq,
                position=frame.position,
                count=frame.count,
                checksum=frame.checksum,
                body=body,
            )
        )

    @property
    def own_waiting(self) -> int:
        """Frames that wait on the shard's own stream."""
        return len(self.inbound[self.me].waiting)

    # ── commits ──

    def seal(self, peer: int, bodies: list[tuple[bytes, int]]) -> Iterator[Row]:
        """Number the frames for one peer; their rows."""
        stream = self.outbound[peer]
        frames = [stream.seal(body, count) for body, count in bodies]
        yield from stream.rows(frames)
        if peer == self.me:
            for frame in frames:
                self._receive_own(frame)
            if frames:
                stream.durable_upto(stream.sealed)

    def taken(self, packets: list[Packet]) -> list[tuple[int, int, int]]:
        """(peer, seq, position) that a commit of these frames makes durable."""
        return [(p.src, p.seq, p.position) for p in packets]

    def rows_taken(self, packets: list[Packet]) -> list[Row]:
        """The positions that a commit of these frames saves."""
        own = self.outbound[self.me]
        for packet in packets:
            if packet.src == self.me:
                own.acked(packet.seq)
        return [self.inbound[peer].row() for peer in dict.fromkeys(p.src for p in packets)]

    def rows_of_released(self, but: set[int]) -> list[Row]:
        """Deletions of acked frames, for the streams whose row is not in this commit yet."""
        rows: list[Row] = []
        for stream in self.outbound.values():
            if stream.has_news:
                rows += stream.rows([])
            stream.spill()
        return rows

    # ── speaking ──

    def hello(self) -> list[Effect]:
        """To every peer, at the opening."""
        return [self._send(Kind.HELLO, peer) for peer in self.inbound if peer != self.me]

    def speak(self, peers: set[int]) -> list[Effect]:
        """Acks and frames to peers for which a commit became durable."""
        effects: list[Effect] = []
        for peer in sorted(peers - {self.me}):
            effects.append(self._ack(peer))
            effects += self._frames(peer)
        return effects

    def _ack(self, peer: int) -> Transmit:
        stream = self.inbound[peer]
        return self._send(
            Kind.ACK, peer, seq=stream.durable, position=stream.credit, count=int(self._full)
        )

    def _frames(self, peer: int) -> list[Effect]:
        stream = self.outbound[peer]
        return [
            self._send(
                Kind.FRAME,
                peer,
                seq=frame.seq,
                position=frame.position,
                count=frame.count,
                checksum=frame.checksum,
                body=stream.body(frame),
            )
            for frame in stream.offer()
        ]

    def _resume(self, peer: int) -> Transmit:
        stream = self.inbound[peer]
        stream.gap_asked = stream.received
        body = stream.credit.to_bytes(8, "big")
        return self._send(
            Kind.RESUME,
            peer,
            seq=stream.received,
            position=stream.received_position,
            checksum=stream.received_checksum,
            body=body,
        )

    def _packet(self, kind: Kind, peer: int, **fields: object) -> Packet:
        given = {"seq": 0, "position": 0, "count": 0, "checksum": 0} | fields
        return Packet(
            kind=kind,
            src=self.me,
            dst=peer,
            src_epoch=self.epoch,
            dst_epoch=self.inbound[peer].epoch,
            placement=self._placement.version,
            cut=self.cut,
            **given,  # type: ignore[arg-type]
        )

    def _send(self, kind: Kind, peer: int, **fields: object) -> Transmit:
        if kind == Kind.HELLO:
            fields["body"] = self._incarnation
        return Transmit(ShardId(peer), wire.pack(self._packet(kind, peer, **fields)))

    # ── listening ──

    def arrived(self, raw: bytes) -> list[Effect]:
        """A packet from a pipe: what it causes at once. Its turns wait for a batch."""
        try:
            packet = wire.unpack(raw)
        except wire.Garbage as garbage:
            return self._refuse(str(garbage))
        peer = packet.src
        if packet.dst != self.me or peer not in self.inbound or peer == self.me:
            return self._refuse(f"from {peer} to {packet.dst}, not between members")
        if packet.dst_epoch > self.epoch:
            return [Stop(self._fenced(self.me, packet.dst_epoch))]
        stream = self.inbound[peer]
        if packet.src_epoch < stream.epoch and packet.kind != Kind.FENCED:
            return [self._send(Kind.FENCED, peer, seq=stream.epoch)]
        self.cut_at(packet.cut)
        try:
            return self._listen(Kind(packet.kind), peer, packet)
        except StoreDamaged as damage:
            return [Stop(damage)]

    def cut_at(self, no: int) -> None:
        """Take a cut, unless it was taken: before anything is handled that left behind it.

        What left us before was durable, so it is kept; what comes from behind the cut is handled
        after, so it is not. What is durable and has not left yet leaves behind the cut, and
        stands in the copy's outbox without an ack. So of each stream the copies hold what fits.
        Source: Chandy and Lamport, "Distributed snapshots", 1985.
        """
        if no > self.cut:
            self.cut = no
            self.keep(no)

    def _listen(self, kind: Kind, peer: int, packet: Packet) -> list[Effect]:
        match kind:
            case Kind.HELLO:
                if packet.body != self._incarnation:
                    return self._refuse(f"shard {peer} belongs to another incarnation of the app")
                self._adopt(peer, packet.src_epoch)
                # The ack, too: the one that it waits for may have been lost.
                return [self._resume(peer), self._ack(peer)]
            case Kind.RESUME:
                return self._on_resume(peer, packet)
            case Kind.FENCED:
                newest = packet.seq
                return [Stop(self._fenced(self.me, newest))] if self.epoch < newest else []
            case Kind.FRAME | Kind.ACK if packet.dst_epoch != self.epoch:
                return [self._send(Kind.HELLO, peer)]
            case Kind.FRAME:
                return self._on_frame(peer, packet)
            case Kind.ACK:
                return self._on_ack(peer, packet)

    def _adopt(self, peer: int, epoch: int) -> bool:
        """A peer's epoch, maybe new: then what we knew of its connection is over."""
        stream = self.inbound[peer]
        assert epoch >= stream.epoch, f"I5: epoch of {peer} went back, {stream.epoch} to {epoch}"
        if epoch == stream.epoch:
            return False
        stream.epoch = epoch
        self.outbound[peer].reconnect()
        return True

    def _on_resume(self, peer: int, packet: Packet) -> list[Effect]:
        effects: list[Effect] = []
        if self._adopt(peer, packet.src_epoch):
            effects.append(self._resume(peer))
        if packet.dst_epoch != self.epoch:
            return [*effects, self._send(Kind.HELLO, peer)]
        stream = self.outbound[peer]
        stream.resume(packet.seq, packet.checksum)
        stream.credit = max(stream.credit, int.from_bytes(packet.body, "big"))
        stream.progress_ns = self._steady_ns
        return effects + self._frames(peer)

    def _on_frame(self, peer: int, packet: Packet) -> list[Effect]:
        stream = self.inbound[peer]
        match stream.judge(packet):
            case Verdict.TAKE:
                stream.receive(packet)
                return []
            case Verdict.REPEAT:
                return [self._ack(peer)]
            case Verdict.GAP:
                return [self._resume(peer)] if stream.gap_asked != stream.received else []
            case Verdict.FENCED:
                return [self._send(Kind.FENCED, peer, seq=stream.epoch)]
            case Verdict.STRANGER:
                return [self._send(Kind.HELLO, peer)]

    def _on_ack(self, peer: int, packet: Packet) -> list[Effect]:
        stream = self.outbound[peer]
        if packet.src_epoch != self.inbound[peer].epoch:
            return [self._send(Kind.HELLO, peer)]
        if stream.acked(packet.seq) or packet.position > stream.credit:
            stream.progress_ns = self._steady_ns
        stream.credit = max(stream.credit, packet.position)
        stream.pressed = bool(packet.count)
        return self._frames(peer)

    def _refuse(self, reason: str) -> list[Effect]:
        self.refused[reason] = self.refused.get(reason, 0) + 1 if len(self.refused) < 100 else 1
        return []

    def _fenced(self, shard: int, epoch: int) -> StoreDamaged:
        return StoreDamaged(
            f"Shard {shard} runs in epoch {epoch} elsewhere, this process has epoch {self.epoch}: "
            f"it was replaced and stops."
        )

    # ── time and pressure ──

    def tick(self, steady_ns: int) -> list[Effect]:
        """Ask silent peers again: a hello not answered, an ack owed, a pressed one."""
        self._steady_ns = steady_ns
        effects: list[Effect] = []
        for peer, stream in self.outbound.items():
            if peer == self.me:
                continue
            owed = (
                not stream.connected
                or stream.sent > stream.released
                or stream.sent < stream.durable
                # It says so in acks only, and may have none left to send when it is not any more.
                or stream.pressed
            )
            if owed and steady_ns - stream.progress_ns > RETRY_NS:
                stream.progress_ns = steady_ns
                effects.append(self._send(Kind.HELLO, peer))
        return effects

    @property
    def busy(self) -> bool:
        """Whether any frame is unacked here, or waits to be run."""
        return any(s.outbox for s in self.outbound.values()) or any(
            s.waiting for s in self.inbound.values()
        )

    @property
    def _full(self) -> bool:
        return any(s.position - s.released_position > PRESSED_BYTES for s in self.outbound.values())

    @property
    def pressed(self) -> bool:
        """Whether intake from outside should pause."""
        return self._full or any(s.pressed for s in self.outbound.values())


def _nobody_keeps(no: int) -> None:
    """Nobody keeps rows until a worker does."""
