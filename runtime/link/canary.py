"""Tries whether strangers are let in, before a link serves.

A peer without CURVE, and one with keys that nobody knows, each say something. Nothing of it may
arrive. If it did, whatever guards the link does not work here, and the host must not be reached.

Source: the design of the handler in `zap.py`. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import time

import zmq

from skerry.errors import SkerryError
from skerry.runtime.link.zap import Gate
from skerry.runtime.transport.curve import Pair
from skerry.runtime.transport.pipe import context

TRY_S = 0.3
"""How long a stranger has. On this machine a friend is in after a few milliseconds."""


def check(router: zmq.Socket[bytes], address: str, gate: Gate, public: str) -> None:
    """Raises SkerryError: a stranger is let in."""
    strangers = [_stranger(address, None), _stranger(address, public)]
    before = gate.refused
    try:
        end_s = time.monotonic() + TRY_S
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(gate.socket, zmq.POLLIN)
        while (left_s := end_s - time.monotonic()) > 0:
            ready = dict(poller.poll(int(left_s * 1000)))
            if gate.socket in ready:
                gate.serve()
            if router in ready:
                raise SkerryError(
                    f"The link at {address} lets strangers in: ZeroMQ {zmq.zmq_version()} of this "
                    f"machine was built without CURVE, or does not ask who they are. Install pyzmq "
                    f"from PyPI."
                )
        if gate.refused == before:
            raise SkerryError(
                f"The link at {address} was not asked whether a stranger may come in. Install pyzmq "
                f"from PyPI."
            )
    finally:
        for stranger in strangers:
            stranger.close(0)


def _stranger(address: str, server: str | None) -> zmq.Socket[bytes]:
    socket = context().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    if server is not None:
        Pair.new().call(socket, server)
    socket.connect(f"tcp://{address}")
    socket.send(b"let me in", zmq.NOBLOCK)
    return socket
