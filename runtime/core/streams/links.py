"""All streams of a shard: handshakes, epochs, acks, and who must stop.

    HELLO   "I am shard a in epoch e and have sent you frames up to n": the peer answers RESUME
    RESUME  "I have your frames up to n, with this checksum": send on from there
    FRAME   one numbered run of messages
    ACK     nothing but what all of them say: "durable here up to n; credit to byte p"
    FENCED  "shard a has a newer epoch than yours": only the shard named, in an older epoch, stops

Each packet names both ends' epochs. An old epoch of the receiver is answered with HELLO, an
old epoch of the sender with FENCED. The stream to the shard itself needs none of this: it is
numbered, kept and released in the same commits, and never leaves.

A pair of shards costs something only while one of the two has something to say. Its streams are
made when the first frame is sealed or the first packet comes; greeted at the opening is who has
a row in the store; and what is looked at in each commit or tick are lists of who owes or is
owed something, never all members.

No I/O, no clock. Idea: docs/streams.md. Asserts I3, I4, I5.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from skerry.errors import StoreDamaged
from skerry.runtime.core import wire
from skerry.runtime.core.events import Effect, Keep, Row, ShardId, Stop, Transmit
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.streams.inbound import Inbound, Verdict
from skerry.runtime.core.streams.outbound import Outbound, Sealed
from skerry.runtime.core.streams.parts import CutFrame, Part
from skerry.runtime.core.wire import Kind, Packet, Run

RETRY_NS = 300_000_000
"""Silence of a peer that owes an ack, or a hello, before it is asked again. A slow fsync is no silence."""

LOOK_NS = RETRY_NS // 4
"""How often silent peers are looked for."""

ACK_NS = 20_000_000
"""How long an ack waits for a frame that takes it along, or for more that it can say at once."""

PRESSED_BYTES = 64 << 20
"""Unacked bytes to one peer above which intake from outside pauses."""

PRESSED_BYTES_OF_ALL = 1 << 30
"""The same to all peers together."""

EPOCHS_AHEAD_MAX = 1 << 20
"""How far an epoch that a packet names may be ahead of those that we know: more starts than a store
sees between two copies of it."""

CUT_AHEAD_NS = 366 * 24 * 3600 * 10**9
CUTS_AHEAD_MAX = 1 << 20
"""Cuts have the time as their number, or one more than the newest: how far another may be ahead. No
cut can follow the largest number of all."""

OPEN_BYTES = 4 << 20
"""Bodies of frames that wait taken apart, which takes several times as much memory."""

REASONS_MAX = 100
"""Reasons of refusals that are counted each for itself: some name a number out of a packet."""


class Streams:
    """The streams between one shard and those that it has to do with."""

    def __init__(
        self,
        ownership: Ownership,
        incarnation: bytes,
        epoch: int,
        read: Callable[[int, bytes], bytes | None],
    ) -> None:
        self.me, self.epoch = ownership.me, epoch
        self._ownership = ownership
        self._incarnation, self._token = incarnation, wire.token_of(incarnation)
        self._read = read
        self.outbound: dict[int, Outbound] = {}
        self.inbound: dict[int, Inbound] = {}
        """Both ends are made together, when one of the two shards first has something to say."""
        self.own = self._meet(self.me)
        """What waits on the shard's own stream."""
        self.first = 0
        """Own frames up to this number run before any peer's: see `load`."""
        self.ready: deque[Inbound] = deque()
        """Streams from peers on which frames wait, each once, in the order of their turn."""
        self.refused: dict[str, int] = {}
        """How often what was refused, by reason."""
        self.now_ns = 0
        """The shard's time, by which the number of a cut is judged."""
        self.cut = 0
        """The newest cut of a backup that we took; every packet says it."""
        self._open: dict[tuple[int, int], list[Run]] = {}
        """Messages of frames that wait, by peer and number; of the others they are decoded again."""
        self._open_bytes = 0
        self._cut: dict[tuple[int, int], CutFrame] = {}
        """Frames of which a part has run, by peer and number: one of each stream at most."""
        self._unacked: dict[int, Outbound] = {}
        """Streams with frames in their outbox."""
        self._unacked_bytes = 0
        self._heavy: set[int] = set()
        """Peers to which so much is unacked that we are pressed."""
        self._pressed: set[int] = set()
        """Peers that are pressed, as they last said."""
        self._released: dict[int, Outbound] = {}
        """Streams with frames that were acked; the next commit deletes their rows."""
        self._bulky: dict[int, Outbound] = {}
        """Streams with more bodies in memory than they may have."""
        self._unsaid: dict[int, Inbound] = {}
        """Streams of which something is durable here and their sender was not told."""
        self._overdue: list[int] = []
        """Of these, who must hear of it soon."""
        self._greeted: set[int] = set()
        """Who was asked since the last tick: a burst of frames is answered once."""
        self._steady_ns = self._unsaid_ns = self._look_ns = 0

    def _meet(self, peer: int) -> Inbound:
        """Both streams of a pair; the one that comes in."""
        stream = self.inbound.get(peer)
        if stream is None:
            streams = len(self._ownership.members)
            self.outbound[peer] = Outbound(self.me, peer, self._read, streams)
            stream = self.inbound[peer] = Inbound(peer, streams)
        return stream

    def load(
        self, rows: Iterable[tuple[bytes, bytes]], outbox: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """From the store's rows, as a restart finds them.

        After a change of the number of shards, what was under way lies in the new owners' own
        streams, while its senders now send by other streams: those wait until it has run (I2).
        """
        streams = {bytes(key): bytes(value) for key, value in rows}
        frames: dict[int, list[tuple[bytes, bytes]]] = {}
        for key, value in outbox:
            frames.setdefault(int.from_bytes(key[:4], "big"), []).append((bytes(key), bytes(value)))
        known = {int.from_bytes(key[1:], "big") for key in streams} | set(frames)
        for peer in sorted(known & self._ownership.members):
            self._meet(peer).recover(streams.get(Inbound.row_key(peer)))
            stream = self.outbound[peer]
            stream.recover(streams.get(Outbound.row_key(peer)), frames.get(peer, []))
            self._unacked_bytes += stream.unacked_bytes
            self._note(stream)
        own = self.outbound[self.me]
        for frame in own.outbox:
            self._receive_own(frame)
        self.first = self.outbound[self.me].sealed

    # ── the shard's own stream ──

    def _receive_own(self, frame: Sealed) -> None:
        body = self.outbound[self.me].body(frame)
        self.own.receive(self._frame_of(self.me, frame, body))

    # ── commits ──

    def seal(self, peer: int, bodies: list[tuple[bytes, int]]) -> list[Row]:
        """Number the frames for one peer; their rows."""
        self._meet(peer)
        stream = self.outbound[peer]
        frames = [stream.seal(body, count) for body, count in bodies]
        self._unacked_bytes += sum(len(body) for body, _ in bodies)
        self._note(stream)
        rows = stream.rows(frames)
        self._released.pop(peer, None)
        if peer == self.me:
            for frame in frames:
                self._receive_own(frame)
            if frames:
                stream.durable_upto(stream.sealed)
        return rows

    def _note(self, stream: Outbound) -> None:
        """Its outbox has changed: keep the lists of who needs to be looked at."""
        peer = stream.peer
        if stream.outbox:
            self._unacked[peer] = stream
        else:
            self._unacked.pop(peer, None)
        if stream.unacked_bytes > PRESSED_BYTES:
            self._heavy.add(peer)
        else:
            self._heavy.discard(peer)
        if stream.bulky:
            self._bulky[peer] = stream

    def _release(self, stream: Outbound, upto: int) -> bool:
        """The receiver has everything up to `upto` durable. Whether that was news."""
        before = stream.unacked_bytes
        if not stream.acked(upto):
            return False
        self._unacked_bytes -= before - stream.unacked_bytes
        self._released[stream.peer] = stream
        self._note(stream)
        return True

    def taken(self, parts: list[Part]) -> dict[int, tuple[int, int]]:
        """Of each peer the newest (seq, position) that a commit of these parts makes durable."""
        whole = [part.packet for part in parts if part.ends]
        return {packet.src: (packet.seq, packet.position) for packet in whole}

    def rows_taken(self, parts: list[Part]) -> list[Row]:
        """The positions that a commit of these parts saves."""
        own = self.outbound[self.me]
        for part in parts:
            if part.packet.src == self.me and part.ends:
                self._release(own, part.packet.seq)
        return [self.inbound[peer].row() for peer in dict.fromkeys(p.packet.src for p in parts)]

    def rows_of_released(self) -> list[Row]:
        """Deletions of acked frames, for the streams whose row is not in this commit yet."""
        rows: list[Row] = []
        for stream in self._released.values():
            rows += stream.rows([])
        self._released.clear()
        for peer, stream in list(self._bulky.items()):
            stream.spill()
            if not stream.bulky:
                del self._bulky[peer]
        return rows

    def durable(self, peer: int, seq: int, position: int) -> None:
        """Frames of a peer up to `seq` are in durable commits: it may be told."""
        stream = self.inbound[peer]
        stream.durable_upto(seq, position)
        if peer == self.me:
            return
        self._owe_ack(stream)
        if stream.overdue:
            self._overdue.append(peer)

    def _owe_ack(self, stream: Inbound) -> None:
        if not self._unsaid:
            self._unsaid_ns = self._steady_ns
        self._unsaid[stream.peer] = stream

    # ── speaking ──

    def hello(self) -> list[Effect]:
        """To every peer that we had to do with, at the opening."""
        effects: list[Effect] = []
        for peer in self.inbound:
            if peer != self.me:
                effects += self._hello(peer)
        return effects

    def speak(self, peers: Iterable[int]) -> list[Effect]:
        """Frames to peers for which some became durable, and the acks that can't wait."""
        effects: list[Effect] = []
        for peer in peers:
            effects += self._frames(peer)
        for peer in self._overdue:
            if peer in self._unsaid:
                effects.append(self._say(Kind.ACK, peer))
        self._overdue.clear()
        return effects

    def _frames(self, peer: int) -> list[Effect]:
        stream = self.outbound[peer]
        if not stream.connected:
            return self._hello(peer) if self._silent(stream) else []
        if stream.sent == stream.released:
            # It owes nothing so far: its silence begins now.
            stream.progress_ns = self._steady_ns
        return [
            Transmit(ShardId(peer), wire.pack(self._frame_of(peer, frame, stream.body(frame))))
            for frame in stream.offer()
        ]

    def _frame_of(self, peer: int, frame: Sealed, body: bytes) -> Packet:
        return self._packet(
            Kind.FRAME, peer, frame.seq, frame.position, frame.count, frame.checksum, body
        )

    def _hello(self, peer: int) -> list[Effect]:
        if peer in self._greeted:
            return []
        self._greeted.add(peer)
        stream = self.outbound[peer]
        stream.progress_ns = self._steady_ns
        sent, acked = stream.sent, stream.released
        return [self._say(Kind.HELLO, peer, seq=sent, position=acked, body=self._incarnation)]

    def _resume(self, peer: int, expected: int) -> Transmit:
        """Where to go on. `expected`: up to there all frames should have come by now."""
        stream = self.inbound[peer]
        return self._say(
            Kind.RESUME,
            peer,
            seq=stream.received,
            position=expected,
            checksum=stream.received_checksum,
        )

    def _say(
        self,
        kind: Kind,
        peer: int,
        *,
        seq: int = 0,
        position: int = 0,
        checksum: int = 0,
        body: bytes = b"",
    ) -> Transmit:
        packet = self._packet(kind, peer, seq, position, 0, checksum, body)
        return Transmit(ShardId(peer), wire.pack(packet))

    def _packet(
        self, kind: int, peer: int, seq: int, position: int, count: int, checksum: int, body: bytes
    ) -> Packet:
        """Every packet says how far the stream the other way is durable, and how far it may go.
        Of a HELLO or FENCED the peer may be a life that does not hear that: it is still unsaid."""
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
            self._full,
            self.cut,
            self._token,
            body,
        )

    # ── listening ──

    def arrived(self, raw: bytes) -> list[Effect]:
        """A packet from a pipe: what it causes at once. Its turns wait for a batch."""
        try:
            packet = wire.unpack(raw)
        except wire.Garbage as garbage:
            return self._refuse(str(garbage))
        peer = packet.src
        if reason := self._unfit(packet):
            return self._refuse(reason)
        if packet.dst_epoch > self.epoch:
            return [Stop(self._fenced(self.me, packet.dst_epoch))]
        stream = self._meet(peer)
        if packet.src_epoch < stream.epoch and packet.kind != Kind.FENCED:
            return [self._say(Kind.FENCED, peer, seq=stream.epoch)]
        cut = self.cut_at(packet.cut)
        try:
            return [*cut, *self._listen(stream, packet)]
        except StoreDamaged as damage:
            return [Stop(damage)]

    def _unfit(self, packet: Packet) -> str:
        """Why no shard of this app says this, whatever happened to it; empty: one may."""
        peer = packet.src
        if packet.incarnation != self._token:
            return f"shard {peer} belongs to another incarnation of the app"
        if packet.dst != self.me or peer not in self._ownership.members or peer == self.me:
            return f"from {peer} to {packet.dst}, not between members"
        if not packet.src_epoch:
            return f"shard {peer} names no epoch of its own"
        known = self.inbound.get(peer)
        most = EPOCHS_AHEAD_MAX + (self.epoch if known is None else max(self.epoch, known.epoch))
        fenced = packet.seq if packet.kind == Kind.FENCED else 0
        if packet.src_epoch > most or packet.dst_epoch > most or fenced > most:
            return f"shard {peer} names an epoch that no shard has reached"
        if packet.kind == Kind.HELLO and packet.position > packet.seq:
            return f"shard {peer} names more frames that were acked than frames that were sent"
        if not self.follows(packet.cut):
            return f"shard {peer} names a cut of the far future"
        return ""

    def follows(self, cut: int) -> bool:
        """Whether a backup may have this number: a clock's, or one behind the newest that we know."""
        return cut <= max(self.now_ns + CUT_AHEAD_NS, self.cut + CUTS_AHEAD_MAX)

    def cut_at(self, no: int) -> list[Effect]:
        """Take a cut, unless it was taken: before anything is handled that left behind it.

        What left us before was durable, so it is kept; what comes from behind the cut is handled
        after, so it is not. What is durable and has not left yet leaves behind the cut, and
        stands in the copy's outbox without an ack. So of each stream the copies hold what fits.
        Source: Chandy and Lamport, "Distributed snapshots", 1985.
        """
        if no <= self.cut:
            return []
        self.cut = no
        return [Keep(no)]

    def _listen(self, stream: Inbound, packet: Packet) -> list[Effect]:
        to_us = packet.dst_epoch == self.epoch
        match packet.kind:
            case Kind.FRAME if to_us:
                return self._on_frame(stream, packet)
            case Kind.ACK if to_us and packet.src_epoch == stream.epoch:
                return self._heard(packet)
            case Kind.HELLO:
                return self._on_hello(stream, packet)
            case Kind.RESUME:
                return self._on_resume(stream, packet)
            case Kind.FENCED:
                newest = packet.seq
                return [Stop(self._fenced(self.me, newest))] if self.epoch < newest else []
        # One of the two lives does not know of the other.
        return self._hello(packet.src)

    def _adopt(self, stream: Inbound, epoch: int) -> bool:
        """A peer's epoch, maybe new: then what we knew of its connection is over."""
        peer = stream.peer
        assert epoch >= stream.epoch, f"I5: epoch of {peer} went back, {stream.epoch} to {epoch}"
        if epoch == stream.epoch:
            return False
        stream.epoch = epoch
        self.outbound[peer].reconnect()
        self.outbound[peer].progress_ns = self._steady_ns
        return True

    def _on_hello(self, stream: Inbound, packet: Packet) -> list[Effect]:
        if packet.body != self._incarnation:
            return self._refuse(f"shard {packet.src} belongs to another incarnation of the app")
        stream.known_to_sender(packet.position, self.me)
        self._adopt(stream, packet.src_epoch)
        return [self._resume(packet.src, packet.seq)]

    def _on_resume(self, stream: Inbound, packet: Packet) -> list[Effect]:
        effects: list[Effect] = []
        if self._adopt(stream, packet.src_epoch):
            effects.append(self._resume(packet.src, 0))
        if packet.dst_epoch != self.epoch:
            return [*effects, *self._hello(packet.src)]
        outbound = self.outbound[packet.src]
        outbound.resume(packet.seq, packet.checksum, packet.position)
        outbound.progress_ns = self._steady_ns
        return [*effects, *self._heard(packet)]

    def _on_frame(self, stream: Inbound, packet: Packet) -> list[Effect]:
        peer = packet.src
        match stream.judge(packet):
            case Verdict.TAKE:
                try:
                    runs = wire.messages_of(packet)
                except wire.Garbage as garbage:
                    # It has not come: the stream stands still until its peer sends another.
                    return self._refuse(f"frame {packet.seq} of shard {peer}: {garbage}")
                if not stream.waiting:
                    self.ready.append(stream)
                stream.receive(packet)
                self._keep_open(packet, runs)
            case Verdict.REPEAT:
                self._owe_ack(stream)  # The one that was said may have been lost.
            case Verdict.GAP:
                if stream.gap_asked != stream.received:
                    stream.gap_asked = stream.received
                    return [*self._heard(packet), self._resume(peer, packet.seq)]
            case Verdict.FENCED:
                return [self._say(Kind.FENCED, peer, seq=stream.epoch)]
            case Verdict.STRANGER:
                return self._hello(peer)
        return self._heard(packet)

    def _keep_open(self, packet: Packet, runs: list[Run]) -> None:
        """It was taken apart to be judged: while few wait, that is not done again for its batch."""
        if self._open_bytes < OPEN_BYTES:
            self._open_bytes += len(packet.body)
            self._open[packet.src, packet.seq] = runs

    def messages_of(self, part: Part) -> list[Run]:
        """The messages of a part that a batch has taken."""
        packet = part.packet
        where = packet.src, packet.seq
        frame = self._cut.get(where)
        if frame is None:
            runs = self._open.pop(where, None)
            if runs is None:
                runs = wire.decode_runs(packet.body)
            else:
                self._open_bytes -= len(packet.body)
            if part.count == packet.count:
                return runs
            frame = self._cut[where] = CutFrame(runs)
        if part.ends:
            del self._cut[where]
        return frame.part(part.start, part.end)

    def _heard(self, packet: Packet) -> list[Effect]:
        """What every packet says of the stream the other way."""
        peer = packet.src
        stream = self.outbound[peer]
        news = packet.ack > stream.released and self._release(stream, packet.ack)
        if packet.credit > stream.credit:
            stream.credit, news = packet.credit, True
        if news:
            stream.progress_ns = self._steady_ns
        if packet.pressed:
            self._pressed.add(peer)
        else:
            self._pressed.discard(peer)
        return self._frames(peer) if stream.sent < stream.durable else []

    def _refuse(self, reason: str) -> list[Effect]:
        if reason not in self.refused and len(self.refused) >= REASONS_MAX:
            reason = "other reasons"
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return []

    def _fenced(self, shard: int, epoch: int) -> StoreDamaged:
        return StoreDamaged(
            f"Shard {shard} runs in epoch {epoch} elsewhere, this process has epoch {self.epoch}: "
            f"it was replaced and stops."
        )

    # ── time and pressure ──

    def tick(self, steady_ns: int) -> list[Effect]:
        """Say the acks that found no company. Ask silent peers again: one that owes an answer or
        an ack, and one that is pressed, which may have nothing else to say when it is not any more.
        """
        self._steady_ns = steady_ns
        self._greeted.clear()
        effects: list[Effect] = []
        if self._unsaid and steady_ns - self._unsaid_ns > ACK_NS:
            effects += [self._say(Kind.ACK, peer) for peer in list(self._unsaid)]
        if steady_ns > self._look_ns:
            self._look_ns = steady_ns + LOOK_NS
            for peer in [*self._unacked, *self._pressed.difference(self._unacked)]:
                stream = self.outbound[peer]
                owed = stream.durable > stream.released or peer in self._pressed
                if peer != self.me and owed and self._silent(stream):
                    effects += self._hello(peer)
        return effects

    def _silent(self, stream: Outbound) -> bool:
        return self._steady_ns - stream.progress_ns > RETRY_NS

    @property
    def waits(self) -> bool:
        """Whether any frame waits to be run."""
        return bool(self.ready or self.own.waiting)

    @property
    def busy(self) -> bool:
        """Whether any frame is unacked here, or waits to be run."""
        return bool(self._unacked) or self.waits

    @property
    def restless(self) -> bool:
        """Whether any peer may have to be asked again by the next ticks."""
        return bool(self._unacked or self._pressed)

    @property
    def owes(self) -> bool:
        """Whether a peer waits for an ack that the next ticks will say."""
        return bool(self._unsaid)

    @property
    def _full(self) -> bool:
        return bool(self._heavy) or self._unacked_bytes > PRESSED_BYTES_OF_ALL

    @property
    def pressed(self) -> bool:
        """Whether intake from outside should pause."""
        return self._full or bool(self._pressed)
