"""Where the NATS servers on this machine listen: three ports of loopback for each.

    --port 4222    n1: 4222 for clients, 6222 for other nodes, 8222 to be asked how it does
                   n2: 4223, 6223, 8223

Opens sockets only to see whether a port is free. Idea: docs/how-to/hosts.md.
"""

from __future__ import annotations

import socket

from msgspec import Struct

from skerry.errors import SkerryError

LOOPBACK = "127.0.0.1"

FIRST = 4222
"""What NATS itself takes, as are the distances to the other two."""
ROUTES, MONITOR = 2000, 4000

PORT_MAX = 65535 - MONITOR
"""The highest port for clients."""


class Ports(Struct, frozen=True):
    """Where a node listens."""

    clients: int
    routes: int
    """For the other nodes."""
    monitor: int
    """Tells how the node does, by HTTP."""


def in_a_row(first: int, count: int) -> list[Ports]:
    """Return the ports of a cluster's nodes."""
    return [Ports(port, port + ROUTES, port + MONITOR) for port in range(first, first + count)]


def must_be_free(name: str, ports: Ports) -> None:
    """Raise SkerryError: a node of that name can't listen on one of these ports."""
    for port in (ports.clients, ports.routes, ports.monitor):
        with socket.socket() as end:
            # As the server does: connections that have just ended are in nobody's way.
            end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                end.bind((LOOPBACK, port))
            except OSError as error:
                raise SkerryError(
                    f"{name} can't listen on port {port} of {LOOPBACK}: {error.strerror}"
                    f"{_listener(port)}. Choose other ports with --port, as in --port 14222."
                ) from error


def _listener(port: int) -> str:
    """Return which process listens on a port, in words; empty: the system doesn't say."""
    import psutil  # Only for these words: `skerry --help` loads this module.

    try:
        for line in psutil.net_connections("tcp"):
            at = getattr(line.laddr, "port", None)
            if line.status == psutil.CONN_LISTEN and at == port and line.pid:
                return f", by process {line.pid} ({' '.join(psutil.Process(line.pid).cmdline())})"
    except psutil.Error:
        pass
    return ""
