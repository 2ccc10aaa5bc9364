"""Hosts of a cluster on this machine, and their NATS servers: started, watched, killed."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from nats.aio.client import Client

from benchmarks.figures import ROOT
from skerry.errors import SkerryError
from skerry.runtime.app import directory
from skerry.runtime.cluster import nodes
from skerry.runtime.cluster.addresses import in_a_row, must_be_free
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.node import processes
from skerry.runtime.description import Description

CLI = [sys.executable, "-m", "skerry.runtime.cli"]
NODES = 3
JOIN_S = 90.0
"""How long hosts may take to join and share."""

LOOK_S = 0.02
"""How often a host that starts is looked at."""


class Servers:
    """Three NATS servers, as `skerry cluster up` makes them."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder, self.url = folder, url
        self.engine = Engine(url.split(","), name="benchmark")
        """The benchmark's own connection."""

    @property
    def cpu_s(self) -> float:
        """Processor time of the servers."""
        return sum(_cpu_s(psutil.Process(pid)) for pid in processes(self._folder).values())

    def clear(self) -> None:
        """Delete all streams: the next app begins anew, and none of the last one is kept in step."""

        async def ask(client: Client) -> None:
            context = client.jetstream()
            for info in await context.streams_info():
                await context.delete_stream(info.config.name)

        self.engine.run(ask, 30)


@contextmanager
def servers(folder: Path) -> Iterator[Servers]:
    """Three NATS servers on free ports, until the context ends."""
    command = [*CLI, "cluster", "up", "--dir", str(folder), "--port", str(_free_row())]
    told = subprocess.run(command, capture_output=True, text=True)
    if told.returncode:
        sys.exit(told.stderr)
    found = Servers(folder, told.stdout.strip())
    try:
        yield found
    finally:
        found.engine.close()
        nodes.down(folder, lambda line: None)


def _free_row() -> int:
    """The first port of a cluster on whose ports nobody listens now."""
    while True:
        first = random.SystemRandom().randrange(10_000, 28_000)
        with suppress(SkerryError):
            for n, ports in enumerate(in_a_row(first, NODES)):
                must_be_free(f"n{n}", ports)
            return first


class Host:
    """One host, or the only one: a launcher, its workers, its link.

    Args:
        options: of `skerry run`.
    """

    def __init__(self, data: Path, options: list[str], args: list[str], **environment: str) -> None:
        self.data, self.name = data, data.name
        self._said = data.with_name(data.name + ".said")
        command = [*CLI, "run", "benchmarks.hosts_app:app", "--data", str(data), "--serve"]
        with open(self._said, "wb") as file:
            self._process = subprocess.Popen(
                [*command, *options, "--", *args],
                cwd=ROOT,
                env=_ours(os.environ) | environment,
                stderr=file,
                stdout=file,
            )

    @property
    def described(self) -> Description:
        """The app, as this host knows it."""
        found = directory.load(self.data)
        assert found is not None, "it serves"
        return found

    @property
    def _homes(self) -> dict[str, int]:
        """How many shards each host has; empty: something moves, or it does not serve yet."""
        found = directory.load(self.data) if (self.data / "run.json").exists() else None
        if found is None or found.goal or found.placement.coming:
            return {}
        return dict(Counter(found.homes.values())) or {self.name: len(found.placement.members)}

    def await_homes(self, **wanted: int) -> None:
        """Wait until each host has so many shards, and nothing moves."""
        deadline_s = time.monotonic() + JOIN_S
        while self._homes != wanted:
            late = time.monotonic() > deadline_s
            if late or self._process.poll() is not None:
                raise AssertionError(f"{self.name} has {self._homes}:\n{self._said.read_text()}")
            time.sleep(LOOK_S)

    def restart(self) -> subprocess.Popen[bytes]:
        """Begin to load the app anew, in new workers."""
        command = [*CLI, "restart", "--data", str(self.data)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def processes(self) -> list[psutil.Process]:
        """All its processes."""
        launcher = psutil.Process(self._process.pid)
        return [launcher, *launcher.children(recursive=True)]

    @property
    def cpu_s(self) -> float:
        """Processor time of all its processes."""
        return sum(map(_cpu_s, self.processes()))

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut does."""
        if self._process.poll() is None:
            for process in self.processes():
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
            self._process.wait()


def _ours(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which nobody has settled how apps are run."""
    return {name: text for name, text in environment.items() if not name.startswith("SKERRY_")}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


@contextmanager
def hosts(
    folder: Path, count: int, servers: Servers | None, workers: int, args: list[str], *options: str
) -> Iterator[list[Host]]:
    """So many hosts of one new app, each with its share of the shards, until the context ends."""
    found: list[Host] = []
    base = ["--workers", str(workers), "--no-rebalance", *options]
    wanted: dict[str, int] = {}
    folder.mkdir()
    try:
        for n in range(1, count + 1):
            name = f"h{n}"
            host = ["--host", name] if servers else []
            environment = {"SKERRY_CLUSTER": servers.url} if servers else {}
            found.append(Host(folder / name, [*base, *host], args, **environment))
            wanted[name] = workers
            if n == 1:
                found[0].await_homes(**wanted)
        for host in found:
            host.await_homes(**wanted)
        yield found
    finally:
        for host in found:
            host.kill()
        if servers is not None:
            servers.clear()
