"""Conversations with doors, carried between two links over one connection.

    opener:  a caller at the local door -> OPEN ... DATA ... -> the other link -> the real door
             <- DATA, END

Each message of a connection has a number, and each beat tells the last one. When one is missing, all
conversations of that connection end on both sides, and callers ask again. A reader that does not read
holds at most `WINDOW_BYTES` of each direction: the sender waits for TAKEN before it reads on from its own
socket.

Pure bookkeeping of numbers and credit. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from skerry.runtime.link.wire import COUNT

WINDOW_BYTES = 1 << 20
"""What may be on its way in one direction of a conversation."""

CHUNK_BYTES = 1 << 16
"""How much is read from a caller at once."""

TELL_BYTES = WINDOW_BYTES // 4
"""After how much that was read the other side is told."""


class Numbers:
    """Numbers of the messages of one connection, in both directions."""

    def __init__(self) -> None:
        self._sent = self._heard = 0

    def next(self) -> bytes:
        """Return the number of a message that is sent now."""
        self._sent += 1
        return COUNT.pack(self._sent)

    def fits(self, raw: bytes) -> bool:
        """Whether a message with this number is the next one."""
        if len(raw) != COUNT.size or COUNT.unpack(raw)[0] != self._heard + 1:
            return False
        self._heard += 1
        return True

    @property
    def last(self) -> bytes:
        """The number of the message that was sent last."""
        return COUNT.pack(self._sent)

    def whole(self, last: bytes) -> bool:
        """Whether all has come that the other end has sent, when it says that this was the last."""
        return last == COUNT.pack(self._heard)


class Credit:
    """What may be sent in one direction, and what was read in the other."""

    def __init__(self) -> None:
        self.left = WINDOW_BYTES
        """What may be sent now."""
        self._read = 0
        self._owed = WINDOW_BYTES
        """What the other side may send now."""

    def sent(self, size: int) -> None:
        """Note what was sent."""
        self.left -= size
        assert self.left >= 0, "more was sent than the reader had room for"

    def taken(self, size: int) -> None:
        """Note that the other side has read so much."""
        self.left = min(WINDOW_BYTES, self.left + size)

    def heard(self, size: int) -> bool:
        """Note what has come; False: more than there was room for."""
        self._owed -= size
        return self._owed >= 0

    def read(self, size: int) -> int:
        """Note what our reader has read; return how much to tell the other side, or 0."""
        self._read += size
        if self._read < TELL_BYTES:
            return 0
        told, self._read = self._read, 0
        self._owed += told
        return told
