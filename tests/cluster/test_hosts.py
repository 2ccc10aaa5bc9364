"""An app in a cluster, with real processes and real NATS servers: what outlives which end of what."""

from __future__ import annotations

import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry import Client, TimedOut, Unavailable
from skerry.runtime.cluster import names
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.stream import JetStream
from tests.cluster.apps import Counter, Filled, Receiver, Sender
from tests.cluster.hosts import Host
from tests.cluster.servers import Servers
from tests.processes.started import launcher, running

COUNTERS = 8

NewHost = Callable[..., Host]


@pytest.fixture
def host(nats: Servers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NewHost]:
    """Makes hosts of one app, which has a name of its own; all are stopped at the end."""
    made: list[Host] = []
    name = f"hosted-{zlib.crc32(request.node.nodeid.encode())}"
    program = tmp_path / "program.py"
    program.write_text(
        "from skerry import App\nfrom tests.cluster import apps\n"
        f"app = App({name!r}, entities=apps.ENTITIES)\n"
    )

    def new(folder: str, *options: str) -> Host:
        options = options or ("--workers", "2")
        made.append(Host(tmp_path / folder, nats.url, *options, target=f"{program}:app"))
        made[-1].start()
        return made[-1]

    yield new
    for each in made:
        each.stop()


def added(client: Client, times: int) -> dict[str, int]:
    """Add one to each counter so many times; the totals as they were acknowledged."""
    found: dict[str, int] = {}
    for _ in range(times):
        for n in range(COUNTERS):
            found[f"c{n}"] = client.ask(Counter.at(f"c{n}").add, 1)
    return found


def totals(client: Client) -> dict[str, int]:
    return {f"c{n}": client.ask(Counter.at(f"c{n}").total) for n in range(COUNTERS)}


def seen_after_another_burst(client: Client) -> tuple[int, list[int]]:
    """Send the second 500 numbers; what the receiver has seen once all have come: how many, and those
    out of order."""
    client.ask(Sender.at("s").burst, 500)
    while client.ask(Receiver.at("to-s").seen)[0] < 1000:
        pass
    return client.ask(Receiver.at("to-s").seen)


def test_a_host_whose_data_are_deleted_finds_them_in_the_cluster(host: NewHost) -> None:
    first = host("a")
    first.await_serving()
    with first.client() as client:
        wanted = added(client, 3)
        client.ask(Sender.at("s").burst, 500)
    first.stop()
    shutil.rmtree(first.data)
    first.start()
    first.await_serving()
    with first.client() as client:
        assert totals(client) == wanted
        assert seen_after_another_burst(client) == (1000, [])


def test_a_host_that_is_killed_is_replaced_by_the_one_that_stands_by(host: NewHost) -> None:
    first = host("a")
    first.await_serving()
    second = host("b")
    second.await_said("standing by: host a")
    with first.client() as client:
        wanted = added(client, 3)
        client.ask(Sender.at("s").burst, 500)
        first.kill()
    second.await_serving()
    with second.client() as client:
        assert totals(client) == wanted
        assert seen_after_another_burst(client) == (1000, [])


def test_a_host_that_was_frozen_past_its_lease_answers_nothing_and_joins_again(
    host: NewHost,
) -> None:
    first = host("a")
    first.await_serving()
    second = host("b")
    second.await_said("standing by: host a")
    with first.client() as old:
        added(old, 1)
        first.freeze()
        second.await_serving()
        with second.client() as client:
            wanted = added(client, 1)
            assert set(wanted.values()) == {2}
            first.thaw()
            for n in range(COUNTERS):
                with pytest.raises((TimedOut, Unavailable)):
                    old.options(timeout=0.2).ask(Counter.at(f"c{n}").total)
            first.await_said("standing by: host b")
            assert added(client, 1) == dict.fromkeys(wanted, 3)


