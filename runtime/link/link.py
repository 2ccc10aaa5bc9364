"""Makes every shard of the app reachable in this host's folder, as if all ran here.

    pipe-7, door-7 in the folder -> this link -> ZeroMQ tcp, CURVE -> the link of shard 7's home -> its
    own pipe-7, door-7

So workers and clients connect to paths in a folder, on one host as on many. Packets may be lost on
the way: streams number, keep and resend them. What is said to doors is kept in order, and a
conversation ends at both sides when something of it was lost.

Each host binds one ROUTER; each other host connects to it with two DEALERs: one for packets, which
drops when its queue is full, and one for conversations, which are bounded by their credit. A client
binds nothing.

One loop and no thread of its own. Does network and file I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import zmq
from zmq.utils import z85

from skerry.runtime.cluster.engine import Engine
from skerry.runtime.core.wire import FRAME_BYTES_MAX
from skerry.runtime.gateway import places
from skerry.runtime.link import canary, wire
from skerry.runtime.link.detour import Detour
from skerry.runtime.link.doors import Door, End, put, withdraw
from skerry.runtime.link.line import BEAT_S, DRAIN_MESSAGES, SILENT_S, Line, Parts, Talk, send
from skerry.runtime.link.table import Peer, Reach, Table
from skerry.runtime.link.wire import BEAT, END, FRAME, OPEN, RESET
from skerry.runtime.link.zap import DOMAIN, Gate
from skerry.runtime.transport.curve import Pair
from skerry.runtime.transport.pipe import QUEUED_MESSAGES, Inlet, Outlets, context, place

GONE_MS = 15_000
"""After how long without an answer of ZeroMQ itself a connection to us is closed."""


def door(folder: Path, shard: int) -> Path:
    """Return where callers reach a shard, or the supervisor that leads."""
    return folder / places.LEADER if shard == wire.LEADER else places.listener(folder, shard)


class Standing:
    """What stands in the folder for a shard of another host."""

    def __init__(self, folder: Path, shard: int) -> None:
        self.shard, self._place = shard, place(folder, shard)
        self.raw = wire.SHARD.pack(shard)
        self.door = Door(door(folder, shard))
        self._own = self._place.with_name(f"{self._place.name}+")
        self.inlet = Inlet(self._own)
        put(self._own, self._place)

    def stay(self) -> None:
        """Take the places again, if somebody has removed them."""
        put(self._own, self._place)
        self.door.stay()

    def close(self) -> None:
        """Leave the places."""
        withdraw(self._own, self._place)
        self.inlet.close()
        self.door.close()


class Link:
    """The link of one host, or of a client.

    Args:
        me: the host's name; empty: a client's.
        folder: the sockets' folder.
        bind: IP:PORT to be reached at; empty: nowhere.
        admitted: public keys that are let in beside those of the peers.
    """

    def __init__(self, me: str, folder: Path, keys: Pair, *, bind: str, admitted: set[str]) -> None:
        self._me, self._folder, self._keys, self._admitted = me, folder, keys, admitted
        self._outlets = Outlets(folder)
        self._table = Table()
        self._lines: dict[str, Line] = {}
        """By nonce."""
        self._standing: dict[int, Standing] = {}
        self._remote: dict[int, Peer] = {}
        self._leader: Door | None = None
        self._talks: dict[bytes, Talk] = {}
        """Those that others have opened, by the identity of their connection."""
        self._stay_s = 0.0
        self._detour: Detour | None = None
        self._router: zmq.Socket[bytes] | None = None
        self.address = ""
        if bind:
            self._gate = Gate(context())
            self._gate.admit(admitted)
            self._bind(bind)

    def _bind(self, bind: str) -> None:
        socket = self._router = context().socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
        socket.setsockopt(zmq.SNDHWM, 0)
        socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        socket.setsockopt(
            zmq.HEARTBEAT_IVL, GONE_MS // 3
        )  # Else one that has lost power stays for ever.
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, GONE_MS)
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.private.encode())
        socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        socket.bind(f"tcp://{bind}")
        self.address = socket.getsockopt_string(zmq.LAST_ENDPOINT).removeprefix("tcp://")

    def check(self) -> None:
        """Try whether strangers are let in. Raises SkerryError: they are."""
        assert self._router is not None, "it can be reached"
        canary.check(self._router, self.address, self._gate, self._keys.public)

    def go_around(self, engine: Engine, app: str) -> None:
        """Use NATS as the way to and from hosts that do not answer directly."""
        self._detour = Detour(
            engine,
            app,
            self._folder,
            key=self._keys.public if self.address else "",
            serves=self.address,
        )

    # ── the table ──

    def route(self, table: Table) -> None:
        """Take in where everything is now."""
        self._table = table
        peers = {peer.nonce: peer for peer in table.peers if peer.host != self._me}
        for nonce in [n for n, line in self._lines.items() if peers.get(n) != line.peer]:
            self._lines.pop(nonce).close()
        if self._router is not None:
            self._gate.admit({*self._admitted, *(peer.key for peer in peers.values())})
            gone = [who for who, talk in self._talks.items() if not self._gate.admits(talk.key)]
            for identity in gone:
                self._talks.pop(identity).close()
        for nonce, peer in peers.items():
            if nonce not in self._lines and peer.address and len(z85.decode(peer.key)) == 32:
                self._lines[nonce] = Line(peer, self._me, self._keys, self._detour)
        self._remote = table.remote(self._me)
        for shard in self._standing.keys() - self._remote.keys():
            self._standing.pop(shard).close()
        for shard in self._remote.keys() - self._standing.keys():
            self._standing[shard] = Standing(self._folder, shard)
        if (table.lead(self._me) is None) == (self._leader is not None):
            if self._leader is not None:
                self._leader.close()
                self._leader = None
            else:
                self._leader = Door(door(self._folder, wire.LEADER))

    def _line(self, shard: int) -> Line | None:
        """Return the line to where a shard is; None: nobody knows where that is."""
        peer = self._table.lead(self._me) if shard == wire.LEADER else self._remote.get(shard)
        return self._lines.get(peer.nonce) if peer is not None else None

    @property
    def reach(self) -> Reach:
        """The hosts that do not answer directly."""
        found = {line.peer.host: line.detours for line in self._lines.values()}
        return Reach(
            detours=sorted(host for host, detours in found.items() if detours),
            silent=sorted(host for host, detours in found.items() if detours is None),
            refusing=sorted(
                line.peer.host for line in self._lines.values() if line.refused and not line.up
            ),
        )

    # ── rounds ──

    def round(self, also: int, timeout_s: float) -> None:
        """Wait until something comes, also on descriptor `also`, and carry it on."""
        poller = zmq.Poller()
        poller.register(also, zmq.POLLIN)
        if self._router is not None:
            poller.register(self._gate.socket, zmq.POLLIN)
            poller.register(self._router, zmq.POLLIN)
        for line in self._lines.values():
            for socket in line.sockets:
                poller.register(socket, zmq.POLLIN)
        for standing in self._standing.values():
            poller.register(standing.inlet.socket, zmq.POLLIN)
            poller.register(standing.door.fileno(), zmq.POLLIN)
        if self._leader is not None:
            poller.register(self._leader.fileno(), zmq.POLLIN)
        for _, _, end in self._ends():
            if wanted := (zmq.POLLIN * end.reads) | (zmq.POLLOUT * end.waits):
                poller.register(end.fileno(), wanted)
        ready = {found for found, _ in poller.poll(int(timeout_s * 1000))}
        # A client that is refused is not told so again and again.
        if self._router is not None:
            self._gate.serve()
            self._serve(self._router)
        for line in list(self._lines.values()):
            line.hear()
        self._carry(ready)
        now_s = time.monotonic()
        for line in self._lines.values():
            line.beat(now_s)
        if now_s > self._stay_s:
            self._stay(now_s)

    def _ends(self) -> Iterator[tuple[Talk, bytes, End]]:
        for talk in [*self._talks.values(), *(line.talk for line in self._lines.values())]:
            for conversation, end in list(talk.ends.items()):
                yield talk, conversation, end

    def _carry(self, ready: set[object]) -> None:
        """Carry on what has come from this host's own sockets."""
        for standing in self._standing.values():
            line = self._line(standing.shard)
            if standing.inlet.socket in ready:
                for raw in standing.inlet.receive():
                    if line is not None:
                        line.packet(standing.raw, raw)
            if standing.door.fileno() in ready:
                self._welcome(standing.door, standing.shard)
        if self._leader is not None and self._leader.fileno() in ready:
            self._welcome(self._leader, wire.LEADER)
        for talk, conversation, end in self._ends():
            if end.fileno() not in ready:
                continue
            if end.waits:
                talk.go_on(conversation)
            if conversation in talk.ends and end.reads:
                talk.read(conversation)

    def _welcome(self, door: Door, shard: int) -> None:
        line = self._line(shard)
        for end in door.accept():
            if line is None:
                end.close()
            else:
                line.open(shard, end)

    def _serve(self, router: zmq.Socket[bytes]) -> None:
        """Take in what the links of others say."""
        for identity, key, parts in self._said(router):
            if parts[0] == FRAME and len(parts) == 3 and len(parts[1]) == wire.SHARD.size:
                shard = wire.SHARD.unpack(parts[1])[0]
                if self._table.homes.get(shard) == self._me:
                    self._outlets.send(shard, parts[2])
            elif parts == [BEAT]:
                send(router, [identity, BEAT])
            elif not self._talked(router, identity, key, parts):
                if identity in self._talks:
                    self._talks.pop(identity).close()
                send(router, [identity, RESET])

    def _said(self, router: zmq.Socket[bytes]) -> Iterator[tuple[bytes, str, Parts]]:
        """Yield what links and clients have said that are admitted now, with their keys."""
        with contextlib.suppress(zmq.Again):
            for _ in range(DRAIN_MESSAGES):
                identity = router.recv(zmq.NOBLOCK, copy=False)
                parts = router.recv_multipart() if identity.more else []
                key = str(identity.get("User-Id"))
                if parts and self._gate.admits(key):
                    yield identity.bytes, key, parts

    def _talked(self, router: zmq.Socket[bytes], identity: bytes, key: str, parts: Parts) -> bool:
        """Take in a part of a conversation; False: it makes no sense, or something was lost."""
        talk = self._talks.get(identity)
        if talk is None:
            talk = Talk(lambda parts: send(router, [identity, *parts]), key)
        if not talk.heard(parts):
            return False
        if parts[0] == BEAT:
            talk.beat()
            return True
        self._talks[identity] = talk
        _, _, kind, conversation, data = parts
        if kind != OPEN:
            return talk.hear(kind, conversation, data)
        if len(data) != wire.SHARD.size:
            return False
        shard = wire.SHARD.unpack(data)[0]
        end = self._door(shard)
        if end is None:
            talk.say(END, conversation, b"")
        else:
            talk.ends[conversation] = end
        return True

    def _door(self, shard: int) -> End | None:
        """Connect to a door of this host; None: it is not here, or does not open."""
        if shard == wire.LEADER:
            return End.at(self._folder / places.CONTROL)
        if self._table.homes.get(shard) != self._me:
            return None  # To carry it on might send it round in circles.
        return End.at(door(self._folder, shard))

    def _stay(self, now_s: float) -> None:
        """See to it that the places in the folder are ours, and that nobody has gone without a word."""
        self._stay_s = now_s + BEAT_S
        for standing in self._standing.values():
            standing.stay()
        if self._leader is not None:
            self._leader.stay()
        for identity, talk in list(self._talks.items()):
            if now_s > talk.heard_s + 2 * SILENT_S:
                self._talks.pop(identity).close()

    def close(self) -> None:
        """End all conversations, and leave the folder."""
        for line in self._lines.values():
            line.close()
        for talk in self._talks.values():
            talk.close()
        for standing in self._standing.values():
            standing.close()
        if self._leader is not None:
            self._leader.close()
        if self._detour is not None:
            self._detour.close()
        if self._router is not None:
            self._router.close(0)
            self._gate.close()
        self._outlets.close()
