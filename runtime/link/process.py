"""A link's process: told on its standard input where everything is, until that ends.

    assignment line -> Ready line -> table lines ...         <- which hosts do not answer, when that changes

Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

import zmq

from skerry.errors import SkerryError
from skerry.runtime import as_json, forks
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.gateway.listener import raise_limit
from skerry.runtime.link.line import BEAT_S
from skerry.runtime.link.lines import Lines
from skerry.runtime.link.link import Link
from skerry.runtime.link.table import Assignment, Reach, Ready, Table
from skerry.runtime.printable import say
from skerry.runtime.transport.curve import Pair
from skerry.runtime.transport.pipe import context

HOPELESS = 5
"""Exit code of a link that must not be reached."""

SOCKETS_MAX = 16384
"""ZeroMQ sockets: two for each other host, two for each shard."""


def main() -> int:
    """Carry until the supervisor is gone; return the exit code."""
    forks.ignore_signals()
    context().set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    raise_limit()
    told = sys.stdin.buffer
    assignment = as_json.decode(told.readline(), Assignment)
    keys = Pair.new()
    try:
        link = Link(
            assignment.host,
            Path(assignment.sockets),
            keys,
            bind=assignment.bind,
            admitted={assignment.clients_key},
        )
        link.check()
        if assignment.servers:
            name = f"skerry link of {assignment.host}"
            link.go_around(Engine(assignment.servers, name=name), assignment.app)
    except SkerryError as error:
        say(str(error))
        return HOPELESS
    _say(as_json.encode(Ready(link.address, keys.public)))
    lines, reach = Lines(told.fileno()), Reach()
    while True:
        link.round(told.fileno(), BEAT_S)
        if lines.ended:
            return 0
        for line in lines.read():
            link.route(as_json.decode(line, Table))
        if link.reach != reach:
            reach = link.reach
            _say(as_json.encode(reach))


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())