def test_the_number_of_workers_changes_in_a_cluster_and_outlives_its_host(host: NewHost) -> None:
    first = host("a")
    first.await_serving()
    with first.client() as client:
        wanted = added(client, 2)
        for workers in ("4", "1", "3"):
            told = launcher("scale", workers, "--data", str(first.data))
            assert told.returncode == 0, told.stderr
            wanted = added(client, 1)
    first.kill()
    second = host("b", "--serve")
    second.await_serving()
    with second.client() as client:
        assert totals(client) == wanted
    assert second.shards == 3


def test_an_election_that_outlasts_the_lease_replaces_nobody_and_loses_nothing(
    host: NewHost, nats: Servers
) -> None:
    first = host("a")
    first.await_serving()
    second = host("b")
    second.await_said("standing by: host a")
    with first.client() as client:
        patient = client.options(timeout=60)
        before = added(patient, 1)
        for _ in range(2):
            i = nats.leader(f"KV_{names.of_app(first.app)}")
            nats.kill(i)
            before = {key: value + 1 for key, value in before.items()}
            assert added(patient, 1) == before
            nats.start(i)
    assert "joins again" not in first.said + second.said


def test_servers_that_were_all_down_stop_nobody_and_commits_go_on(
    host: NewHost, nats: Servers
) -> None:
    first = host("a")
    first.await_serving()
    with first.client() as client:
        patient = client.options(timeout=60)
        before = added(patient, 1)
        for i in nats.indexes:
            nats.kill(i)
        with pytest.raises((TimedOut, Unavailable)):
            client.options(timeout=1).ask(Counter.at("beside").add, 1)
        nats.heal()
        assert added(patient, 1) == {key: value + 1 for key, value in before.items()}
    assert "joins again" not in first.said


def test_much_that_was_appended_is_in_a_snapshot_and_the_log_is_short(
    host: NewHost, nats: Servers
) -> None:
    first = host("a", "--workers", "1")
    first.await_serving()
    with first.client() as client:
        wanted = added(client, 1)
        for n in range(200):
            client.options(timeout=60).ask(Filled.at(str(n % 20)).fill, random.randbytes(1 << 20))
    engine = Engine(nats.servers, name="test")
    try:
        log = JetStream(engine, names.log_of(first.app, first.incarnation, 0))
        while log.ends()[0] == 1:
            assert "no snapshot could be made" not in first.said
        first.kill()
        shutil.rmtree(first.data)
        first.start()
        first.await_serving()
        with first.client() as client:
            assert totals(client) == wanted
            assert client.ask(Filled.at("19").size) == 1 << 20
    finally:
        engine.close()


def test_a_host_that_stands_by_is_stopped_in_order_and_one_that_gives_the_lease_back_is_replaced_at_once(
    host: NewHost,
) -> None:
    first = host("a")
    first.await_serving()
    second, third = host("b"), host("c")
    for each in (second, third):
        each.await_said("standing by: host a")
    second.stop()
    assert second.code == 0
    with first.client() as client:
        wanted = added(client, 1)
    first.stop()
    assert first.code == 0
    third.await_serving()
    with third.client() as client:
        assert totals(client) == wanted


def test_a_backup_of_an_app_in_a_cluster_is_restored_on_one_machine(
    host: NewHost, tmp_path: Path
) -> None:
    first = host("a")
    first.await_serving()
    with first.client() as client:
        wanted = added(client, 2)
        told = launcher("backup", str(tmp_path / "kept"), "--data", str(first.data))
        assert told.returncode == 0, told.stderr
    alone = tmp_path / "alone"
    told = launcher("restore", str(tmp_path / "kept"), "--data", str(alone))
    assert told.returncode == 0, told.stderr
    with running(alone, "--serve", target=first.target), Client(alone) as client:
        assert totals(client) == wanted


def test_another_app_s_folder_and_a_copy_without_its_cluster_are_refused(host: NewHost) -> None:
    first = host("a")
    first.await_serving()
    first.stop()
    told = launcher("run", "tests.cluster.apps:app", "--data", str(first.data))
    assert told.returncode == 1
    assert "Start it with --cluster" in told.stderr or "holds the app" in told.stderr
    told = launcher("check", str(first.data))
    assert told.returncode != 0
    assert "whose data are in a cluster" in told.stderr
