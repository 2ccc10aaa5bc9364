"""An app on hosts with networks of their own, which are cut: what goes on, and what is whole again."""

from __future__ import annotations

import contextlib
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from skerry import TimedOut, Unavailable
from skerry.runtime.cluster.addresses import LOOPBACK
from skerry.runtime.cluster.server import Access, configuration
from tests.cluster import clocks
from tests.cluster.apps import Counter
from tests.cluster.clocks import WallClock
from tests.cluster.hosts import LEASE_S, Host
from tests.cluster.namespaces import OUTSIDE, Network, needed
from tests.cluster.servers import Servers, servers_of
from tests.cluster.test_hosts import COUNTERS, added, burst, in_order, seen, totals
from tests.processes.started import CLI, ROOT

pytestmark = needed

NAMES = ["a", "b", "c", "d"]

ROOM = 1 << 30
"""Bytes that a server may keep."""

NewHost = Callable[..., Host]


class Reached(Servers):
    """Servers that hosts reach at the address of this machine in their network."""

    def start(self, i: int) -> None:
        ports = [each for _, each in self.cluster.each()]
        access = Access(self.cluster.name, urlsplit(self.servers[0]).password or "")
        told = configuration(ports, i, access, max_file_store=ROOM)
        local = f'listen: "{LOOPBACK}:{ports[i].clients}"'
        assert local in told
        everywhere = f'listen: "0.0.0.0:{ports[i].clients}"'
        self.nodes[i].start(self.program, told.replace(local, everywhere))


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Three NATS nodes on this machine; whole again after each test."""
    yield from servers_of(Reached, tmp_path_factory.mktemp("nats"))


@pytest.fixture
def network() -> Iterator[Network]:
    found = Network(NAMES)
    yield found
    found.close()


@pytest.fixture
def host(
    nats: Servers, network: Network, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[NewHost]:
    """Makes hosts of one app, which has a name of its own, each in its namespace."""
    made: list[Host] = []
    name = f"hosted-{zlib.crc32(request.node.nodeid.encode())}"
    program = tmp_path / "program.py"
    program.write_text(
        "from skerry import App\nfrom tests.cluster import apps\n"
        f"app = App({name!r}, entities=apps.ENTITIES)\n"
    )
    url = nats.url.replace(LOOPBACK, network.address(OUTSIDE))

    def new(folder: str, *by: str) -> Host:
        options = ("--workers", "2", "--address", network.address(folder))
        by = (*network.inside(folder), *by)
        made.append(Host(tmp_path / folder, url, *options, target=f"{program}:app", by=by))
        made[-1].start()
        return made[-1]

    yield new
    for each in made:
        each.end()


def started(host: NewHost, *names: str) -> list[Host]:
    """These hosts, with two shards each; the first one leads."""
    found = [host(names[0])]
    found[0].await_serving()
    found += [host(name) for name in names[1:]]
    for each in found:
        each.await_homes(**dict.fromkeys(names, 2))
    return found


def test_hosts_that_are_cut_apart_and_reach_nats_keep_their_shards_and_lose_nothing(
    host: NewHost, network: Network
) -> None:
    first, second = started(host, "a", "b")
    with first.client() as one, second.client() as other:
        added(one, 1)
        version = first.version
        network.cut("a", "b")
        burst(one.options(timeout=60))
        assert set(added(other, 1).values()) == {2}
        first.await_said("host b does not answer")
        second.await_said("host a does not answer")
        burst(other.options(timeout=60))
        assert set(added(one, 1).values()) == {3}
        network.heal()
        first.await_said("host b answers")
        second.await_said("host a answers")
        assert set(added(other, 1).values()) == {4}
        assert seen(one, 1000) == in_order(1000)
        assert totals(one) == totals(other) == dict.fromkeys(totals(one), 4)
    assert first.version == second.version == version
    assert "joins again" not in first.said + second.said


def test_hosts_of_which_one_hears_the_other_and_is_not_heard_keep_their_shards_and_lose_nothing(
    host: NewHost, network: Network
) -> None:
    first, second = started(host, "a", "b")
    with first.client() as one, second.client() as other:
        added(one, 1)
        version = first.version
        network.cut_one_way("b", "a")
        burst(other.options(timeout=60))
        assert set(added(one, 1).values()) == {2}
        first.await_said("host b does not answer")
        second.await_said("host a does not answer")
        burst(one.options(timeout=60))
        assert set(added(other, 1).values()) == {3}
        network.heal()
        first.await_said("host b answers")
        second.await_said("host a answers")
        assert set(added(one, 1).values()) == {4}
        assert seen(other, 1000) == in_order(1000)
        assert totals(one) == totals(other) == dict.fromkeys(totals(one), 4)
    assert first.version == second.version == version
    assert "joins again" not in first.said + second.said


def test_a_host_that_is_cut_off_from_nats_past_its_lease_answers_nothing_old_and_joins_again(
    host: NewHost, network: Network
) -> None:
    first, second = started(host, "a", "b")  # The first one leads.
    with first.client() as old, second.client() as client:
        patient = client.options(timeout=60)
        added(old, 1)
        burst(client)
        network.cut("a", OUTSIDE)
        while second.homes != {"b": 4}:
            pass
        assert set(added(client, 1).values()) == {2}
        burst(patient)
        for n in range(COUNTERS):
            with contextlib.suppress(TimedOut, Unavailable):
                assert old.options(timeout=0.2).ask(Counter.at(f"c{n}").total) == 2
        assert "joins again" not in first.said
        network.heal()
        first.await_said("joins again")
        for each in (first, second):
            each.await_homes(a=2, b=2)
        assert set(added(client, 1).values()) == {3}
        burst(patient)
        assert seen(patient, 1500) == in_order(1500)
    with first.client() as one:
        assert totals(one) == dict.fromkeys(totals(one), 3)


def test_a_host_comes_and_one_leaves_while_another_one_is_killed_and_nothing_is_lost(
    host: NewHost,
) -> None:
    first, second, third = started(host, "a", "b", "c")
    with first.client() as client:
        patient = client.options(timeout=60)
        added(client, 1)
        burst(client)
        fourth = host("d")
        leave = subprocess.Popen([*CLI, "leave", "--data", str(second.data)], cwd=ROOT)
        while first.homes:
            pass
        third.kill()  # Slots move.
        assert set(added(client, 1).values()) == {2}
        burst(patient)
        assert leave.wait(60) == second.await_end() == 0
        while first.homes.keys() != {"a", "d"} or first.homes != fourth.homes:
            pass
        assert set(added(client, 1).values()) == {3}
        burst(patient)
        assert seen(patient, 1500) == in_order(1500)
    with fourth.client() as one:
        assert totals(one) == dict.fromkeys(totals(one), 3)


@clocks.needed
def test_a_host_whose_clock_is_set_an_hour_wrong_keeps_its_lease_and_loses_nothing(
    host: NewHost, tmp_path: Path
) -> None:
    clock = WallClock(tmp_path)
    first, second = host("a", *clock.inside), host("b")
    for each in (first, second):
        each.await_homes(a=2, b=2)
    with first.client() as one, second.client() as other:
        version = first.version
        assert set(added(one, 1).values()) == {1}
        clock.set(3600)
        burst(other)
        wanted = added(one, 1)
        assert set(wanted.values()) == {2}
        clock.set(-3600)
        burst(other)
        until_s = time.monotonic() + 1.2 * float(LEASE_S)
        while time.monotonic() < until_s:
            told = added(one, 1)
            assert told == {key: value + 1 for key, value in wanted.items()}
            wanted = told
        clock.set(0)
        burst(one)
        assert seen(other, 1500) == in_order(1500)
        assert totals(one) == totals(other) == wanted
    assert first.version == second.version == version
    assert "joins again" not in first.said + second.said
