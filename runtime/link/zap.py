"""Lets in only links and clients of the app: ZeroMQ's authentication, answered in the link's own loop.

A peer is let in by its public key. Without a handler, CURVE would let everybody in; so the handler
stands before anything is bound, and strangers are tried before the link serves: `canary.py`. ZeroMQ asks
once for each connection, and hands on the key with all that comes over it, as the user id: so what a
peer says that is not admitted any more can be told, too.

Source: ZeroMQ RFC 27, ZAP. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import zmq
from zmq.utils import z85

PLACE = "inproc://zeromq.zap.01"
DOMAIN = b"skerry"


class Gate:
    """Answers whom ZeroMQ asks about."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.socket = context.socket(zmq.REP)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(PLACE)
        self._keys: set[str] = set()
        self.refused = 0
        """How many were not let in."""

    def admit(self, keys: set[str]) -> None:
        """Let in those with these public keys, given as Z85, and nobody else."""
        self._keys = keys

    def admits(self, key: str) -> bool:
        """Whether the peer with this key may be here."""
        return key in self._keys

    def serve(self) -> None:
        """Answer all that has been asked."""
        while True:
            try:
                asked = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            version, request = asked[0], asked[1]
            key = z85.encode(asked[6]) if asked[5] == b"CURVE" else b""
            known = self.admits(key.decode())
            self.refused += not known
            code, text = (b"200", b"OK") if known else (b"400", b"not one of the app's")
            self.socket.send_multipart([version, request, code, text, key, b""])

    def close(self) -> None:
        """Answer nobody any more; another gate may stand here."""
        self.socket.unbind(PLACE)
        self.socket.close(0)
