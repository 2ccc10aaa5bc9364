"""The connections of a link to one other host, and the conversations on any connection.

    Line   two DEALERs to a peer: packets, and conversations
    Talk   the conversations of one connection, at either end

Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator
from functools import partial

import zmq

from skerry.runtime.core.wire import FRAME_BYTES_MAX
from skerry.runtime.link import wire
from skerry.runtime.link.detour import Detour
from skerry.runtime.link.doors import End
from skerry.runtime.link.table import Peer
from skerry.runtime.link.talks import Numbers
from skerry.runtime.link.wire import BEAT, COUNT, DATA, END, FRAME, OPEN, TAKEN, TALK
from skerry.runtime.transport.curve import Pair
from skerry.runtime.transport.pipe import QUEUED_MESSAGES, context

BEAT_S = 0.5
"""How often each connection is tried."""

SILENT_S = 3.0
"""After how long without an answer a connection counts as broken, and is made anew."""

_EVENT = struct.Struct("<H")
"""What a message of ZeroMQ's monitor begins with."""

DRAIN_MESSAGES = 256
"""Messages taken from one socket per round."""

Parts = list[bytes]


class Talk:
    """The conversations of one connection, at one of its ends.

    Args:
        send: sends a message to the other end, if it is there.
        key: the public key of the other end.
    """

    def __init__(self, send: Callable[[Parts], None], key: str) -> None:
        self._send, self.key, self._numbers = send, key, Numbers()
        self.ends: dict[bytes, End] = {}
        self.heard_s = time.monotonic()

    def say(self, kind: bytes, conversation: bytes, data: bytes) -> None:
        """Say something to the other end, if it is there."""
        self._send([TALK, self._numbers.next(), kind, conversation, data])

    def beat(self) -> None:
        """Tell the other end how much was said: nothing else would show that the last of it was lost."""
        self._send([BEAT, self._numbers.last])

    def heard(self, parts: Parts) -> bool:
        """Note that the other end is there; False: it makes no sense, or something was lost."""
        self.heard_s = time.monotonic()
        if parts[0] == TALK:
            return len(parts) == 5 and self._numbers.fits(parts[1])
        return parts[0] == BEAT and len(parts) == 2 and self._numbers.whole(parts[1])

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

    def __init__(self, peer: Peer, me: str, keys: Pair, detour: Detour | None) -> None:
        self.peer, self._me, self._keys, self._detour = peer, me, keys, detour
        self._around: zmq.Socket[bytes] | None = None
        """For packets by way of NATS, while the other end does not answer directly."""
        self._around_heard_s = 0.0
        self._connect_packets()
        self._connect_talk()
        self._beat_s = 0.0
        self.refused = False
        """Whether the other end has not let us in: it does not know our key."""
        self.heard_s = time.monotonic()
        """When the other end last answered directly, or the line was made."""

    def _connect(self, what: str, *, around: bool = False) -> zmq.Socket[bytes]:
        socket = context().socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTING_ID, f"{self._me} {what} {os.urandom(4).hex()}".encode())
        socket.setsockopt(zmq.SNDHWM, QUEUED_MESSAGES if what == "packets" else 0)
        socket.setsockopt(zmq.RCVHWM, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        socket.setsockopt(zmq.HANDSHAKE_IVL, 5000)
        self._keys.call(socket, self.peer.key)
        if around and self._detour is not None:
            socket.connect(self._detour.way(self.peer.key))
        else:
            socket.connect(f"tcp://{self.peer.address}")
        return socket

    def _connect_packets(self) -> None:
        self._packets = self._connect("packets")
        self._events = self._packets.get_monitor_socket(
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_AUTH
        )
        self._connected_s = time.monotonic()

    def _connect_talk(self) -> None:
        self._talking = self._connect("talk", around=self._around is not None)
        self.talk = Talk(partial(send, self._talking), self.peer.key)
        self._opened = 0

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """The sockets to poll."""
        around = [self._around] if self._around is not None else []
        return [self._packets, self._talking, *around]

    def packet(self, shard: bytes, raw: bytes) -> None:
        """Send a packet, or drop it."""
        send(self._around or self._packets, [FRAME, shard, raw])

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
        if self._around is not None:
            for parts in received(self._around):
                if parts[0] == BEAT:
                    self._around_heard_s = time.monotonic()
        for parts in received(self._talking):
            sense = self.talk.heard(parts) and (parts[0] == BEAT or self.talk.hear(*parts[2:]))
            if not sense:
                self._renew_talk()
                return

    def beat(self, now_s: float) -> None:
        """Try the connections; make what is broken anew."""
        if now_s < self._beat_s + BEAT_S:
            return
        self._beat_s = now_s
        for event in received(self._events):
            self.refused = _EVENT.unpack_from(event[0])[0] == zmq.EVENT_HANDSHAKE_FAILED_AUTH
        send(self._packets, [BEAT])
        if self._around is not None:
            send(self._around, [BEAT])
        self.talk.beat()
        # ZeroMQ gives up where it was refused: the other end may not have known us yet.
        if now_s > max(self.heard_s, self._connected_s) + SILENT_S:
            self._close_packets()
            self._connect_packets()
        if self._detour is not None and self.up == (self._around is not None):
            self._turn(self._detour)
        if now_s > self.talk.heard_s + SILENT_S:
            self._renew_talk()

    def _turn(self, detour: Detour) -> None:
        """Leave the direct way, or go back to it."""
        if self._around is None:
            self._around = self._connect("packets", around=True)
        else:
            self._around.close(0)
            self._around = None
            detour.forget(self.peer.key)
        self._renew_talk()

    @property
    def up(self) -> bool:
        """Whether the other end answers directly."""
        return time.monotonic() < self.heard_s + SILENT_S

    @property
    def detours(self) -> bool | None:
        """Whether what is said goes by way of NATS; None: it does not arrive at all."""
        if self._around is None:
            return False if self.up else None
        return True if time.monotonic() < self._around_heard_s + SILENT_S else None

    def _renew_talk(self) -> None:
        """End all conversations, and connect anew: something was lost."""
        self.talk.close()
        self._talking.close(0)
        self._connect_talk()

    def _close_packets(self) -> None:
        self._packets.disable_monitor()  # Which leaves its other end to the collector.
        self._events.close(0)
        self._packets.close(0)

    def close(self) -> None:
        """End all conversations, and let go of the other host."""
        self.talk.close()
        self._close_packets()
        for socket in self.sockets:
            socket.close(0)
        if self._detour is not None and self._around is not None:
            self._detour.forget(self.peer.key)


def send(socket: zmq.Socket[bytes], parts: Parts) -> None:
    """Send a message, if the queue is not full and the other end is there."""
    with contextlib.suppress(zmq.ZMQError):
        socket.send_multipart(parts, zmq.NOBLOCK)


def received(socket: zmq.Socket[bytes]) -> Iterator[Parts]:
    """Yield messages that have come."""
    with contextlib.suppress(zmq.Again):
        for _ in range(DRAIN_MESSAGES):
            yield socket.recv_multipart(zmq.NOBLOCK)
