"""An app on several hosts, with real processes and real NATS servers: what outlives which end of what."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace
from nats.aio.client import Client as Nats

from skerry import Client, TimedOut, Unavailable
from skerry.errors import SkerryError
from skerry.runtime.app import directory, transfer
from skerry.runtime.cluster import joining, names
from skerry.runtime.cluster.bucket import Change, Overtaken
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.stream import JetStream
from skerry.runtime.description import Description
from skerry.runtime.store import sealed_file
from tests.cluster.apps import Counter, Filled, Receiver, Sender
from tests.cluster.hosts import Host
from tests.cluster.servers import Servers
from tests.processes.started import CLI, ROOT, launcher, running

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
        each.end()


def added(client: Client, times: int) -> dict[str, int]:
    """Add one to each counter so many times; the totals as they were acknowledged."""
    found: dict[str, int] = {}
    for _ in range(times):
        for n in range(COUNTERS):
            found[f"c{n}"] = client.options(timeout=60).ask(Counter.at(f"c{n}").add, 1)
    return found


def totals(client: Client) -> dict[str, int]:
    return {f"c{n}": client.ask(Counter.at(f"c{n}").total) for n in range(COUNTERS)}


PAIRS = 12
"""Senders, each with a receiver: enough that some are on different hosts."""


def burst(client: Client, count: int = 500) -> None:
    """Have each sender send the next numbers."""
    for n in range(PAIRS):
        client.ask(Sender.at(f"s{n}").burst, count)


def seen(client: Client, count: int) -> list[tuple[int, list[int]]]:
    """What the receivers have seen once all numbers have come: how many, and those out of order."""
    receivers = [Receiver.at(f"to-s{n}") for n in range(PAIRS)]
    while any(client.ask(receiver.seen)[0] < count for receiver in receivers):
        pass
    return [client.ask(receiver.seen) for receiver in receivers]


def in_order(count: int) -> list[tuple[int, list[int]]]:
    """What they have seen if nothing is lost, doubled or out of order."""
    return [(count, [])] * PAIRS


def three(host: NewHost) -> list[Host]:
    """Three hosts with two shards each."""
    found = [host("a")]
    found[0].await_homes(a=2)
    found += [host("b"), host("c")]
    for each in found:
        each.await_homes(a=2, b=2, c=2)
    return found


def two(host: NewHost) -> tuple[Host, Host]:
    """Two hosts with two shards each; the first one leads."""
    first = host("a")
    first.await_homes(a=2)
    second = host("b")
    for each in (first, second):
        each.await_homes(a=2, b=2)
    return first, second


# ── hosts come, and share ──


def test_hosts_that_join_take_their_share_while_the_app_serves(host: NewHost) -> None:
    first = host("a")
    first.await_homes(a=2)
    with first.client() as client:
        wanted = added(client, 3)
        burst(client)
        second = host("b")
        first.await_homes(a=2, b=2)
        wanted = added(client, 1)
        burst(client)
        assert seen(client, 1000) == in_order(1000)
    with second.client() as client:
        assert totals(client) == wanted
        burst(client)
        assert seen(client, 1500) == in_order(1500)
    told = json.loads(launcher("status", "--json", "--data", str(second.data)).stdout)
    assert [(one["name"], one["alive"], len(one["shards"])) for one in told["hosts"]] == [
        ("a", True, 2),
        ("b", True, 2),
    ]


def test_a_host_that_leaves_gives_all_away_and_ends(host: NewHost) -> None:
    first, second, third = three(host)
    with second.client() as client:
        wanted = added(client, 2)
        burst(client)
        told = launcher("leave", "--data", str(first.data))  # The one that leads.
        assert told.returncode == 0, told.stderr
        assert first.await_end() == 0
        second.await_homes(b=2, c=2)
        assert totals(client) == wanted
        burst(client)
        assert seen(client, 1000) == in_order(1000)
    assert third.homes == {"b": 2, "c": 2}


def test_the_last_host_does_not_leave(host: NewHost) -> None:
    first = host("a")
    first.await_homes(a=2)
    told = launcher("leave", "--data", str(first.data))
    assert told.returncode == 1
    assert "last host" in told.stderr and "skerry stop" in told.stderr
    with first.client() as client:
        added(client, 1)


def test_each_host_has_as_many_workers_as_it_is_told_to(host: NewHost) -> None:
    first = host("a")
    first.await_homes(a=2)
    second = host("b")
    second.await_homes(a=2, b=2)
    with first.client() as client:
        wanted = added(client, 2)
        for each, workers in ((second, 3), (first, 1)):
            told = launcher("scale", str(workers), "--json", "--data", str(each.data))
            assert told.returncode == 0, told.stderr
            assert json.loads(told.stdout)["workers"] == workers
            wanted = added(client, 1)
        first.await_homes(a=1, b=3)
        assert totals(client) == wanted
    told = launcher("scale", "0", "--data", str(first.data))
    assert told.returncode != 0


# ── hosts end ──


def test_the_shards_of_a_host_that_is_killed_go_on_elsewhere_until_it_is_back(
    host: NewHost,
) -> None:
    first, _, other = three(host)  # The first one leads.
    with other.client() as client:
        patient = client.options(timeout=60)
        wanted = added(client, 3)
        burst(patient)
        first.kill()
        assert added(client, 1) == {key: value + 1 for key, value in wanted.items()}
        burst(patient)
        assert seen(patient, 1000) == in_order(1000)
        homes = other.homes
        assert "a" not in homes and sorted(homes.values()) == [3, 3]
        first.start()
        other.await_homes(a=2, b=2, c=2)
        assert added(client, 1) == {key: value + 2 for key, value in wanted.items()}
        burst(patient)
        assert seen(patient, 1500) == in_order(1500)


def test_two_hosts_of_three_killed_at_once_lose_nothing(host: NewHost) -> None:
    first, second, third = three(host)
    with third.client() as client:
        patient = client.options(timeout=60)
        wanted = added(client, 3)
        burst(patient)
        first.kill()
        second.kill()
        assert added(client, 1) == {key: value + 1 for key, value in wanted.items()}
        burst(patient)
        assert seen(patient, 1000) == in_order(1000)
        assert third.homes == {"c": 6}


def test_a_host_that_was_frozen_past_its_lease_answers_nothing_and_joins_again(
    host: NewHost,
) -> None:
    first, second = two(host)
    with second.client() as old, first.client() as client:
        added(old, 1)
        second.freeze()
        while "b" in first.homes or not first.homes:
            pass
        wanted = added(client, 1)
        assert set(wanted.values()) == {2}
        second.thaw()
        for n in range(COUNTERS):
            with contextlib.suppress(TimedOut, Unavailable):
                assert old.options(timeout=0.2).ask(Counter.at(f"c{n}").total) == 2
        second.await_said("joins again")
        first.await_homes(a=2, b=2)
        assert added(client, 1) == dict.fromkeys(wanted, 3)


def test_a_host_that_is_stopped_and_started_again_at_once_keeps_its_shards(host: NewHost) -> None:
    first, second = two(host)
    with first.client() as client:
        wanted = added(client, 2)
        version = first.version
        second.stop()
        assert second.code == 0
        second.start()
        second.await_serving()
        assert added(client, 1) == {key: value + 1 for key, value in wanted.items()}
    assert first.homes == {"a": 2, "b": 2}
    assert first.version == version


def test_a_host_whose_data_are_deleted_finds_them_in_the_cluster(host: NewHost) -> None:
    first = host("a")
    first.await_homes(a=2)
    with first.client() as client:
        wanted = added(client, 3)
        burst(client)
    first.stop()
    shutil.rmtree(first.data)
    first.start()
    first.await_serving()
    with first.client() as client:
        assert totals(client) == wanted
        burst(client)
        assert seen(client, 1000) == in_order(1000)


def test_another_machine_under_a_host_s_name_waits_until_that_one_is_gone(
    host: NewHost, tmp_path: Path
) -> None:
    first = host("a")
    first.await_homes(a=2)
    second = host("elsewhere", "--host", "a", "--workers", "2")
    second.await_said("under this host's name")
    with first.client() as client:
        wanted = added(client, 1)
    first.kill()
    second.await_serving()
    with second.client() as client:
        assert totals(client) == wanted


# ── clients elsewhere ──


def test_a_client_of_the_cluster_follows_slots_and_hosts(host: NewHost, nats: Servers) -> None:
    first = host("a")
    first.await_homes(a=2)
    with Client(cluster=nats.url, app=first.app) as client:
        wanted = added(client, 2)
        second = host("b")
        second.await_homes(a=2, b=2)
        wanted = added(client, 1)
        burst(client)
        first.kill()
        assert added(client, 1) == {key: value + 1 for key, value in wanted.items()}
        patient = client.options(timeout=60)
        assert seen(patient, 500) == in_order(500)


def test_a_client_says_what_is_missing(nats: Servers) -> None:
    with pytest.raises(Unavailable, match=r"No app 'nowhere' is in the cluster of nats://"):
        Client(cluster=nats.url, app="nowhere").__enter__()
    with pytest.raises(ValueError, match="by `cluster` and `app`"):
        Client(cluster=nats.url)
    with pytest.raises(ValueError, match="by `cluster` and `app`"):
        Client("data", cluster=nats.url, app="shop")


# ── servers end ──


def test_an_election_that_outlasts_the_lease_moves_nothing_and_loses_nothing(
    host: NewHost, nats: Servers
) -> None:
    first, second = two(host)
    with second.client() as client:
        before, version = added(client, 1), first.version
        i = nats.leader(f"KV_{names.of_app(first.app)}")
        nats.kill(i)
        assert added(client, 1) == {key: value + 1 for key, value in before.items()}
        nats.start(i)
    assert "joins again" not in first.said + second.said
    assert first.version == version


def test_servers_that_were_all_down_stop_nobody_and_commits_go_on(
    host: NewHost, nats: Servers
) -> None:
    first, second = two(host)
    with first.client() as client:
        before, version = added(client, 1), first.version
        for i in nats.indexes:
            nats.kill(i)
        with pytest.raises((TimedOut, Unavailable)):
            client.options(timeout=1).ask(Counter.at("beside").add, 1)
        nats.heal()
        assert added(client, 1) == {key: value + 1 for key, value in before.items()}
    assert "joins again" not in first.said + second.said
    assert first.version == version


def test_status_tells_what_runs_while_the_servers_are_away(host: NewHost, nats: Servers) -> None:
    first, second = (host(name, "--workers", "1", "--lease", "2") for name in "ab")
    second.await_homes(a=1, b=1)
    for i in nats.indexes:
        nats.kill(i)
    for each in (first, second):
        while (
            "NATS has not answered this host for"
            not in (told := launcher("status", "--data", str(each.data))).stdout
            or "2 shards in" not in told.stdout
        ):
            assert told.returncode == 0, told.stderr
        said = json.loads(launcher("status", "--json", "--data", str(each.data)).stdout)
        assert said["nats_silent_s"] > 2
        assert {shard["shard"] for shard in said["shards"]} == {0, 1}
    nats.heal()
    while json.loads(launcher("status", "--json", "--data", str(first.data)).stdout)[
        "nats_silent_s"
    ]:
        pass


def test_who_reads_a_state_of_a_host_whose_lease_is_over_is_told_so_and_answered_at_last(
    host: NewHost, nats: Servers
) -> None:
    first, _ = two(host)
    with first.client() as client:
        added(client, 1)
    for i in nats.indexes:
        nats.kill(i)
    at = ("--data", str(first.data))
    while json.loads(launcher("status", "--json", *at).stdout)["leased"]:
        pass
    asked = subprocess.Popen(
        [*CLI, "get", "Counter/c0", *at],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert asked.stderr is not None and "waiting: NATS has not answered" in asked.stderr.readline()
    nats.heal()
    said, _ = asked.communicate()
    assert json.loads(said) == {"count": 1}


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


def test_a_backup_of_an_app_in_a_cluster_is_restored_on_one_machine(
    host: NewHost, tmp_path: Path
) -> None:
    first, second = host("a"), host("b")
    second.await_homes(a=2, b=2)
    with first.client() as client:
        wanted = added(client, 2)
        told = launcher("backup", str(tmp_path / "kept"), "--data", str(second.data))
        assert told.returncode == 0, told.stderr
    alone = tmp_path / "alone"
    told = launcher("restore", str(tmp_path / "kept"), "--data", str(alone))
    assert told.returncode == 0, told.stderr
    with running(alone, "--serve", target=first.target), Client(alone) as client:
        assert totals(client) == wanted


def test_an_app_of_one_machine_goes_on_in_a_cluster_by_a_backup(
    host: NewHost, nats: Servers, tmp_path: Path
) -> None:
    kept, alone = str(tmp_path / "kept"), tmp_path / "alone"
    target = f"{tmp_path / 'program.py'}:app"
    with running(alone, "--serve", "--workers", "3", target=target), Client(alone) as client:
        wanted = added(client, 2)
        client.ask(Filled.at("f").fill, bytes(1 << 20))
        assert launcher("backup", kept, "--data", str(alone)).returncode == 0
    into = ("restore", kept, "--cluster", nats.url, "--data")
    told = launcher(*into, str(tmp_path / "a"))
    assert told.returncode == 0, told.stderr
    second = host("b", "--workers", "1")  # It has nothing, and fetches all.
    second.await_serving()
    with second.client() as client:
        assert totals(client) == wanted
        assert client.ask(Filled.at("f").size) == 1 << 20
    first = host("a", "--workers", "1")
    second.await_homes(a=1, b=1)
    with first.client() as client:
        assert added(client, 1) == {name: total + 1 for name, total in wanted.items()}
    told = launcher(*into, str(tmp_path / "again"))
    assert told.returncode != 0
    assert "has the app" in told.stderr
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("ours", [True, False])
def test_a_restore_whose_answer_was_lost_keeps_what_hosts_have_taken_over_since(
    ours: bool, host: NewHost, nats: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, alone = tmp_path / "kept", tmp_path / "alone"
    with running(alone, "--serve", "--workers", "1", target=f"{tmp_path / 'program.py'}:app"):
        assert launcher("backup", str(kept), "--data", str(alone)).returncode == 0
    finish = Change.finish

    def overtaken(change: Change) -> int:
        """A host, or another restore, writes in the moment before the change is answered."""
        description = sealed_file.decoded(change._value or b"", Description)
        other = replace(description, generation=description.generation + 1)
        if ours:
            finish(change)
        else:
            other = replace(other, incarnation="00" * 16)
        there = change._bucket.get(change._key)
        finish(change._bucket.change(change._key, sealed_file.encoded(other), there.revision))
        raise Overtaken

    monkeypatch.setattr(Change, "finish", overtaken)
    known = directory.load(kept)
    assert known is not None
    engine = Engine(nats.servers, name="test")
    if ours:
        app = transfer.restore_into(nats.servers, kept, tmp_path / "a", print)
        assert joining.logs(engine, known.app) == [names.log_of(app.app, app.incarnation, 0)]
    else:
        with pytest.raises(SkerryError, match="Nothing was restored"):
            transfer.restore_into(nats.servers, kept, tmp_path / "a", print)
        assert not joining.logs(engine, known.app)
    assert (tmp_path / "a").exists() == ours
    engine.close()


def test_a_log_that_is_damaged_stops_its_shard_only_until_it_is_mended(
    host: NewHost, nats: Servers
) -> None:
    hosts = host("a", "--workers", "1"), host("b", "--workers", "1")
    hosts[1].await_homes(a=1, b=1)
    with hosts[0].client() as client:
        wanted = added(client, 1)
    (shard,) = hosts[1].shards_of("b")
    engine = Engine(nats.servers, name="test")
    log = names.log_of(hosts[1].app, hosts[1].incarnation, shard)

    def edit(max_age: float) -> None:
        async def ask(client: Nats) -> None:
            config = (await client.jetstream().stream_info(log)).config
            await client.jetstream().update_stream(config, max_age=max_age)

        engine.run(ask, 10)

    edit(3600)
    hosts[1].kill_workers()
    hosts[1].await_said("was edited")
    hosts[1].await_said("The others serve on")
    with hosts[0].client() as client:
        found: dict[str, int] = {}
        for name in wanted:
            with contextlib.suppress(TimedOut, Unavailable):
                found[name] = client.options(timeout=0.5).ask(Counter.at(name).total)
        assert found, "those on the other host"
        assert found.keys() < wanted.keys()
        edit(0)
        assert added(client, 1) == {name: total + 1 for name, total in wanted.items()}
    assert [each.code for each in hosts] == [None, None]
    engine.close()


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


def test_a_finite_app_ends_on_all_hosts_when_all_is_done(
    nats: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = tmp_path / "finite.py"
    name = f"finite-{zlib.crc32(request.node.nodeid.encode())}"
    program.write_text(
        "import skerry\nfrom skerry import App, Generate\nfrom tests.cluster import apps\n"
        f"app = App({name!r}, entities=apps.ENTITIES)\n"
        "numbers = Generate(lambda partition, at: at, count=20_000)\n"
        "app.source(numbers).key_by(lambda n: str(n % 100)).to(apps.Counter.add)\n"
    )
    hosts = [
        Host(tmp_path / each, nats.url, "--workers", "2", target=str(program), serve=False)
        for each in "ab"
    ]
    try:
        for each in hosts:
            each.start()
        assert [each.await_end() for each in hosts] == [0, 0]
        told = launcher("run", str(program), "--data", str(tmp_path / "a"))
        assert told.returncode == 1 and "--cluster" in told.stderr
    finally:
        for each in hosts:
            each.end()
