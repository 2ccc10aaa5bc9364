"""Handlers use the process that they run in as any program does, and nothing of ours is in their way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

import skerry
from tests.processes.hosted import Job
from tests.processes.started import CLI, ROOT, launcher, running

TARGET = "tests.processes.hosted"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app that runs."""
    folder = tmp_path_factory.mktemp("host") / "data"
    with running(folder, "--workers", "1", target=TARGET):
        yield folder


def test_there_is_nothing_to_read_for_a_handler_and_for_what_it_starts(data: Path) -> None:
    with skerry.Client(data) as client:
        assert client.ask(Job.at("a").read) == ["", ""]


def test_what_a_handler_starts_ends_by_signals_as_everywhere(data: Path) -> None:
    with skerry.Client(data) as client:
        assert client.ask(Job.at("a").end_children) == [-signal.SIGTERM, -signal.SIGTERM]


def test_a_forked_child_has_nothing_of_its_worker(data: Path) -> None:
    sockets = json.loads((data / "run.json").read_text())["sockets"]
    with skerry.Client(data) as client:
        inherited = client.ask(Job.at("a").inherited)
    assert [place for place in inherited if str(data) in place or sockets in place] == []
    assert [place for place in inherited if place.startswith("socket:")] == []


@pytest.mark.parametrize(("how", "code"), [("exit", 3), ("send", 4), ("return", 0)])
def test_a_forked_child_never_acts_as_its_worker(data: Path, how: str, code: int) -> None:
    with skerry.Client(data) as client:
        before = client.ask(Job.at("counted").add)
        assert client.ask(Job.at("counted").stray, how) == code
        assert client.ask(Job.at("counted").add) == before + 1
        assert client.get(Job.at("other")).count == 0


def test_a_thread_of_a_handler_acts_in_nobodys_turn(data: Path) -> None:
    with skerry.Client(data) as client:
        client.ask(Job.at("a").later)
        for _ in range(20):
            client.ask(Job.at("a").slow, 0.001)
        assert client.get(Job.at("never")).count == 0


