"""The link of this host, as a process beside the workers: started, told where everything is, heard.

    bind -> Ready -> our address and key for the lease -> tables, whenever hosts or homes change

If the process ends it is started again. Nothing is lost by that: streams send again what they carry,
and callers ask again.

Does process I/O; the link itself is in `runtime/link`. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec import structs

from skerry.errors import SkerryError
from skerry.runtime import as_json
from skerry.runtime.app import children
from skerry.runtime.config import Cluster
from skerry.runtime.description import Description
from skerry.runtime.link.lines import Lines
from skerry.runtime.link.table import Assignment, Reach, Ready, Table, peers_of
from skerry.runtime.printable import Say

if TYPE_CHECKING:
    from skerry.runtime.cluster.coordinator import ClusterCoordinator

AGAIN_S = 1.0
"""How long to wait before a link is started again that has ended."""


class Linking:
    """The link's process."""

    def __init__(
        self, cluster: Cluster, coordinator: ClusterCoordinator, app: str, folder: Path, say: Say
    ) -> None:
        self._cluster, self._coordinator, self._say = cluster, coordinator, say
        self._app = app
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._table = Table()
        self._again_s = 0.0
        self._reach = Reach()
        self._far: set[str] = set()
        """Hosts whose clocks are far from ours."""
        self._start()

    def _start(self) -> None:
        """Start the process; tell other hosts where it is. Raises SkerryError: it can't be reached."""
        bind = _bind(self._cluster)
        told = Assignment(
            host=self._coordinator.host,
            sockets=os.fsencode(self._folder).decode(errors="surrogateescape"),
            bind=bind,
            clients_key=self._coordinator.keys.public,
            app=self._app,
            servers=self._cluster.servers,
        )
        process = children.start("skerry.runtime.link.process", as_json.encode(told) + b"\n")
        assert process.stdout is not None, "its output is a pipe"
        line = process.stdout.readline()
        try:
            ready = as_json.decode(line, Ready)
        except ValueError:
            more, _ = process.communicate()
            why = (line + more).decode(errors="replace").strip()
            raise SkerryError(
                f"The link of this host to others does not start at {bind}: {why[-400:]} Give an "
                f"address of this machine with --address."
            ) from None
        self._process, self._table = process, Table()
        self._lines = Lines(process.stdout.fileno())
        self._coordinator.tell(address=ready.address, key=ready.key)

    def step(self, app: Description, leader: str) -> None:
        """Tell the link what has changed; start it again if it has ended. Raises SkerryError."""
        process = self._process
        if process is None or process.poll() is not None:
            if time.monotonic() > self._again_s:
                self._again_s = time.monotonic() + AGAIN_S
                self._say("the link to other hosts has ended and is started again")
                self.close()
                self._start()
            return
        self._hear()
        self._compare_clocks()
        table = Table(peers_of(self._coordinator.hosts.values()), dict(app.homes), leader)
        if table != self._table:
            self._table = table
            children.tell(process, as_json.encode(table) + b"\n")

    def _hear(self) -> None:
        for line in self._lines.read():
            try:
                now = as_json.decode(line, Reach)
            except ValueError:
                self._say(f"[link] {line.decode(errors='replace')}")
                continue
            before, self._reach = self._reach, now
            for host in set(now.silent) - set(before.silent):
                self._say(f"host {host} does not answer this one; it may answer others")
            for host in set(now.refusing) - set(before.refusing):
                self._say(
                    f"host {host} refuses this one's key, which it should find in the cluster"
                )
            for host in set(now.detours) - set(before.detours):
                self._say(
                    f"host {host} does not answer directly: what is said to it goes by way of NATS"
                )
            for host in {*before.silent, *before.detours} - {*now.silent, *now.detours}:
                self._say(f"host {host} answers")
            self._coordinator.tell(**structs.asdict(now))

    def _compare_clocks(self) -> None:
        """Say whose clock is far from ours: no promise rests on clocks, but timers ring by them."""
        for host, ahead_s in dict(self._coordinator.ahead_s).items():
            far = bool(ahead_s)
            if far and host not in self._far:
                self._say(
                    f"the clock of host {host} is {abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} "
                    f"this one's, so timers ring at wrong times on one of them: set the clocks of all "
                    f"hosts by NTP"
                )
            elif host in self._far and not far:
                self._say(f"the clock of host {host} is right again")
            (self._far.add if far else self._far.discard)(host)

    def move(self, folder: Path) -> None:
        """Serve another folder. Raises SkerryError."""
        self.close()
        self._folder = folder
        self._start()

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _bind(cluster: Cluster) -> str:
    """Return where the link is to be reached, as IP:PORT; port 0: any."""
    if cluster.address:
        ip, _, port = (
            cluster.address.rpartition(":") if ":" in cluster.address else (cluster.address, "", "")
        )
        return f"{ip}:{port or 0}"
    return f"{_own_ip(cluster.servers[0])}:0"


def _own_ip(server: str) -> str:
    """Return the address of this machine on the way to a server, which other hosts know the way to, too.

    Raises SkerryError.
    """
    found = urlsplit(server)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((found.hostname or "127.0.0.1", found.port or 4222))
            return str(probe.getsockname()[0])
    except OSError as error:
        raise SkerryError(
            f"No address of this machine leads to NATS at {found.hostname}: {error}. Give one by which "
            f"other hosts reach this one with --address."
        ) from error
