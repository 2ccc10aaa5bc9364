"""Three real NATS servers for a session of tests, which tests kill, freeze and start again."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.errors import SkerryError
from skerry.runtime.cluster import monitor, nodes, server
from skerry.runtime.cluster.addresses import in_a_row, must_be_free
from skerry.runtime.cluster.server import name_of

HEAL_S = 60.0
"""How long a cluster may take until it has a leader again."""


def free_row(count: int) -> int:
    """The first port of a cluster on whose ports nobody listens now, below those for clients."""
    while True:
        first = random.SystemRandom().randrange(10_000, 28_000)
        try:
            for n, ports in enumerate(in_a_row(first, count)):
                must_be_free(name_of(n), ports)
        except SkerryError:
            continue
        return first


class Servers:
    """A cluster whose nodes are numbered from 0; none runs before `heal` is called."""

    def __init__(self, folder: Path, program: Path, count: int = 3) -> None:
        self.program = program
        self.cluster = nodes.made(folder, in_a_row(free_row(count), count))
        self.nodes = [node for node, _ in self.cluster.each()]
        self.indexes = range(count)

    @property
    def url(self) -> str:
        """As --cluster takes it, with the password."""
        return self.cluster.url

    @property
    def servers(self) -> list[str]:
        """The URL of each node."""
        return self.url.split(",")

    def kill(self, i: int, number: signal.Signals = signal.SIGKILL) -> None:
        """End a node, and wait until it is gone. By SIGTERM it hands over what it leads."""
        self.nodes[i].end(number)

    def stop(self, i: int) -> None:
        """Freeze a node."""
        assert self.nodes[i].send(signal.SIGSTOP)

    def resume(self, i: int) -> None:
        """Let a frozen node go on."""
        assert self.nodes[i].send(signal.SIGCONT)

    def start(self, i: int) -> None:
        """Start a node that was killed, on its data; returns before it answers."""
        self.cluster.start(self.nodes[i], self.program)

    def leader(self, stream: str) -> int:
        """The node that leads a stream. Waits until there is one."""
        deadline = time.monotonic() + HEAL_S
        while not (told := self._leaders(stream)):
            assert time.monotonic() < deadline, f"{stream} has no leader"
            os.sched_yield()
        return int(told.most_common(1)[0][0].removeprefix("n")) - 1

    def _leaders(self, stream: str) -> Counter[str]:
        """The nodes that others, or they themselves, take for the leader of a stream."""
        healths = [monitor.asked(ports.monitor) for _, ports in self.cluster.each()]
        told = Counter(health.leaders.get(stream, "") for health in healths if health)
        del told[""]
        return told

    def heal(self) -> None:
        """Start and thaw every node; returns when a stream can be made that all of them keep."""
        for i, state in enumerate(self.cluster.states()):
            if state.state == "frozen":
                self.resume(i)
            elif state.state in ("down", "disabled"):
                self.kill(i)
                self.start(i)
        self.cluster.await_ready(lambda line: None)

    def close(self) -> None:
        """End every node."""
        for i in self.indexes:
            self.kill(i)


def servers_of(kind: type[Servers], folder: Path) -> Iterator[Servers]:
    """Yield servers that keep streams together, which end after that. Skips where there is no server."""
    try:
        program = server.binary()
    except SkerryError as error:
        pytest.skip(f"needs real NATS servers. {error}")
    servers = kind(folder, program)
    try:
        servers.heal()
        yield servers
    finally:
        servers.close()


@pytest.fixture(scope="session")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three NATS nodes on this machine, with JetStream; whole again after each test."""
    yield from servers_of(Servers, tmp_path_factory.mktemp("nats"))
