"""Damage is named, a second owner is refused, a handler that hangs harms its own message."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

import skerry
from skerry import Failed, message
from tests.processes.apps import Counter
from tests.processes.started import launcher, running


def test_a_second_supervisor_on_one_data_directory_is_refused(tmp_path: Path) -> None:
    with running(tmp_path / "data"):
        second = launcher("run", "tests.processes.apps", "--data", str(tmp_path / "data"))
    assert second.returncode == 4
    assert "is in use by process" in second.stderr


def test_another_app_does_not_start_on_the_data(tmp_path: Path) -> None:
    with running(tmp_path / "data"):
        pass
    other = launcher("run", "examples.bank", "--data", str(tmp_path / "data"))
    assert other.returncode == 1
    assert "holds the app 'trouble', not 'bank'" in other.stderr


def test_a_flipped_byte_is_named_by_check_and_stops_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data), skerry.Client(data) as client:
        client.ask_many([message(Counter.at(f"flip-me-{n}").add) for n in range(500)])
    assert launcher("check", str(data)).returncode == 0
    store = next(path for path in data.glob("shard-*/log-*") if b"flip-me-" in path.read_bytes())
    stored = store.read_bytes()
    places = [at for at in range(len(stored)) if stored.startswith(b"flip-me-", at)]
    damaged = bytearray(stored)
    for at in places:
        damaged[at] ^= 0x20
    store.write_bytes(bytes(damaged))
    checked = launcher("check", str(data))
    assert checked.returncode == 3
    assert str(store.parent) in checked.stdout
    started = launcher("run", "tests.processes.apps", "--data", str(data))
    assert started.returncode == 3
    assert "is damaged" in started.stderr


def test_many_messages_that_each_take_long_are_no_handler_that_hangs(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\n"
        "from skerry import App, Entity, Generate\n"
        "class Slow(Entity):\n    count: int = 0\n"
        "    def work(self, number: int) -> None:\n        time.sleep(0.02)\n        self.count += 1\n"
        "app = App('slow', entities=[Slow])\n"
        "app.source(Generate(lambda p, n: n, count=80)).key_by(lambda n: 'one').to(Slow.work)\n"
    )
    ran = launcher("run", "slow.py", "--workers", "2", cwd=tmp_path, SKERRY_HANG="2")
    assert ran.returncode == 0
    assert "does not return" not in ran.stderr
    assert "320 turns" in ran.stderr and "dead letters" not in ran.stderr


def test_a_handler_that_hangs_becomes_a_dead_letter_and_others_go_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, SKERRY_HANG="1"), skerry.Client(data) as client:
        hung, counted = client.options(timeout=90).ask_many(
            [message(Counter.at("a").hang), message(Counter.at("a").add)]
        )
        assert isinstance(hung, Failed)
        assert "did not return" in str(hung)
        assert counted == 1
    letters = launcher("dead", "list", "--data", str(data)).stdout
    assert letters.count("\n") == 1
    assert "Counter/a  hang" in letters


def test_what_a_client_was_told_is_there_after_everything_was_killed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as process, skerry.Client(data) as client:
        answers = client.ask_many([message(Counter.at(f"k{n % 10}").add) for n in range(1000)])
        process.kill()
        process.wait()
    assert sorted(str(answer) for answer in answers) == sorted(
        str(n) for n in range(1, 101) for _ in range(10)
    )
    with running(data), skerry.Client(data) as client:
        assert {key: counter.count for key, counter in client.scan(Counter)} == {
            f"k{n}": 100 for n in range(10)
        }


def children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The workers, when all are there."""
    while len(found := psutil.Process(process.pid).children()) < 2:
        os.sched_yield()
    return found


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_worker_outlives_its_supervisor_however_that_ends(tmp_path: Path, number: int) -> None:
    with running(tmp_path / "data") as process:
        workers = children(process)
        process.send_signal(number)
        process.wait(timeout=60)
        assert psutil.wait_procs(workers, timeout=60)[1] == []
        assert process.returncode == (-9 if number == signal.SIGKILL else 0)


def test_what_a_handler_prints_reaches_the_terminal_and_the_log(tmp_path: Path) -> None:
    (tmp_path / "chatty.py").write_text(
        "from skerry import App, Entity, Generate\n"
        "class A(Entity):\n    def say(self) -> None:\n        print('hello from', self.key)\n"
        "app = App('chatty', entities=[A])\n"
        "app.source(Generate(lambda p, at: at, partitions=1, count=1)).key_by(str).to(A.say)\n"
    )
    done = launcher("run", "chatty.py", "--workers", "1", cwd=tmp_path)
    assert "[0] hello from 0" in done.stderr
    assert "hello from 0" in (tmp_path / ".skerry/chatty/logs/worker-0.log").read_text()
