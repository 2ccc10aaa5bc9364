"""ZeroMQ as a mere pipe between shards: bytes in, maybe bytes out.

    Outlets.send(peer, raw) -> the socket at the peer's place -> Inlet.receive() -> raw

Nothing here promises delivery: ZeroMQ loses what it had taken for a peer that is killed, and a full
queue drops. Streams number, keep and resend everything. A message is one part, or refused.

All peers push into one PULL socket, from one PUSH socket per peer. A connection may outlive its
peer, if a process that the peer's handlers have forked holds it: so the pipe looks now and then
whether the socket at a peer's place is still the one that it leads to. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import zmq

from skerry.runtime.core.wire import FRAME_BYTES_MAX

QUEUED_MESSAGES = 1000
"""Packets that ZeroMQ may hold per peer; credit bounds their bytes."""

LOOK_S = 1.0
"""How often the pipe looks whether a peer has bound anew, while there is something to send."""

LINGER_MS = 1000

DRAIN_MESSAGES = 256
"""Packets received per round: the rest waits for the next, so that peers do not starve clients."""


def context() -> zmq.Context[zmq.Socket[bytes]]:
    """Return the process's context."""
    return zmq.Context.instance()


def address(place: Path) -> Any:
    """Return the address of a socket: as bytes, which pyzmq takes and does not type, since not every
    path is a text."""
    return b"ipc://" + os.fsencode(place)


def place(folder: Path, shard: int) -> Path:
    """Return the socket of a shard's inlet."""
    return folder / f"pipe-{shard}"


class Outlets:
    """Packets to shards whose inlets are in one private folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._peers: dict[int, zmq.Socket[bytes]] = {}
        self._places: dict[int, tuple[int, int] | None] = {}
        """The identity of the file at each peer's address, as of the last look."""
        self._look_s = 0.0

    def send(self, peer: int, raw: bytes) -> bool:
        """Send a packet; False: ZeroMQ did not take it, and the stream sends it again in time."""
        if time.monotonic() > self._look_s:
            self._look()
        socket = self._peers.get(peer)
        if socket is None:
            self._places[peer] = self._place(peer)
            socket = self._peers[peer] = context().socket(zmq.PUSH)
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES)
            socket.setsockopt(zmq.RECONNECT_IVL, 10)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
            socket.connect(address(place(self._folder, peer)))
        try:
            socket.send(raw, zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _look(self) -> None:
        """Connect anew to peers that have bound anew. Usually ZeroMQ has done so by itself; then what
        it holds still arrives."""
        self._look_s = time.monotonic() + LOOK_S
        for peer, before in list(self._places.items()):
            found = self._place(peer)
            if found is None or found == before:
                continue
            self._places[peer] = found
            if before is not None:  # The next packet for it connects, and looks anew.
                del self._places[peer]
                self._peers.pop(peer).close(LINGER_MS)

    def _place(self, peer: int) -> tuple[int, int] | None:
        try:
            found = place(self._folder, peer).stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns

    def close(self) -> None:
        """Close the sockets."""
        for socket in self._peers.values():
            socket.close(0)


class Inlet:
    """Packets that come to one place."""

    def __init__(self, place: Path) -> None:
        self.socket = context().socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.RCVHWM, QUEUED_MESSAGES)
        self.socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        self.socket.bind(address(place))
        self.refused = 0

    def receive(self) -> list[bytes]:
        """Return packets that have arrived."""
        found: list[bytes] = []
        while len(found) < DRAIN_MESSAGES:
            try:
                parts = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            if len(parts) == 1:
                found.append(parts[0])
            else:
                self.refused += 1
        return found

    def close(self) -> None:
        """Close the socket."""
        self.socket.close(0)


class Pipe:
    """A shard's packets to and from its peers, over sockets in one private folder."""

    def __init__(self, folder: Path, me: int) -> None:
        self._inlet, self._outlets = Inlet(place(folder, me)), Outlets(folder)
        self.socket = self._inlet.socket
        self.send, self.receive = self._outlets.send, self._inlet.receive

    @property
    def refused(self) -> int:
        """How many packets of more than one part have come."""
        return self._inlet.refused

    def close(self) -> None:
        """Close the sockets."""
        self._inlet.close()
        self._outlets.close()
