"""All streams of a shard: what is sealed, what arrives, and what each packet leads to.

    HELLO   "I am shard a in epoch e and have sent you frames up to n": the peer answers RESUME
    RESUME  "I have your frames up to n, with this checksum": send on from there
    FRAME   one numbered run of messages
    ACK     nothing but what all of them say: "durable here up to n; credit to byte p"
    FENCED  "shard a has a newer epoch than yours": only the shard named, in an older epoch, stops

Each packet names both ends' epochs; `handshake.py` has the table of answers. The stream to the
shard itself needs none of this: it is numbered, kept and released in the same commits, and never
leaves.

A pair of shards costs something only while one of the two has something to say. Its streams are
made when the first frame is sealed or the first packet comes; at the opening only peers with a
row in the store are greeted; and each commit or tick looks at lists of streams that owe or are
owed something, never at all members.

No I/O, no clock. Idea: docs/ideas/streams.md. Asserts I3, I4, I5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from skerry.errors import StoreDamaged
from skerry.runtime.core import wire
from skerry.runtime.core.events import Effect, Row, Stop
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.streams.arrivals import Arrivals
from skerry.runtime.core.streams.cuts import Cuts
from skerry.runtime.core.streams.handshake import Reaction, reaction
from skerry.runtime.core.streams.inbound import Inbound, Verdict
from skerry.runtime.core.streams.outbound import Outbound, Sealed
from skerry.runtime.core.streams.outboxes import Outboxes
from skerry.runtime.core.streams.parts import OpenFrames, Part
from skerry.runtime.core.streams.speech import RETRY_NS, Speech
from skerry.runtime.core.wire import Kind, Packet

LOOK_NS = RETRY_NS // 4
"""How often silent peers are looked for."""

EPOCHS_AHEAD_MAX = 1 << 20
"""How far an epoch that a packet names may be ahead of those that we know: more starts than a store
sees between two copies of it."""

REASONS_MAX = 100
"""Reasons of refusals that are counted each for itself: some name a number out of a packet."""


class Fenced(StoreDamaged):
    """A newer epoch of this shard runs elsewhere. Only in a cluster, nothing is damaged by that."""


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
        self._incarnation, self._token = incarnation, wire.token_of(incarnation)
        self._ownership, self._read = ownership, read
        self.cuts, self.outboxes, self.open = Cuts(), Outboxes(), OpenFrames()
        self._speech = Speech(ownership, incarnation, epoch, self.outboxes, self.cuts)
        self.outbound, self.inbound = self._speech.outbound, self._speech.inbound
        self.own = self._meet(self.me)
        """The shard's stream to itself."""
        self.arrivals = Arrivals(ownership, self.own)
        self.refused: dict[str, int] = {}
        """How often what was refused, by reason."""
        self._pressed: set[int] = set()
        """Peers that are under backpressure, as they last said."""
        self._look_ns = 0

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
            self.outboxes.loaded(stream)
        for frame in self.outbound[self.me].outbox:
            self._receive_own(frame)
        self.arrivals.run_own_first()

    # ── who is a member ──

    def adopted(self, members: Iterable[int]) -> list[Row]:
        """Go by another version of the placement: run what came by it, and forget who has left."""
        self.arrivals.adopted()
        rows: list[Row] = []
        for peer in sorted(self.inbound.keys() - set(members) - {self.me}):
            rows += self._speech.forget(peer)
            self._pressed.discard(peer)
        return rows

    # ── the shard's own stream ──

    def _receive_own(self, frame: Sealed) -> None:
        body = self.outbound[self.me].body(frame)
        self.own.receive(self._speech.frame(self.me, frame, body))

    # ── commits ──

    def seal(self, peer: int, bodies: list[tuple[bytes, int]]) -> list[Row]:
        """Number the frames for one peer; their rows."""
        self._meet(peer)
        stream = self.outbound[peer]
        frames = self.outboxes.seal(stream, bodies)
        rows = stream.rows(frames)
        if peer == self.me:
            for frame in frames:
                self._receive_own(frame)
            if frames:
                stream.durable_upto(stream.sealed)
        return rows

    def taken(self, parts: list[Part]) -> dict[int, tuple[int, int]]:
        """The newest (seq, position) of each peer that a commit of these parts makes durable."""
        whole = [part.packet for part in parts if part.ends]
        return {packet.src: (packet.seq, packet.position) for packet in whole}

    def rows_taken(self, parts: list[Part]) -> list[Row]:
        """The positions that a commit of these parts saves."""
        own = self.outbound[self.me]
        for part in parts:
            if part.packet.src == self.me and part.ends:
                self.outboxes.release(own, part.packet.seq)
        return [self.inbound[peer].row() for peer in dict.fromkeys(p.packet.src for p in parts)]

    def durable(self, peer: int, seq: int, position: int) -> None:
        """Frames of a peer up to `seq` are in durable commits: it may be told."""
        stream = self.inbound[peer]
        stream.durable_upto(seq, position)
        if peer != self.me:
            self._speech.owe_ack(stream)

    # ── speaking ──

    def hello(self) -> list[Effect]:
        """Greet every peer that the shard had to do with, at the opening."""
        effects: list[Effect] = []
        for peer in self.inbound:
            if peer != self.me:
                effects += self._speech.hello(peer)
        return effects

    def speak(self, peers: Iterable[int]) -> list[Effect]:
        """Send frames to peers for which some became durable, and the acks that can't wait."""
        effects: list[Effect] = []
        for peer in peers:
            effects += self._speech.frames(peer)
        return effects + self._speech.urgent_acks()

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
        if peer not in self._ownership.members:
            return []  # A version that is not adopted here yet has made it one: it asks again.
        stream = self._meet(peer)
        found = reaction(
            Kind(packet.kind),
            sender=packet.src_epoch,
            known=stream.epoch,
            receiver=packet.dst_epoch,
            ours=self.epoch,
        )
        if found is Reaction.STOP:
            return self._replaced(packet.dst_epoch)
        if found is Reaction.FENCE:
            return [self._speech.say(Kind.FENCED, peer, seq=stream.epoch)]
        cut = self.cuts.take(packet.cut)
        try:
            return [*cut, *self._react(found, stream, packet)]
        except StoreDamaged as damage:
            return [Stop(damage)]

    def _unfit(self, packet: Packet) -> str:
        """Why no shard of this app says this, whatever happened to it; empty: one may."""
        peer = packet.src
        if packet.incarnation != self._token:
            return f"shard {peer} belongs to another incarnation of the app"
        known = peer in self._ownership.members or packet.placement > self._ownership.version
        if packet.dst != self.me or not known or peer == self.me:
            return f"from {peer} to {packet.dst}, not between members"
        if not packet.src_epoch:
            return f"shard {peer} names no epoch of its own"
        stream = self.inbound.get(peer)
        if not self.cuts.follows(packet.cut):
            return f"shard {peer} names a cut of the far future"
        return _unreached(packet, self.epoch if stream is None else max(self.epoch, stream.epoch))

    def _react(self, found: Reaction, stream: Inbound, packet: Packet) -> list[Effect]:
        match found:
            case Reaction.TAKE:
                return self._on_frame(stream, packet)
            case Reaction.HEAR:
                return self._heard(packet)
            case Reaction.ANSWER:
                return self._on_hello(stream, packet)
            case Reaction.GO_ON:
                return self._on_resume(stream, packet)
            case Reaction.STEP_DOWN:
                return self._replaced(packet.seq) if self.epoch < packet.seq else []
            case _:
                return self._speech.hello(packet.src)

    def _adopt(self, stream: Inbound, epoch: int) -> bool:
        """A peer's epoch, maybe new: then what we knew of its connection is over."""
        peer = stream.peer
        assert epoch >= stream.epoch, f"I5: epoch of {peer} went back, {stream.epoch} to {epoch}"
        if epoch == stream.epoch:
            return False
        stream.epoch = epoch
        self.outbound[peer].reconnect()
        self.outbound[peer].progress_ns = self._speech.steady_ns
        return True

    def _on_hello(self, stream: Inbound, packet: Packet) -> list[Effect]:
        if packet.body != self._incarnation:
            return self._refuse(f"shard {packet.src} belongs to another incarnation of the app")
        stream.known_to_sender(packet.position, self.me)
        self._adopt(stream, packet.src_epoch)
        return [self._speech.resume(packet.src, packet.seq)]

    def _on_resume(self, stream: Inbound, packet: Packet) -> list[Effect]:
        effects: list[Effect] = []
        if self._adopt(stream, packet.src_epoch):
            effects.append(self._speech.resume(packet.src, 0))
        if packet.dst_epoch != self.epoch:
            return [*effects, *self._speech.hello(packet.src)]
        outbound = self.outbound[packet.src]
        outbound.resume(packet.seq, packet.checksum, packet.position)
        outbound.progress_ns = self._speech.steady_ns
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
                stream.receive(packet)
                if len(stream.waiting) == 1:
                    self.arrivals.wait(stream)
                self.open.keep(packet, runs)
            case Verdict.REPEAT:
                self._speech.owe_ack(stream)  # The one that was said may have been lost.
            case Verdict.GAP:
                if stream.gap_asked != stream.received:
                    stream.gap_asked = stream.received
                    return [*self._heard(packet), self._speech.resume(peer, packet.seq)]
        return self._heard(packet)

    def _heard(self, packet: Packet) -> list[Effect]:
        """What every packet says of the stream the other way."""
        peer = packet.src
        stream = self.outbound[peer]
        news = packet.ack > stream.released and self.outboxes.release(stream, packet.ack)
        if packet.credit > stream.credit:
            stream.credit, news = packet.credit, True
        if news:
            stream.progress_ns = self._speech.steady_ns
        if packet.pressed:
            self._pressed.add(peer)
        else:
            self._pressed.discard(peer)
        return self._speech.frames(peer) if stream.sent < stream.durable else []

    def _refuse(self, reason: str) -> list[Effect]:
        if reason not in self.refused and len(self.refused) >= REASONS_MAX:
            reason = "other reasons"
        self.refused[reason] = self.refused.get(reason, 0) + 1
        return []

    def _replaced(self, epoch: int) -> list[Effect]:
        return [Stop(_fenced(self.me, epoch, self.epoch))]

    # ── time and pressure ──

    def tick(self, steady_ns: int) -> list[Effect]:
        """Say the acks that found no company. Ask silent peers again: one that owes an answer or
        an ack, and one that is pressed, which may have nothing else to say when it is not any more.
        """
        effects = self._speech.tick(steady_ns)
        if steady_ns > self._look_ns:
            self._look_ns = steady_ns + LOOK_NS
            unacked = self.outboxes.unacked
            for peer in [*unacked, *self._pressed.difference(unacked)]:
                stream = self.outbound[peer]
                owed = stream.durable > stream.released or peer in self._pressed
                if peer != self.me and owed and self._speech.silent(stream):
                    effects += self._speech.hello(peer)
        return effects

    @property
    def busy(self) -> bool:
        """Whether any frame is unacked here, or waits to be run."""
        return bool(self.outboxes.unacked or self.arrivals)

    @property
    def restless(self) -> bool:
        """Whether any peer may have to be asked again by the next ticks."""
        return bool(self.outboxes.unacked or self._pressed)

    @property
    def owes(self) -> bool:
        """Whether a peer waits for an ack that the next ticks will say."""
        return self._speech.owes

    @property
    def pressed(self) -> bool:
        """Whether intake from outside should pause."""
        return self.outboxes.full or bool(self._pressed)


def _unreached(packet: Packet, newest: int) -> str:
    """Why no shard has come as far as a packet says; empty: one may have. `newest`: known epoch."""
    most = EPOCHS_AHEAD_MAX + newest
    fenced = packet.seq if packet.kind == Kind.FENCED else 0
    if packet.src_epoch > most or packet.dst_epoch > most or fenced > most:
        return f"shard {packet.src} names an epoch that no shard has reached"
    if packet.kind == Kind.HELLO and packet.position > packet.seq:
        return f"shard {packet.src} names more frames that were acked than frames that were sent"
    return ""


def _fenced(shard: int, newest: int, ours: int) -> Fenced:
    return Fenced(
        f"Shard {shard} runs in epoch {newest} elsewhere, this process has epoch {ours}: "
        f"it was replaced and stops."
    )
