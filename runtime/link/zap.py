"""Lets in only links and clients of the app: ZeroMQ's authentication, answered in the link's own loop.

A peer is let in by its public key. Without a handler, CURVE would let everybody in; so the handler
stands before anything is bound, and strangers are tried before the link serves: `canary.py`.

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
        self._keys: set[bytes] = set()
        self.refused = 0
        """How many were not let in."""

    def admit(self, keys: set[str]) -> None:
        """Let in those with these public keys, given as Z85, and nobody else."""
        self._keys = {z85.decode(key.encode()) for key in keys if len(key) == 40}

    def serve(self) -> None:
        """Answer all that has been asked."""
        while True:
            try:
                asked = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            version, request = asked[0], asked[1]
            mechanism, key = asked[5], asked[6] if len(asked) > 6 else b""
            known = mechanism == b"CURVE" and key in self._keys
            self.refused += not known
            code, text = (b"200", b"OK") if known else (b"400", b"not one of the app's")
            self.socket.send_multipart([version, request, code, text, b"", b""])

    def close(self) -> None:
        """Answer nobody any more; another gate may stand here."""
        self.socket.unbind(PLACE)
        self.socket.close(0)