def test_nothing_depends_on_the_folder_in_which_a_handler_works(tmp_path: Path) -> None:
    """Sources, sinks, new files of the log: all are where they were when the app was started."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "lines.txt").write_text("".join(f"{n}\n" for n in range(100)))
    (tmp_path / "app" / "moving.py").write_text(
        "import os\n"
        "from skerry import App, Entity, Output, TextFiles, emit, sinks\n"
        "out = Output('out')\n"
        "class Doc(Entity):\n    text: str = ''\n"
        "    def fill(self, line: str) -> None:\n"
        "        os.chdir('/')\n        self.text = line * 100_000\n        emit(out, int(line))\n"
        "app = App('moving', entities=[Doc], outputs=[out])\n"
        "app.source(TextFiles('lines.txt')).key_by(str).to(Doc.fill)\n"
        "app.stream(out).sink(sinks.JsonLines('found'))\n"
    )
    done = launcher("run", "moving.py", "--workers", "1", "--quota", "64M", cwd=tmp_path / "app")
    assert done.returncode == 0, done.stderr
    found = [
        line for path in tmp_path.glob("app/found/*.jsonl") for line in path.read_text().split()
    ]
    assert sorted(map(int, found)) == list(range(100))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app"]


@pytest.mark.parametrize("target", ["sub/elsewhere.py", "sub/elsewhere.py:app"])
def test_a_program_may_change_the_folder_when_it_is_imported(tmp_path: Path, target: str) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "elsewhere.py").write_text(
        "import os\nos.chdir('/')\nfrom skerry import App, Entity, Generate\n"
        "class N(Entity):\n    n: int = 0\n    def see(self) -> None:\n        self.n += 1\n"
        "app = App('elsewhere', entities=[N])\n"
        "app.source(Generate(lambda p, at: at, count=5)).key_by(str).to(N.see)\n"
    )
    done = launcher("run", target, "--workers", "1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".skerry" / "elsewhere" / "app.json").exists()


def test_who_was_connected_meets_the_successor_though_a_fork_of_the_worker_lives_on(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    pool: list[int] = []
    try:
        with running(data, "--workers", "1", target=TARGET) as process:
            with skerry.Client(data) as client:
                pool = client.ask(Job.at("a").pool)
                worker = client.ask(Job.at("a").pid)
                os.kill(worker, signal.SIGKILL)
                assert client.ask(Job.at("a").pid) != worker
                assert all(psutil.pid_exists(child) for child in pool), "who would hold it"
            assert launcher("stop", "--data", str(data)).returncode == 0
            assert process.wait() == 0, "it was told to stop, and did"
    finally:
        for child in pool:
            os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_an_app_ends_it_as_one_to_the_launcher(
    tmp_path: Path, number: int
) -> None:
    data, said, begun = tmp_path / "data", tmp_path / "said", tmp_path / "begun"
    answers: list[int] = []
    with said.open("wb") as out:
        process = subprocess.Popen(
            [*CLI, "run", TARGET, "--data", str(data), "--workers", "1", "--serve"],
            cwd=ROOT,
            stderr=out,
            start_new_session=True,
            # A run of the tests may ignore it, as behind nohup, and the launcher would, too.
            preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),
        )
    while not (data / "run.json").exists():
        assert process.poll() is None, said.read_text()
    with skerry.Client(data) as client:
        client.ask(Job.at("a").add)
        asking = threading.Thread(
            target=lambda: answers.append(client.ask(Job.at("a").slow, 0.5, str(begun))),
            daemon=True,
        )
        asking.start()
        while not begun.exists():
            os.sched_yield()
        os.killpg(process.pid, number)
        assert process.wait(60) == 0
        asking.join(60)
    assert answers == [2], "the turn under way was committed, and its caller was told"
    assert "started again" not in said.read_text()


def test_no_worker_waits_at_its_end_for_a_thread_or_a_child_that_nobody_ends() -> None:
    program = (
        "import multiprocessing, signal, sys, threading\n"
        "from skerry.runtime.worker.process import end_soon\n"
        "child = multiprocessing.get_context('fork').Process(target=signal.pause)\n"
        "child.start()\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "print(child.pid, flush=True)\n"
        "end_soon(7)\n"
    )
    ended = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert ended.stdout is not None
    child = int(ended.stdout.readline())
    try:
        assert ended.wait(100) == 7
    finally:
        os.kill(child, signal.SIGKILL)
        ended.kill()
        ended.wait()
        ended.stdout.close()


def wakeups(process: psutil.Process) -> int:
    """How often its threads have woken so far."""
    threads = Path(f"/proc/{process.pid}/task").iterdir()
    lines = [line for each in threads for line in (each / "status").read_text().splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def test_an_idle_app_sleeps(tmp_path: Path) -> None:
    """Two wake-ups a second, for the supervisor and for each worker, once all has come to rest."""
    with (
        running(tmp_path / "data", target=TARGET) as process,
        skerry.Client(tmp_path / "data") as c,
    ):
        c.ask(Job.at("a").add)
        supervisor = psutil.Process(process.pid)
        processes = [supervisor, *supervisor.children()]
        assert len(processes) == 3
        counts: list[int] = []
        for _ in range(20):
            before = [wakeups(each) for each in processes]
            threading.Event().wait(2)
            counts = [wakeups(each) - begun for each, begun in zip(processes, before, strict=True)]
            if max(counts) <= 5:
                return
    raise AssertionError(f"wake-ups in two seconds: {counts}")


@pytest.fixture
def adopting(tmp_path: Path) -> Iterator[tuple[Path, psutil.Process]]:
    """An app whose launcher takes in what has lost its parent, as process 1 of a container does."""
    data = tmp_path / "data"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import ctypes, os, sys\n"
            "ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER\n"
            "os.execv(sys.argv[1], sys.argv[1:])",
            *CLI,
            *("run", TARGET, "--data", str(data), "--workers", "1"),
        ],
        cwd=ROOT,
    )
    while not (data / "run.json").exists():
        assert process.poll() is None
    yield data, psutil.Process(process.pid)
    process.terminate()
    assert process.wait(60) == 0


def test_what_a_handler_left_behind_is_reaped_where_nobody_else_does(
    adopting: tuple[Path, psutil.Process],
) -> None:
    data, launcher = adopting
    with skerry.Client(data) as client:
        for _ in range(5):
            orphan = client.ask(Job.at("a").orphan)
            while psutil.pid_exists(orphan):
                os.sched_yield()
        worker = client.ask(Job.at("a").pid)
        os.kill(worker, signal.SIGKILL)
        assert client.ask(Job.at("a").pid) != worker, "of its own workers it knows how they end"
    assert len(launcher.children()) == 1
