"""Callers that ask without end, or say nothing at all: bounded, and others are served."""

from __future__ import annotations

import json
import os
import resource
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import skerry
from skerry import Unavailable, message
from skerry.runtime.app.directory import running_app
from skerry.runtime.gateway import knock, protocol
from skerry.runtime.gateway.channel import Broken, Channel
from tests.processes.apps import Blob, Counter
from tests.processes.started import CLI, ROOT, launcher, running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app that runs."""
    folder = tmp_path_factory.mktemp("floods") / "data"
    with running(folder):
        yield folder


def lines_to(data: Path, count: int = 1) -> list[Channel]:
    """Lines to each door of an app, by which anything can be said."""
    return [line_to(data, shard) for shard in running_app(data).shards * count]


def line_to(data: Path, shard: int) -> Channel:
    """A line to one of them."""
    line = None
    while line is None:
        path = f"{running_app(data).sockets}/door-{shard}"
        line = Channel.to(path, message_bytes_max=1 << 30)
    return line


def prove(data: Path, line: Channel) -> None:
    """Show that we know the app's secret. Raises Broken: the door turns us away."""
    secret, number = running_app(data).secret, knock.drawn()
    line.say(knock.knock(secret, number))
    poll = select.poll()
    poll.register(line, select.POLLIN)
    assert poll.poll(60_000), "no answer"
    (answer,) = line.hear()
    if not knock.is_answer(secret, number, answer):
        raise Broken("turned away")


def known_lines_to(data: Path) -> list[Channel]:
    """Lines to each door of an app, by which callers of its own say anything."""
    lines = lines_to(data)
    for line in lines:
        prove(data, line)
    return lines


def flood(line: Channel, said: list[bytes], answers: int) -> list[Any]:
    """Say all of it, and hear so many answers."""
    heard: list[Any] = []
    for raw in said:
        line.say(raw)
    poll = select.poll()
    while len(heard) < answers:
        poll.register(line, select.POLLIN | (select.POLLOUT if line.unsent else 0))
        assert poll.poll(60_000), f"{len(heard)} of {answers} answers"
        line.go_on()
        heard += map(msgspec.msgpack.decode, line.hear())
    return heard


def shards(data: Path) -> list[dict[str, Any]]:
    """What `skerry status` says of each."""
    status = launcher("status", "--json", "--data", str(data))
    found: list[dict[str, Any]] = json.loads(status.stdout)["shards"]
    return found


@pytest.mark.parametrize("kind", ["scan", "count", "get", "dead"])
def test_looks_without_end_are_refused_and_others_are_served(data: Path, kind: str) -> None:
    args: dict[str, list[Any]] = {
        "scan": ["Counter", "", "", 1000],
        "count": ["Counter"],
        "get": ["Counter", "a"],
        "dead": ["list", b"", 1000],
    }
    asked = [protocol.encode([kind, n, *args[kind]]) for n in range(1, 3001)]
    greedy = known_lines_to(data)
    try:
        with skerry.Client(data) as client:
            before = client.ask(Counter.at("beside").add)
            for line in greedy:
                for raw in asked:
                    line.say(raw)
            assert client.ask(Counter.at("beside").add) == before + 1
            assert client.get(Counter.at("beside")).count == before + 1
        for line in greedy:
            heard = flood(line, [], len(asked))
            said = {word[2] for word in heard if word[0] == "error"}
            assert said == {"Busy"}
            assert {word[1] for word in heard} == set(range(1, 3001)), "each has its answer"
    finally:
        for line in greedy:
            line.close()


def asks(session: bytes, handler: str, now_ns: int) -> bytes:
    """A request of a session of its own."""
    run = ["Counter", handler, True, now_ns, [1], [0], ["flood"], [[]]]
    return protocol.encode(["asks", session, False, [run]])


def test_requests_of_a_session_each_leave_a_bounded_number_of_sessions(data: Path) -> None:
    first, *others = known_lines_to(data)
    before = {shard["shard"]: shard["sessions"] for shard in shards(data)}
    (welcome,) = flood(first, [protocol.encode(protocol.Hello())], 1)
    now_ns = welcome[1]["now_ns"]
    for handler, most in (("value", 0), ("add", 17)):
        kinds: dict[str, int] = {}
        for line in (first, *others):
            sessions = [os.urandom(16) for _ in range(3000)]
            for word in flood(line, [asks(id, handler, now_ns) for id in sessions], 0):
                raise AssertionError(word)
            told = 0
            while told < len(sessions):
                for word in flood(line, [], 1):
                    for kind, numbers, _ in word[1]:
                        kinds[kind] = kinds.get(kind, 0) + len(numbers)
                        told += len(numbers)
        begun = {shard["shard"]: shard["sessions"] for shard in shards(data)}
        assert max(begun[shard] - before[shard] for shard in begun) <= most
        with skerry.Client(data) as client:
            assert client.ask(Counter.at("flood").value) == kinds.get("done", 0) * (
                handler == "add"
            )
    for line in (first, *others):
        line.close()


@contextmanager
def with_few_files(data: Path, limit: int) -> Iterator[subprocess.Popen[bytes]]:
    """The app under a hard limit of open files."""
    program = (
        "import os, resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit})); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    run = ["run", "tests.processes.apps", "--data", str(data), "--workers", "2", "--cache", "4M"]
    with open(data.with_name("said"), "wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *CLI, *run], cwd=ROOT, stderr=said
        )
    try:
        while not (data / "run.json").exists():
            assert process.poll() is None, data.with_name("said").read_text()
            os.sched_yield()
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_silent_lines_without_end_leave_descriptors_to_the_log_and_room_to_who_speaks(
    tmp_path: Path,
) -> None:
    """Each sweep begins a new file of the log, and old ones are read and removed."""
    data = tmp_path / "data"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    try:
        with with_few_files(data, 300) as process, skerry.Client(data) as client:
            pids = {shard["pid"] for shard in shards(data)}
            silent = lines_to(data, 400)
            for n in range(2):
                client.ask_many(message(Blob.at(f"b{n}-{key}").fill, 10) for key in range(15_000))
            with skerry.Client(data) as other:
                assert other.ask(Counter.at("a").add) == 1
            assert {shard["pid"] for shard in shards(data)} == pids
            assert process.poll() is None
            for shard in shards(data):
                assert shard["callers"] <= shard["callers_max"] < 300
    finally:
        for line in silent:
            line.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def fill(data: Path, shard: int, inside: list[Channel]) -> None:
    """Callers come to one door until it turns the next away."""
    while len(inside) < 400:
        inside.append(line_to(data, shard))
        try:
            prove(data, inside[-1])
            flood(inside[-1], [protocol.encode(protocol.Hello())], 1)
        except Broken:
            return
    raise AssertionError("there is no end of room")


def test_who_finds_no_room_is_told_what_limit_to_raise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skerry.runtime.client.connection.WELCOME_S", 2)
    data = tmp_path / "data"
    with with_few_files(data, 100):
        inside: list[Channel] = []
        try:
            for shard in running_app(data).shards:
                fill(data, shard, inside)
            with (
                pytest.raises(Unavailable, match=r"can have no more.*ulimit -n"),
                skerry.Client(data),
            ):
                pass
        finally:
            for line in inside:
                line.close()
        with skerry.Client(data) as client:
            assert client.ask(Counter.at("a").add) == 1
