"""`skerry cluster` as it is typed: what it prints, leaves running and refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from skerry.errors import SkerryError
from skerry.runtime.cluster import node, nodes, server
from skerry.runtime.cluster.addresses import LOOPBACK
from skerry.runtime.cluster.engine import Away, Engine
from tests.cluster import fake
from tests.cluster.servers import Servers, free_row
from tests.processes.started import CLI, interruptible, launcher
from tests.processes.test_storage import small_disk

try:
    server.binary()
except SkerryError as error:
    pytest.skip(f"needs real NATS servers. {error}", allow_module_level=True)


def command(
    name: str, folder: Path, *options: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return launcher("cluster", name, "--dir", str(folder), *options, **environment)


def states(folder: Path) -> list[dict[str, Any]]:
    """How each node does, as `status` tells scripts."""
    done = command("status", folder, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["nodes"]
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of a cluster, of which nothing runs in the end. Its name is no easy one."""
    folder = tmp_path / 'a "b" $c é'
    yield folder
    for name in node.processes(folder):
        node.Node(folder, name).end(signal.SIGKILL)


def test_a_cluster_is_started_looked_at_ended_and_goes_on_with_its_data(folder: Path) -> None:
    port = str(free_row(3))
    done = command("up", folder, "--port", port)
    assert done.returncode == 0, done.stderr
    assert f"n1 starts on port {port}\n" in done.stderr
    assert "is ready" in done.stderr and "export SKERRY_CLUSTER=" in done.stderr
    url = done.stdout.strip()
    assert [part.rpartition(":")[2] for part in url.split(",")] == [
        str(int(port) + n) for n in range(3)
    ]
    assert url.split(":")[2].split("@")[0] not in done.stderr, "the password is in the URL only"

    before = states(folder)
    assert [each["state"] for each in before] == ["up"] * 3
    again = command("up", folder)
    assert again.stdout.strip() == url
    assert "all 3 nodes run already" in again.stderr
    assert [each["pid"] for each in states(folder)] == [each["pid"] for each in before]

    os.kill(before[1]["pid"], signal.SIGKILL)
    os.kill(before[2]["pid"], signal.SIGSTOP)
    told = command("status", folder).stdout
    assert "n2 is down: `skerry cluster up --dir" in told
    assert f"n3 is frozen, by a signal: `kill -CONT {before[2]['pid']}`" in told
    assert command("up", folder).stdout.strip() == url
    now = states(folder)
    assert [each["state"] for each in now] == ["up"] * 3
    assert (now[0]["pid"], now[2]["pid"]) == (before[0]["pid"], before[2]["pid"])

    done = command("down", folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(
        "n1 ends\nn2 ends\nn3 ends\nall nodes have ended; their data stay"
    )
    assert node.processes(folder) == {}
    assert [each["state"] for each in states(folder)] == ["down"] * 3
    assert "none runs" in command("status", folder).stdout
    assert "no node runs" in command("down", folder).stderr
    moved = free_row(3)
    done = command("up", folder, "--port", str(moved))
    assert done.returncode == 0, done.stderr
    assert f":{moved + 2}" in done.stdout


def test_a_server_whose_disk_was_full_is_shown_and_starts_again_with_its_data(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    servers = Servers(folder, server.binary())
    engine = Engine(servers.servers, name="test")

    async def make(client: Client) -> None:
        await client.jetstream().add_stream(name="kept", subjects=["kept"], num_replicas=3)

    async def append(client: Client) -> None:
        await client.jetstream().publish("kept", bytes(500_000))

    with small_disk(folder / "n1", "8m"):
        try:
            servers.heal()
            engine.run(make, 10)
            while states(folder)[0]["state"] != "disabled":
                with suppress(Away):
                    engine.run(append, 10)
            assert "n1 keeps no streams: " in command("status", folder).stdout
            subprocess.run(["mount", "-o", "remount,size=200m", folder / "n1"], check=True)
            done = command("up", folder)
            assert done.returncode == 0, done.stderr
            assert "n1 kept no streams, and starts again\n" in done.stderr
            while len({(each["streams"], each["bytes"]) for each in states(folder)}) > 1:
                pass
            assert states(folder)[0]["bytes"] > 4_000_000
        finally:
            engine.close()
            servers.close()


@pytest.mark.parametrize("count", [1, 5])
def test_a_cluster_of_one_or_five_nodes_has_a_leader(folder: Path, count: int) -> None:
    done = command("up", folder, "--nodes", str(count), "--port", str(free_row(count)))
    assert done.returncode == 0, done.stderr
    found = states(folder)
    assert sorted(each["role"] for each in found) == ["follower"] * (count - 1) + ["leader"]


def test_a_port_that_is_in_use_is_named_with_who_has_it(folder: Path) -> None:
    port = free_row(3)
    with socket.socket() as other:
        other.bind((LOOPBACK, port + 2001))
        other.listen()
        done = command("up", folder, "--port", str(port))
    assert done.returncode == 1
    assert f"n2 can't listen on port {port + 2001} of 127.0.0.1: Address already in use, by " in (
        done.stderr
    )
    assert f"process {os.getpid()} (" in done.stderr and "with --port" in done.stderr
    assert not folder.exists()


def test_the_ports_of_another_cluster_are_in_use_and_it_runs_on(
    folder: Path, tmp_path: Path
) -> None:
    port = str(free_row(1))
    assert command("up", folder, "--nodes", "1", "--port", port).returncode == 0
    done = command("up", tmp_path / "second", "--nodes", "1", "--port", port)
    assert done.returncode == 1
    assert "Address already in use, by process" in done.stderr and "nats-server" in done.stderr
    assert states(folder)[0]["state"] == "up"


def test_a_running_cluster_keeps_its_ports_and_number_of_nodes(folder: Path) -> None:
    assert command("up", folder, "--nodes", "1", "--port", str(free_row(1))).returncode == 0
    done = command("up", folder, "--port", str(free_row(1)))
    assert done.returncode == 1 and "Leave --port out, or end it first" in done.stderr
    done = command("up", folder, "--nodes", "3")
    assert done.returncode == 1 and "has 1 nodes, and keeps that number" in done.stderr


def test_servers_whose_folder_was_deleted_are_ended_all_the_same(folder: Path) -> None:
    port = str(free_row(1))
    assert command("up", folder, "--nodes", "1", "--port", port).returncode == 0
    shutil.rmtree(folder)
    done = command("up", folder, "--nodes", "1", "--port", port)
    assert done.returncode == 1 and "End them with `skerry cluster down --dir" in done.stderr
    shutil.rmtree(folder, ignore_errors=True)
    done = command("down", folder)
    assert done.returncode == 0, done.stderr
    assert node.processes(folder) == {}


def test_an_interrupted_start_leaves_nothing_running(folder: Path, tmp_path: Path) -> None:
    fake.server(tmp_path / "bin")
    with subprocess.Popen(
        [*CLI, "cluster", "up", "--dir", folder, "--port", str(free_row(3))],
        env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=interruptible,
    ) as started:
        assert started.stderr is not None
        while "do not answer yet" not in started.stderr.readline():
            assert started.poll() is None
        assert len(node.processes(folder)) == 3
        started.send_signal(signal.SIGINT)
        assert started.wait(60) != 0
    assert node.processes(folder) == {}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--nodes", "0"), "a cluster has 1, 3 or 5 nodes, not 0"),
        (("--nodes", "2"), "more than half of them have to run, so a cluster has 1, 3 or 5"),
        (("--nodes", "x"), "a valid integer"),
        (("--nodes", "-3"), "a cluster has 1, 3 or 5 nodes, not -3"),
        (("--port", "0"), "0 is out of range: it may be 1 to 61533"),
        (("--port", "61534"), "61534 is out of range: it may be 1 to 61533"),
        (("--port", "61532", "--nodes", "5"), "61532 is out of range: it may be 1 to 61531"),
        (("--port", "x"), "a valid integer"),
    ],
)
def test_numbers_that_make_no_cluster_are_wrong_usage(
    folder: Path, options: tuple[str, ...], words: str
) -> None:
    done = command("up", folder, *options)
    assert done.returncode == 2
    assert words in done.stderr
    assert not folder.exists()


@pytest.mark.parametrize("name", ["down", "status"])
def test_a_folder_without_a_cluster_is_named_with_the_command_that_makes_one(
    folder: Path, name: str
) -> None:
    done = command(name, folder)
    assert done.returncode == 1
    assert "There is no cluster in" in done.stderr and "skerry cluster up --dir" in done.stderr
    assert not folder.exists()


def test_a_file_in_the_place_of_the_folder_is_refused(folder: Path) -> None:
    folder.write_text("a file")
    for name in ("up", "down", "status"):
        done = command(name, folder)
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith("skerry: ") and "Traceback" not in done.stderr
    assert nodes.processes(folder) == {}
