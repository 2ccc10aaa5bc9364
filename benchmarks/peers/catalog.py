"""Who is measured: what is installed for each, what serves it, which work it is not given.

The order is that of the table; a peer's name is its file beside this one.
"""

from __future__ import annotations

import tomllib
from typing import NamedTuple

from benchmarks.peers.servers import POSTGRES, REDIS, RESTATE, ROOT, Server

WORKS = ("keyed_counter", "transfers", "word_count", "ask")

NO_FILES = "no source that reads files: a call a word is the keyed counter again"
NO_TRANSFERS = "a dataflow has no message from the state of one key to that of another"
NO_REPLIES = "a dataflow has no request and reply"


class Peer(NamedTuple):
    """Somebody to be measured."""

    name: str
    title: str
    pip: tuple[str, ...]
    """What is installed into an environment of its own; the versions that this was written for."""
    npm: tuple[str, ...] = ()
    """The same, from the other registry."""
    server: Server | None = None
    first_without_server: bool = False
    """Whether its first result comes without: it has a store of its own by default."""
    left_out: tuple[tuple[str, str], ...] = ()
    """Works that make no sense for it, and why."""


def own_needs() -> tuple[str, ...]:
    """What skerry itself is installed with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return tuple(project["dependencies"])


PEERS = (
    Peer("skerry", "skerry", own_needs()),
    Peer(
        *("restate", "Restate", ("restate-sdk[serde]==1.*", "hypercorn", "httpx")),
        npm=("@restatedev/restate-server@1.7",),
        server=RESTATE,
        left_out=(("word_count", NO_FILES),),
    ),
    Peer(
        *("dbos", "DBOS", ("dbos==3.*", "psycopg[binary]==3.*")),
        server=POSTGRES,
        first_without_server=True,
        left_out=(("word_count", NO_FILES),),
    ),
    Peer(
        *("postgres", "PostgreSQL by hand", ("psycopg[binary]==3.*",)),
        server=POSTGRES,
        left_out=(("word_count", NO_FILES),),
    ),
    Peer(
        *("redis", "Redis by hand", ("redis[hiredis]==8.*",)),
        server=REDIS,
        left_out=(("word_count", NO_FILES),),
    ),
    Peer(
        *("bytewax", "Bytewax", ("bytewax==0.21.*",)),
        left_out=(("transfers", NO_TRANSFERS), ("ask", NO_REPLIES)),
    ),
    Peer(
        *("pathway", "Pathway", ("pathway==0.*",)),
        left_out=(("transfers", NO_TRANSFERS), ("ask", NO_REPLIES)),
    ),
    Peer("ray", "Ray actors", ("ray==2.*",), left_out=(("word_count", NO_FILES),)),
    Peer("xoscar", "xoscar actors", ("xoscar==0.*",), left_out=(("word_count", NO_FILES),)),
)
