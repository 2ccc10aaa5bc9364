"""Bugs of the streams between shards: numbers, acks, handshakes, epochs, cuts."""

from contextlib import suppress
from unittest.mock import patch

from msgspec.structs import replace

from skerry.runtime.core import wire
from skerry.runtime.core.events import Keep
from skerry.runtime.core.streams import outbound, speech
from skerry.runtime.core.streams.inbound import Verdict
from skerry.runtime.core.wire import Kind
from tests.mutants.bugs import bug

# The sending end.


@bug("a frame leaves before its commit is durable", "core.streams.outbound:Outbound.seal")
def _(seal, self, body, count):
    frame = seal(self, body, count)
    self.durable = self.sealed
    return frame


@bug("the outbox forgets what was sent, not what was acked", "core.streams.outbound:Outbound.offer")
def _(offer, self):
    for frame in offer(self):
        yield frame
        self.acked(frame.seq)


@bug("numbers are used again after a restart", "core.streams.outbound:Outbound.recover")
def _(recover, self, row, frames):
    if row is not None:
        known = outbound._row.decode(row)
        known = replace(known, sealed=known.released, position=known.released_position)
        row = outbound._encode(known)
    recover(self, row, frames)


@bug(
    "a hello's answer takes for lost what was sent behind it",
    "core.streams.outbound:Outbound.resume",
)
def _(resume, self, seq, checksum, expected):
    resume(self, seq, checksum, self.sent)


@bug("what was lost before a hello is not sent again", "core.streams.outbound:Outbound.resume")
def _(resume, self, seq, checksum, expected):
    resume(self, seq, checksum, 0)


@bug("a frame's checksum is not compared at a handshake", "core.streams.outbound:Outbound.resume")
def _(resume, self, seq, checksum, expected):
    if self.released <= seq <= self.sealed:
        checksum = self._checksum(seq)
    resume(self, seq, checksum, expected)


@bug("a receiver ahead of its sender is not noticed", "core.streams.outbound:Outbound.resume")
def _(resume, self, seq, checksum, expected):
    newest = min(self.sealed, self.durable)
    if seq > newest:
        seq, checksum = newest, self._checksum(newest)
    resume(self, seq, checksum, expected)


# The receiving end.


@bug("a repeated frame is taken again", "core.streams.inbound:Inbound.judge")
def _(judge, self, packet):
    verdict = judge(self, packet)
    if verdict is not Verdict.REPEAT or packet.seq < self.received or not packet.seq:
        return verdict
    self.received, self.taken = packet.seq - 1, self.taken - (not self.waiting)
    return Verdict.TAKE


@bug("a gap is passed over", "core.streams.inbound:Inbound.judge")
def _(judge, self, packet):
    verdict = judge(self, packet)
    if verdict is not Verdict.GAP:
        return verdict
    self.received = packet.seq - 1
    self.taken = packet.seq - 1 - len(self.waiting)
    return Verdict.TAKE


@bug("a gap is dropped in silence", "core.streams.inbound:Inbound.judge")
def _(judge, self, packet):
    verdict = judge(self, packet)
    if verdict is Verdict.GAP:
        self.gap_asked = self.received
    return verdict


@bug("a stale epoch of a sender is accepted", "core.streams.handshake:reaction")
def _(reaction, kind, *, sender, known, receiver, ours):
    return reaction(kind, sender=max(sender, known), known=known, receiver=receiver, ours=ours)


@bug("credit counts what was taken, not what is durable", "core.streams.inbound:Inbound.credit")
def _(credit, self):
    return self.taken_position + self._window


@bug("an ack waits though its sender waits for credit", "core.streams.inbound:Inbound.overdue")
def _(overdue, self):
    return False


@bug(
    "the receiver's position is not in the commit of the turns",
    "core.streams.links:Streams.rows_taken",
)
def _(rows_taken, self, parts):
    rows_taken(self, parts)
    return []


@bug("the receiver's position is one commit late", "core.streams.links:Streams.rows_taken")
def _(rows_taken, self, parts):
    late, self.late = getattr(self, "late", []), rows_taken(self, parts)
    return late


@bug("a frame is taken before it is known to hold messages", "core.wire:messages_of")
def _(messages_of, packet):
    return []


@bug(
    "deletions of acked frames wait for the next frame of their stream",
    "core.streams.outboxes:Outboxes.release",
)
def _(release, self, stream, upto):
    news = release(self, stream, upto)
    self._released.pop(stream.peer, None)
    return news


@bug(
    "after a change of workers peers' frames need not wait for what lay in outboxes",
    "core.streams.links:Streams.load",
)
def _(load, self, rows, outbox):
    load(self, rows, outbox)
    self.arrivals.first = 0


# What every packet says.


