"""Messages over a stream socket, each sent and received whole, without ever blocking.

    | length 4, little endian | message | length | message ...

Callers and workers on one machine speak without a library. A kernel socket wakes its reader once
per message. A library's queue with threads of its own hands a message over twice at each end, which
took 0.1 ms of an answer, and as much processor time. And no other buffer holds messages under way:
bytes that the other end does not read are counted here, and bounded by the channel's owner.

While a channel holds, it keeps the order and loses nothing. When it breaks, it is unknown what
arrived. Knows nothing of what the messages say.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

from skerry.runtime.gateway import knock

READ_BYTES = 1 << 18
"""How much is read at once: more than a kernel socket holds."""

_HEAD = struct.Struct("<I")


class Broken(Exception):
    """The other end is gone, or what it sent can't be a message; the text says which."""


class Channel:
    """One end of a connection. `message_bytes_max` bounds what the other end may send."""

    def __init__(self, end: socket.socket, *, message_bytes_max: int) -> None:
        end.setblocking(False)
        self._socket, self._message_bytes_max = end, message_bytes_max
        self._in = bytearray()
        self._needs = _HEAD.size
        """How long `_in` must be before there is a message in it."""
        self._out: list[memoryview] = []
        self.unsent = 0
        """Bytes that wait until the other end has read."""

    @classmethod
    def to(cls, path: str, *, message_bytes_max: int) -> Channel | None:
        """Connect to a path. None: nobody listens there, its queue is full, or no file can be opened
        just now."""
        try:
            end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        except OSError:
            return None
        end.setblocking(False)
        try:
            end.connect(path)
        except OSError:
            end.close()
            return None
        return cls(end, message_bytes_max=message_bytes_max)

    def fileno(self) -> int:
        """Return the descriptor to poll; -1 once closed."""
        return self._socket.fileno()

    @property
    def user(self) -> int:
        """The user whose process listened at the other end."""
        return knock.user_of(self._socket)

    @property
    def unread(self) -> int:
        """Bytes of a message that is incomplete."""
        return len(self._in)

    @property
    def behind(self) -> int:
        """Bytes that wait behind the message that is being sent."""
        return self.unsent - len(self._out[0]) if self._out else 0

    def hear(self) -> list[bytes]:
        """Return the messages that have come since, in order. Raises Broken."""
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Broken(str(error)) from error
        if not data:
            raise Broken("the other end is gone")
        if self._in:
            self._in += data
            if len(self._in) < self._needs:
                return []
            data = bytes(self._in)
            self._in.clear()
        return self._cut(data)

    def _cut(self, data: bytes) -> list[bytes]:
        found, at, end = [], 0, len(data)
        while end - at >= _HEAD.size:
            size = _HEAD.unpack_from(data, at)[0]
            if size > self._message_bytes_max:
                raise Broken(f"a message of {size:,} bytes, more than {self._message_bytes_max:,}")
            if end - at < _HEAD.size + size:
                break
            at += _HEAD.size
            found.append(data[at : at + size])
            at += size
        if at < end:
            self._in += data[at:]
            whole = _HEAD.unpack_from(data, at)[0] if end - at >= _HEAD.size else 0
            self._needs = _HEAD.size + whole
        return found

    def say(self, message: bytes) -> None:
        """Send a message; what the socket does not take now waits for `go_on`. Raises Broken."""
        framed = memoryview(_HEAD.pack(len(message)) + message)
        if self._out:
            self._out.append(framed)
            self.unsent += len(framed)
            return
        sent = self._send(framed)
        if sent < len(framed):
            self._out.append(framed[sent:])
            self.unsent = len(framed) - sent

    def go_on(self) -> None:
        """Send what waits, as much as the socket takes. Raises Broken."""
        while self._out:
            sent = self._send(self._out[0])
            self.unsent -= sent
            if sent < len(self._out[0]):
                self._out[0] = self._out[0][sent:]
                return
            del self._out[0]

    def _send(self, data: memoryview) -> int:
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise Broken(str(error)) from error

    def close(self) -> None:
        """Close the connection, even if a forked process holds the socket, too. The other end still
        reads what was sent."""
        with contextlib.suppress(OSError):  # The other end was faster.
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


def listener(path: str) -> tuple[int, int] | None:
    """Identify the listener at a path; another one has another identity. None: there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns
