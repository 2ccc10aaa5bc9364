"""Keys by which ZeroMQ encrypts a connection and its ends know each other: CURVE.

Source: ZeroMQ RFC 26, CurveZMQ.
"""

from __future__ import annotations

from typing import NamedTuple

import zmq


class Pair(NamedTuple):
    """A pair of keys, as Z85."""

    public: str
    private: str

    @classmethod
    def new(cls) -> Pair:
        """Draw a pair."""
        public, private = zmq.curve_keypair()
        return cls(public.decode(), private.decode())

    def call(self, socket: zmq.Socket[bytes], server: str) -> None:
        """Have a socket speak, once it connects, with whoever has the other half of `server`."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.private.encode())
