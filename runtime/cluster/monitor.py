"""What a NATS server tells about itself on its monitoring port: an HTTP request, a JSON answer.

    asked(port) -> Health               of a server on this machine; None when it doesn't answer
    lapse_s(host, port) -> seconds      between two syncs of a server on any

Does network I/O, and knows nothing of processes.
"""

from __future__ import annotations

import http.client
from typing import TypeVar

import msgspec
from msgspec import Struct

from skerry.runtime.cluster.addresses import LOOPBACK, MONITOR

ANSWER_S = 1.0
"""How long a server may take: one that is frozen is connected to, and never answers."""

T = TypeVar("T")


class _Group(Struct, frozen=True):
    leader: str = ""


class _Stream(Struct, frozen=True):
    name: str
    cluster: _Group | None = None


class _Account(Struct, frozen=True):
    stream_detail: list[_Stream] = []


class _Jetstream(Struct, frozen=True):
    bytes: int = 0
    meta_cluster: _Group | None = None
    account_details: list[_Account] = []
    disabled: bool = False


class _Config(Struct, frozen=True):
    sync_always: bool = False
    sync_interval: int = 0
    """ns; it stands there, too, when each write is synced."""


class _Kept(Struct, frozen=True):
    config: _Config | None = None
    """None: the server has no JetStream."""


class _Server(Struct, frozen=True):
    port: int = 0
    """For clients."""
    jetstream: _Kept | None = None


class Health(Struct, frozen=True):
    """What a server says of itself."""

    leader: str
    """The server that leads JetStream; empty: this one knows of none."""
    jetstream: bool
    """Whether it keeps streams: one whose disk was full has given that up."""
    bytes: int
    leaders: dict[str, str]
    """For each stream that it keeps, the server that leads it; empty: it knows of none."""


def asked(port: int) -> Health | None:
    """Ask a server how it does. None: it doesn't answer."""
    told = _get(LOOPBACK, port, "/jsz?streams=1", _Jetstream)
    if told is None:
        return None
    leaders = {
        stream.name: stream.cluster.leader if stream.cluster else ""
        for account in told.account_details
        for stream in account.stream_detail
    }
    leader = told.meta_cluster.leader if told.meta_cluster else ""
    return Health(leader, not told.disabled, told.bytes, leaders)


def lapse_s(host: str, port: int) -> float | None:
    """Return how much time a server may let pass until what it has acknowledged is on its disk; 0.0: none.

    Args:
        port: for clients. Its monitoring port is looked for where it is by default, and where
            `skerry cluster up` has it.

    None: no such server tells it there.
    """
    told = _get(host, port + MONITOR, "/varz", _Server)
    if told is None or told.port != port or told.jetstream is None:
        return None  # Nobody, or another server.
    config = told.jetstream.config
    if config is None:
        return None
    return 0.0 if config.sync_always else config.sync_interval / 1e9


def _get(host: str, port: int, path: str, type: type[T]) -> T | None:
    line = http.client.HTTPConnection(host, port, timeout=ANSWER_S)
    try:
        line.request("GET", path)
        return msgspec.json.decode(line.getresponse().read(), type=type)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError):
        return None
    finally:
        line.close()
