"""The local ends of conversations: sockets of callers that came to us, or of ours at a real door.

Never blocks: what a socket does not take waits here, as much as the conversation's credit allows.
Does socket I/O and knows nothing of links. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

from skerry.runtime.link.talks import CHUNK_BYTES, Credit

BACKLOG = 512


class End:
    """The local end of one conversation."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket, self.credit = end, Credit()
        self._out: list[memoryview] = []
        self._closing = False

    @classmethod
    def at(cls, path: Path) -> End | None:
        """Connect to a door; None: nobody listens there, or nobody can be taken on just now."""
        end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        end.setblocking(False)
        try:
            end.connect(os.fsencode(path))
        except OSError:
            end.close()
            return None
        return cls(end)

    def fileno(self) -> int:
        """Return the descriptor to poll; -1 once closed."""
        return self._socket.fileno()

    @property
    def reads(self) -> bool:
        """Whether there is credit for what the caller may say."""
        return self.credit.left > 0 and not self._closing

    @property
    def waits(self) -> bool:
        """Whether something waits until the socket takes it."""
        return bool(self._out)

    def read(self) -> bytes | None:
        """Return what the caller has said; None: it has gone."""
        try:
            data = self._socket.recv(min(CHUNK_BYTES, self.credit.left))
        except BlockingIOError:
            return b""
        except OSError:
            return None
        return data or None

    def write(self, data: bytes) -> None:
        """Write soon."""
        self._out.append(memoryview(data))

    def go_on(self) -> int | None:
        """Write what waits; return how much was written, None: the caller has gone."""
        written = 0
        while self._out:
            try:
                sent = self._socket.send(self._out[0])
            except BlockingIOError:
                break
            except OSError:
                return None
            written += sent
            if sent < len(self._out[0]):
                self._out[0] = self._out[0][sent:]
                break
            del self._out[0]
        return None if self._closing and not self._out else written

    def finish(self) -> bool:
        """Say nothing any more; close once all is written. Tell whether it can be closed now."""
        self._closing = True
        return not self._out

    def close(self) -> None:
        """Close the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Door:
    """A door in the host's folder that stands for one on another host."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.setblocking(False)
        self._own = path.with_name(f"{path.name}+")
        self._own.unlink(missing_ok=True)
        self._socket.bind(os.fsencode(self._own))
        self._own.chmod(0o600)
        self._socket.listen(BACKLOG)
        put(self._own, path)

    def fileno(self) -> int:
        """Return the descriptor to poll."""
        return self._socket.fileno()

    def stay(self) -> None:
        """Take the place again, if somebody has removed it."""
        put(self._own, self.path)

    def accept(self) -> list[End]:
        """Return the callers that have come."""
        found: list[End] = []
        with contextlib.suppress(OSError):
            while True:
                found.append(End(self._socket.accept()[0]))
        return found

    def close(self) -> None:
        """Leave the place, unless somebody else has it."""
        withdraw(self._own, self.path)
        self._socket.close()
        self._own.unlink(missing_ok=True)


def put(own: Path, place: Path) -> None:
    """Let a socket be found at a place, too, in one step. The socket keeps a name of its own: whoever
    was at the place before may still remove what is there when it ends."""
    with contextlib.suppress(OSError):
        if place.exists() and own.samefile(place):
            return
        meanwhile = own.with_name(f"{own.name}.new")
        meanwhile.unlink(missing_ok=True)
        meanwhile.hardlink_to(own)
        meanwhile.replace(place)


def withdraw(own: Path, place: Path) -> None:
    """Let it not be found there any more, unless another one is there by now."""
    with contextlib.suppress(OSError):
        if own.samefile(place):
            place.unlink()
