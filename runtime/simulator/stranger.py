"""A stranger on the simulated network: packets that no shard of the app sends.

It overhears what shards send each other, and nothing else.

Some are no packets, some belong to another incarnation, some claim what cannot be; some say all
that a peer's next frame would say, and hold no messages. Their checksums are right: whoever can
reach a pipe can compute them. What they must cause is a count, and nothing else.

Draws from a generator of its own, so that the seed's other faults are what they are without it.
"""

from __future__ import annotations

import random

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from skerry.runtime.core import wire
from skerry.runtime.core.wire import Call, Kind, Packet, Run

FAR = 10**9
LARGEST = 2**63 - 1

_encode = msgspec.msgpack.encode


class Stranger:
    """Makes packets up for a shard that runs."""

    def __init__(self, seed: int, incarnation: bytes) -> None:
        self.rng = random.Random(f"stranger {seed}")
        self._token = wire.token_of(incarnation)
        self._overheard: dict[int, dict[int, Packet]] = {}
        """By receiver and sender: the newest packet, as its next frame would begin."""

    def overhears(self, raw: bytes) -> None:
        """Note a packet that a shard sends."""
        packet = wire.unpack(raw)
        before = self._overheard.setdefault(packet.dst, {}).get(packet.src)
        if packet.kind != Kind.FRAME:
            at = (0, 0) if before is None else (before.seq, before.position)
            packet = replace(packet, seq=at[0], position=at[1])
        self._overheard[packet.dst][packet.src] = packet

    def packet(self, to: int) -> tuple[str, bytes]:
        """Make up a packet to a shard: what it is, and its bytes."""
        makers = [
            self._foreign,
            self._of_no_epoch,
            self._from_the_future,
            self._without_messages,
        ]
        peers = list(self._overheard.get(to, {}).values())
        if not peers or self.rng.random() < 0.2:
            return "bytes", self.rng.randbytes(self.rng.randrange(200))
        last = self.rng.choice(peers)
        kind = int(self.rng.choice(list(Kind)))
        said = replace(last, kind=kind, seq=last.seq + 1, count=1, checksum=0, body=b"")
        make = self.rng.choice(makers)
        packet = make(said)
        if packet.kind == Kind.FRAME:
            of = packet.src, packet.dst, packet.seq, packet.count, packet.body
            packet = replace(packet, checksum=wire.frame_checksum(*of))
        raw = wire.pack(packet)
        if self.rng.random() < 0.1:
            flipped = bytearray(raw)
            flipped[self.rng.randrange(len(raw))] ^= 1 << self.rng.randrange(8)
            return "a flipped bit", bytes(flipped)
        return make.__name__.strip("_").replace("_", " "), raw

    def _foreign(self, said: Packet) -> Packet:
        largest = self.rng.choice([0, 1, FAR, LARGEST])
        return replace(
            said,
            incarnation=self._token ^ (1 + self.rng.getrandbits(60)),
            src_epoch=self.rng.choice([said.src_epoch, said.src_epoch + 1, FAR]),
            dst_epoch=self.rng.choice([said.dst_epoch, said.dst_epoch + 1, FAR]),
            seq=self.rng.choice([said.seq, largest]),
            position=largest,
            ack=largest,
            credit=largest,
            cut=self.rng.choice([0, LARGEST]),
            pressed=True,
            body=self.rng.randbytes(16),
        )

    def _of_no_epoch(self, said: Packet) -> Packet:
        return replace(said, src_epoch=0, ack=FAR, credit=FAR)

    def _from_the_future(self, said: Packet) -> Packet:
        match self.rng.randrange(4):
            case 0:
                return replace(said, src_epoch=FAR)
            case 1:
                return replace(said, dst_epoch=FAR)
            case 2:
                return replace(said, kind=int(Kind.FENCED), seq=FAR)
            case _:
                return replace(said, cut=LARGEST)

    def _without_messages(self, said: Packet) -> Packet:
        """The next frame of a peer, but for what it holds."""
        run = Run(Call.SEND, "Nobody", 1, 1, ["a"], Raw(b"\x90"))
        body = self.rng.choice(
            [
                b"",
                self.rng.randbytes(20),
                _encode(7),
                _encode([[1]]),
                _encode([]),
                wire.encode_runs([replace(run, keys=["a", "b"])]),
                wire.encode_runs([replace(run, call=9)]),
                wire.encode_runs([replace(run, keys=["x" * 600])]),
                wire.encode_runs([replace(run, keys=[""])]),
                wire.encode_runs([replace(run, blobs=[])]),
                wire.encode_runs([replace(run, columns=Raw(_encode([[1, 2]])))]),
                wire.encode_runs([replace(run, columns=Raw(_encode({"a": 1})))]),
                wire.encode_runs([replace(run, call=Call.ASK)]),
                wire.encode_runs([replace(run, call=Call.OUTCOME, extras=[(b"id", "what", b"")])]),
                wire.encode_runs([replace(run, call=Call.OUTCOME, extras=[(b"", "failed", b"")])]),
                wire.encode_runs([replace(run, call=Call.EMIT, extras=[(1, 2, 3)])]),
            ]
        )
        return replace(said, kind=int(Kind.FRAME), body=body)
