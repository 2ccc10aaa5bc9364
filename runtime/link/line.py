"""The connections of a link to one other host, and the conversations on any connection.

    Line   two DEALERs to a peer: packets, and conversations
    Talk   the conversations of one connection, at either end

Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import zmq

from skerry.runtime.core.wire import FRAME_BYTES_MAX
from skerry.runtime.link import wire
from skerry.runtime.link.doors import End
from skerry.runtime.link.table import Peer
from skerry.runtime.link.talks import Numbers
from skerry.runtime.link.wire import BEAT, COUNT, DATA, END, FRAME, OPEN, TAKEN, TALK
from skerry.runtime.transport.pipe import QUEUED_MESSAGES, context

BEAT_S = 0.5
"""How often each connection is tried."""

SILENT_S = 3.0
"""After how long without an answer a connection counts as broken, and is made anew."""

DRAIN_MESSAGES = 256
"""Messages taken from one socket per round."""

Parts = list[bytes]


class Keys(NamedTuple):
    """A pair of keys, as Z85."""

    public: str
    private: str

    @classmethod
    def new(cls) -> Keys:
        """Draw a pair."""
        public, private = zmq.curve_keypair()
        return cls(public.decode(), private.decode())


class Talk:
    """The conversations of one connection, at one of its ends.

    Args:
        send: sends a message to the other end; False: it is not there.
    """

    def __init__(self, send: Callable[[Parts], bool]) -> None:
        self._send, self._numbers = send, Numbers()
        self.ends: dict[bytes, End] = {}
        self.heard_s = time.monotonic()

    def say(self, kind: bytes, conversation: bytes, data: bytes) -> bool:
        """Say something to the other end; False: it is not there."""
        return self._send([TALK, self._numbers.next(), kind, conversation, data])

    def fits(self, number: bytes) -> bool:
        """Whether a message with this number is the next one."""
        return self._numbers.fits(number)

    def hear(self, kind: bytes, conversation: bytes, data: bytes) -> bool:
        """Take in what the other end says of a conversation that is open; False: it makes no sense."""
        end = self.ends.get(conversation)
        if end is None:
            return True  # It has just ended here.
        if kind == DATA:
            if not end.credit.heard(len(data)):
                return False
            end.write(data)
            self.go_on(conversation)
        elif kind == TAKEN and len(data) == COUNT.size:
            end.credit.taken(COUNT.unpack(data)[0])
        elif kind == END:
            if end.finish():
                self._close(conversation)
        else:
            return False
        return True

    def go_on(self, conversation: bytes) -> None:
        """Write what waits for a caller."""
        end = self.ends[conversation]
        written = end.go_on()
        if written is None:
            self._end(conversation)
        elif told := end.credit.read(written):
            self.say(TAKEN, conversation, COUNT.pack(told))

    def read(self, conversation: bytes) -> None:
        """Carry on what a caller has said."""
        end = self.ends[conversation]
        data = end.read()
        if data is None:
            self._end(conversation)
        elif data:
            end.credit.sent(len(data))
            self.say(DATA, conversation, data)

    def _end(self, conversation: bytes) -> None:
        self._close(conversation)
        self.say(END, conversation, b"")

    def _close(self, conversation: bytes) -> None:
        self.ends.pop(conversation).close()

    def close(self) -> None:
        """End all conversations, without a word to the other end."""
        for conversation in list(self.ends):
            self._close(conversation)


class Line:
    """The connections to one other host, which this link has opened."""

    def __init__(self, peer: Peer, me: str, keys: Keys) -> None:
        self.peer, self._me, self._keys = peer, me, keys
        self._connect_packets()
        self._connect_talk()
        self._beats, self._beat_s = 0, 0.0
        self.heard_s = time.monotonic()
        """When the other end last answered, or the line was made."""

    def _connect(self, what: str) -> zmq.Socket[bytes]:
        socket = context().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTING_ID, f"{self._me} {what} {os.urandom(4).hex()}".encode())
        socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES if what == "packets" else 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.peer.key.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.private.encode())
        socket.connect(f"tcp://{self.peer.address}")
        return socket

    def _connect_packets(self) -> None:
        self._packets = self._connect("packets")
        self._connected_s = time.monotonic()

    def _connect_talk(self) -> None:
        self._talking = self._connect("talk")
        self.talk = Talk(self._say)
        self._opened = 0

    def _say(self, parts: Parts) -> bool:
        return sent(self._talking, parts)

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """The sockets to poll."""
        return [self._packets, self._talking]

    def packet(self, shard: bytes, raw: bytes) -> bool:
        """Send a packet; False: it is dropped."""
        return sent(self._packets, [FRAME, shard, raw])

    def open(self, shard: int, end: End) -> None:
        """Begin a conversation with a door at the other host."""
        self._opened += 1
        conversation = COUNT.pack(self._opened)
        self.talk.ends[conversation] = end
        self.talk.say(OPEN, conversation, wire.SHARD.pack(shard))

    def hear(self) -> None:
        """Take in what the other end has said."""
        for parts in received(self._packets):
            if parts[0] == BEAT:
                self.heard_s = time.monotonic()
        for parts in received(self._talking):
            self.talk.heard_s = time.monotonic()
            if parts[0] == BEAT:
                continue
            if parts[0] != TALK or not self._hear(parts):
                self._renew_talk()
                return

    def _hear(self, parts: Parts) -> bool:
        if len(parts) != 5 or not self.talk.fits(parts[1]):
            return False
        return self.talk.hear(*parts[2:])

    def beat(self, now_s: float) -> None:
        """Try the connections; make what is broken anew."""
        if now_s < self._beat_s + BEAT_S:
            return
        self._beat_s = now_s
        self._beats += 1
        for socket in self.sockets:
            sent(socket, [BEAT, COUNT.pack(self._beats)])
        # ZeroMQ gives up where it was refused: the other end may not have known us yet.
        if now_s > max(self.heard_s, self._connected_s) + SILENT_S:
            self._packets.close(0)
            self._connect_packets()
        if now_s > self.talk.heard_s + SILENT_S:
            self._renew_talk()

    @property
    def up(self) -> bool:
        """Whether the other end answers."""
        return time.monotonic() < self.heard_s + SILENT_S

    def _renew_talk(self) -> None:
        """End all conversations, and connect anew: something was lost."""
        self.talk.close()
        self._talking.close(0)
        self._connect_talk()

    def close(self) -> None:
        """End all conversations, and let go of the other host."""
        self.talk.close()
        for socket in self.sockets:
            socket.close(0)


def sent(socket: zmq.Socket[bytes], parts: Parts) -> bool:
    """Send a message, if the socket takes it now; tell whether it did."""
    try:
        socket.send_multipart(parts, zmq.NOBLOCK)
    except zmq.ZMQError:  # The queue is full, or the other end is not there.
        return False
    return True


def received(socket: zmq.Socket[bytes]) -> Iterator[Parts]:
    """Yield messages that have come."""
    with contextlib.suppress(zmq.Again):
        for _ in range(DRAIN_MESSAGES):
            yield socket.recv_multipart(zmq.NOBLOCK)
