"""Proof of who is at the other end of a line: both ends know the app's secret.

    caller: a fresh number, its proof ->          (after a look at whose process listens there)
                                      <- listener: its proof for that number

The secret is drawn at each start of an app and stands in its data directory, where no other user
can read it; it is never sent. A process that takes a listener's place does not learn the secret, and
is told nothing, since a caller speaks only after the proof. Once per line, never per message.
Idea: docs/ideas/clients.md.

Source: Krawczyk, Bellare and Canetti, "HMAC: keyed-hashing for message authentication", RFC 2104;
BLAKE2 has keys of its own, RFC 7693.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import socket
import struct

DRAWN_BYTES = 16
_MARK = b"skerry 1"
_PEER = struct.Struct("3i")


def new_secret() -> str:
    """Draw a secret of 256 bits, for one run of an app."""
    return os.urandom(32).hex()


def drawn() -> bytes:
    """Draw a number that no line had before."""
    return os.urandom(DRAWN_BYTES)


def knock(secret: str, number: bytes) -> bytes:
    """Return a caller's first message."""
    return _MARK + number + _proof(secret, b"caller", number)


def answer(secret: str, said: bytes) -> bytes | None:
    """Return a listener's answer to a knock; None: the caller does not know the secret."""
    number = said[len(_MARK) : len(_MARK) + DRAWN_BYTES]
    if not hmac.compare_digest(said, knock(secret, number)):
        return None
    return _MARK + _proof(secret, b"listener", number)


def is_answer(secret: str, number: bytes, said: bytes) -> bool:
    """Tell whether `said` is the listener's answer to this number."""
    return hmac.compare_digest(said, _MARK + _proof(secret, b"listener", number))


def _proof(secret: str, whose: bytes, number: bytes) -> bytes:
    return hashlib.blake2b(whose + number, key=bytes.fromhex(secret), digest_size=32).digest()


def user_of(end: socket.socket) -> int:
    """Return the user whose process listened at the other end, by the kernel's word."""
    return int(_PEER.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))[1])