@bug("an ack covers what is only received", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    return replace(packet(self, kind, peer, *fields), ack=self.inbound[peer].received)


@bug("an ack covers what is taken, not durable", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    return replace(packet(self, kind, peer, *fields), ack=self.inbound[peer].taken)


@bug("a frame takes no ack along, and none is said later", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    made = packet(self, kind, peer, *fields)
    return replace(made, ack=0) if kind == Kind.FRAME else made


@bug("an ack is over when an older life was told", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    stream = self.inbound[peer]
    stream.said_position = stream.durable_position
    self._unsaid.pop(peer, None)
    return packet(self, kind, peer, *fields)


@bug("acks do not say the cut", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    made = packet(self, kind, peer, *fields)
    return replace(made, cut=0) if kind == Kind.ACK else made


@bug("frames do not say the cut", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    made = packet(self, kind, peer, *fields)
    return replace(made, cut=0) if kind == Kind.FRAME else made


@bug("a hello does not say what its receiver has acked", "core.streams.speech:Speech._packet")
def _(packet, self, kind, peer, *fields):
    made = packet(self, kind, peer, *fields)
    return replace(made, position=0) if kind == Kind.HELLO else made


# What is heard.


@bug("a packet of another incarnation is believed", "core.streams.links:Streams._unfit")
def _(unfit, self, packet):
    return unfit(self, replace(packet, incarnation=self._token))


@bug("epochs and cuts that cannot be are believed", "core.streams.links:Streams._unfit")
def _(unfit, self, packet):
    reason = unfit(self, packet)
    return "" if "names a" in reason else reason


@bug("a packet for a newer epoch of ours does not stop us", "core.streams.links:Streams.arrived")
def _(arrived, self, raw):
    with suppress(wire.Garbage):
        packet = wire.unpack(raw)
        if packet.dst_epoch > self.epoch:
            raw = wire.pack(replace(packet, dst_epoch=0))
    return arrived(self, raw)


@bug("an older life of a peer fences its successor's friends", "core.streams.links:Streams._react")
def _(react, self, found, stream, packet):
    if packet.kind == Kind.FENCED:
        return self._replaced(packet.seq)
    return react(self, found, stream, packet)


@bug("a hello of another incarnation is taken", "core.streams.links:Streams._on_hello")
def _(on_hello, self, stream, packet):
    return on_hello(self, stream, replace(packet, body=self._incarnation))


@bug("a repeat is dropped in silence", "core.streams.links:Streams._on_frame")
def _(on_frame, self, stream, packet):
    with patch.object(self._speech, "owe_ack", lambda stream: None):
        return on_frame(self, stream, packet)


@bug("a resume's ack is not heard", "core.streams.links:Streams._heard")
def _(heard, self, packet):
    return heard(self, replace(packet, ack=0) if packet.kind == Kind.RESUME else packet)


@bug("credit is not renewed after a restart", "core.streams.links:Streams._heard")
def _(heard, self, packet):
    return heard(self, replace(packet, credit=0) if packet.kind == Kind.RESUME else packet)


# Who is asked when.


@bug("nobody is greeted at the opening", "core.streams.links:Streams.hello")
def _(hello, self):
    return []


@bug("nobody is greeted when the first frame is durable", "core.streams.speech:Speech.frames")
def _(frames, self, peer):
    return frames(self, peer) if self.outbound[peer].connected else []


@bug("silence is never asked about", "core.streams.links:Streams.tick")
def _(tick, self, steady_ns):
    with patch.object(self._speech, "silent", lambda stream: False):
        return tick(self, steady_ns)


@bug(
    "a peer that was pressed is never asked whether it still is", "core.streams.links:Streams.tick"
)
def _(tick, self, steady_ns):
    with patch.object(self, "_pressed", set()):
        return tick(self, steady_ns)


@bug("an ack that found no company is never said", "core.streams.speech:Speech.tick")
def _(tick, self, steady_ns):
    with patch.object(speech, "ACK_NS", 1 << 62):
        return tick(self, steady_ns)


# The cut of a backup.


@bug("a frame is handled before the cut that it asks for", "core.streams.links:Streams.arrived")
def _(arrived, self, raw):
    cuts = []
    with patch.object(self.cuts, "take", lambda no: cuts.append(no) or []):
        effects = arrived(self, raw)
    if cuts and wire.unpack(raw).kind != Kind.FRAME:
        effects += self.cuts.take(*cuts)
    return effects


@bug(
    "what is kept for a backup is the end of it, not its beginning",
    "core.streams.cuts:Cuts.take",
)
def _(take, self, no):
    return take(self, no) or [Keep(self.newest)] * bool(self.newest)


@bug(
    "a frame says the cut of when it was sealed, not of when it leaves",
    "core.streams.links:Streams.seal",
)
def _(seal, self, peer, bodies):
    before = self.outbound[peer].sealed if peer in self.outbound else 0
    rows, cuts = seal(self, peer, bodies), vars(self).setdefault("cuts_of", {})
    if not cuts:
        packet = self._speech._packet

        def stamped(kind, to, seq, *fields):
            made = packet(kind, to, seq, *fields)
            return replace(made, cut=cuts.get((to, seq), made.cut)) if kind == Kind.FRAME else made

        self._speech._packet = stamped
    for seq in range(before + 1, self.outbound[peer].sealed + 1):
        cuts[peer, seq] = self.cuts.newest
    return rows


# Frames that run in parts.


@bug("a frame of which a part has run begins anew", "core.streams.inbound:Inbound.recover")
def _(recover, self, row):
    recover(self, row)
    self.begun = 0


@bug("an ack covers a frame that has not run whole", "core.streams.links:Streams.taken")
def _(taken, self, parts):
    return {p.packet.src: (p.packet.seq, p.packet.position) for p in parts}


@bug("the rest of a frame that is cut is forgotten", "core.streams.inbound:Inbound.take")
def _(take, self, messages_max):
    part = take(self, messages_max)
    if not part.ends:
        rest = take(self, 1 << 30)
        assert rest.ends
    return part
