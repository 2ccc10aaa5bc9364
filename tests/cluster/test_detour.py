"""Links of hosts that do not reach each other directly: what they say goes by way of NATS."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from skerry.runtime.link.table import Peer, Reach, Table
from skerry.runtime.transport.pipe import Pipe
from tests.cluster.servers import Servers
from tests.link.linked import Echo, Linked, Way, echoed
from tests.link.test_link import carried

HOMES = {0: "a", 1: "b"}


class Apart:
    """Two hosts whose only ways to each other can be cut."""

    def __init__(self, servers: list[str]) -> None:
        self.links = [Linked("a", servers), Linked("b", servers)]
        self.ways = [Way(link.ready.address) for link in self.links]
        for link in self.links:
            link.route(Table([self._peer(i, link) for i in range(2)], HOMES))
        self.pipes = [Pipe(link.folder, i) for i, link in enumerate(self.links)]

    def _peer(self, i: int, seen_by: Linked) -> Peer:
        there = self.links[i]
        address = there.ready.address if there is seen_by else self.ways[i].address
        return Peer(there.host, there.nonce, address, there.ready.key)

    def cut(self) -> None:
        for way in self.ways:
            way.cut()

    def heal(self) -> None:
        for way in self.ways:
            way.heal()

    def close(self) -> None:
        for each in [*self.pipes, *self.links, *self.ways]:
            each.close()


@pytest.fixture
def apart(nats: Servers) -> Iterator[Apart]:
    found = Apart(nats.servers)
    yield found
    found.close()


def until(link: Linked, wanted: Reach) -> None:
    """Wait until a link says this of whom it reaches."""
    while link.reach() != wanted:
        pass


def test_hosts_that_do_not_reach_each_other_speak_by_way_of_nats_until_they_do(
    apart: Apart,
) -> None:
    a, b = apart.pipes
    carried(a, 1, b, b"directly")
    apart.cut()
    until(apart.links[0], Reach(detours=["b"]))
    carried(a, 1, b, b"by way of NATS")
    carried(b, 0, a, b"and back")
    large = os.urandom(5_000_000)
    carried(a, 1, b, large)
    echo = Echo(apart.links[1].folder / "door-1")
    said = os.urandom(3_000_000)
    assert echoed(apart.links[0].folder / "door-1", said) == said
    apart.heal()
    until(apart.links[0], Reach())
    carried(a, 1, b, b"directly again")
    assert echoed(apart.links[0].folder / "door-1", said) == said
    echo.close()


def test_a_host_that_is_not_there_is_reached_by_no_way(apart: Apart) -> None:
    apart.links[1].kill()
    until(apart.links[0], Reach(silent=["b"]))
