"""A stranger on the simulated network: packets that no shard of the app sends.

Some are no packets, some belong to another incarnation, some claim what cannot be; some say all
that a peer's next frame would say, and hold no messages. Their checksums are right: whoever can
reach a pipe can compute them. What they must cause is a count, and nothing else.

Draws from a generator of its own, so that the seed's other faults are what they are without it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from skerry.runtime.core import wire
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.streams.inbound import Inbound
from skerry.runtime.core.wire import Call, Kind, Packet, Run

FAR = 10**9
LARGEST = 2**63 - 1

_encode = msgspec.msgpack.encode


class Stranger:
    """Makes packets up for a shard that runs."""

    def __init__(self, seed: int, incarnation: bytes) -> None:
        self.rng = random.Random(f"stranger {seed}")
        self._token = wire.token_of(incarnation)

    def packet(self, shard: Shard) -> tuple[str, bytes]:
        """(What it is, its bytes.)"""
        makers: list[Callable[[Packet, Inbound], Packet]] = [
            self._foreign,
            self._of_no_epoch,
            self._from_the_future,
            self._without_messages,
        ]
        peers = [peer for peer in shard.streams.inbound if peer != shard.me]
        if not peers or self.rng.random() < 0.2:
            return "bytes", self.rng.randbytes(self.rng.randrange(200))
        peer = self.rng.choice(peers)
        stream = shard.streams.inbound[peer]
        said = Packet(
            self.rng.choice(list(Kind)), peer, shard.me, stream.epoch, shard.epoch, 1,
            stream.received + 1, stream.received_position, 1, 0, incarnation=self._token,
        )  # fmt: skip
        make = self.rng.choice(makers)
        packet = make(said, stream)
        if packet.kind == Kind.FRAME:
            of = packet.src, packet.dst, packet.seq, packet.count, packet.body
            packet = replace(packet, checksum=wire.frame_checksum(*of))
        raw = wire.pack(packet)
        if self.rng.random() < 0.1:
            flipped = bytearray(raw)
            flipped[self.rng.randrange(len(raw))] ^= 1 << self.rng.randrange(8)
            return "a flipped bit", bytes(flipped)
        return make.__name__.strip("_").replace("_", " "), raw

    def _foreign(self, said: Packet, stream: Inbound) -> Packet:
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

    def _of_no_epoch(self, said: Packet, stream: Inbound) -> Packet:
        return replace(said, src_epoch=0, ack=FAR, credit=FAR)

    def _from_the_future(self, said: Packet, stream: Inbound) -> Packet:
        match self.rng.randrange(4):
            case 0:
                return replace(said, src_epoch=FAR)
            case 1:
                return replace(said, dst_epoch=FAR)
            case 2:
                return replace(said, kind=int(Kind.FENCED), seq=FAR)
            case _:
                return replace(said, cut=LARGEST)

    def _without_messages(self, said: Packet, stream: Inbound) -> Packet:
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
