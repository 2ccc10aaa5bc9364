"""Messages that harm: each harms itself only, others go on, nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import skerry
from skerry import Failed, message
from tests.processes.apps import Counter
from tests.processes.hosted import Job
from tests.processes.started import launcher, running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app that runs."""
    folder = tmp_path_factory.mktemp("poison") / "data"
    with running(folder):
        yield folder


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app whose handlers do to their process what they like."""
    folder = tmp_path_factory.mktemp("hosted") / "data"
    with running(folder, target="tests.processes.hosted"):
        yield folder


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        ("bomb", "MemoryError"),
        ("recurse", "RecursionError"),
        ("unencodable", "TypeError"),
        ("too_much", "its reply has 209,715,205 bytes"),
    ],
)
def test_a_message_that_can_t_be_handled_fails_alone(data: Path, handler: str, error: str) -> None:
    with skerry.Client(data) as client:
        poison = message(getattr(Counter.at("poison"), handler))
        asked = [message(Counter.at("poison").add), poison, message(Counter.at("poison").add)]
        before, failed, after = client.ask_many([*asked])
        assert isinstance(failed, Failed)
        assert error in str(failed)
        assert isinstance(before, int)
        assert after == before + 1, "what came behind it ran, and of the poison no trace is left"


def test_a_message_that_kills_its_worker_again_and_again_becomes_a_dead_letter(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with running(data), skerry.Client(data) as client:
        asked = [message(Counter.at(f"k{n}").add) for n in range(200)]
        answers = client.options(timeout=90).ask_many(
            [*asked[:100], message(Counter.at("a").crash), *asked[100:]]
        )
        assert isinstance(answers.pop(100), Failed)
        assert answers == [1] * 200
    letters = launcher("dead", "list", "--data", str(data)).stdout
    assert (letters.count("\n"), "Counter/a  crash" in letters) == (1, True)
    assert launcher("check", str(data)).returncode == 0


@pytest.mark.parametrize(
    ("handler", "args", "said"),
    [
        (Job.interrupt, (), "KeyboardInterrupt"),
        (Job.leave, (0,), "the handler ended its process with exit code 0, twice"),
        (Job.leave, (3,), "the handler ended its process with exit code 3, twice"),
        (Job.kill, (signal.SIGSEGV,), "the handler ended its process by signal SIGSEGV, twice"),
        (Job.kill, (signal.SIGKILL,), "by signal SIGKILL, again and again"),
    ],
)
def test_how_a_handler_ended_its_process_is_told_and_kept(
    hosted: Path, handler: Any, args: tuple[Any, ...], said: str
) -> None:
    name = f"a{uuid.uuid4()}"
    call = getattr(Job.at(name), handler.__name__)
    with skerry.Client(hosted) as client:
        asked = [message(Job.at(name).add), message(call, *args), message(Job.at(name).add)]
        before, failed, after = client.options(timeout=90).ask_many([*asked])
    assert isinstance(failed, Failed)
    assert said in str(failed)
    assert (before, after) == (1, 2)
    letters = launcher("dead", "list", "--data", str(hosted)).stdout.splitlines()
    assert [said in letter for letter in letters if name in letter] == [True]


def test_a_worker_that_is_stopped_by_somebody_is_waited_for(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, SKERRY_HANG="0.5") as process, skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
        workers = psutil.Process(process.pid).children()
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        said = data.with_name("data.said")
        while said.read_text().count("is stopped (SIGSTOP)") < 2:
            os.sched_yield()
        for worker in workers:
            worker.send_signal(signal.SIGCONT)
        assert client.ask(Counter.at("a").add) == 2
        assert psutil.Process(process.pid).children() == workers
    assert launcher("dead", "list", "--data", str(data)).stdout == ""


def memory(process: psutil.Process) -> int:
    """Bytes of a process and its workers."""
    return sum(p.memory_info().rss for p in [process, *process.children()])


def test_an_entity_that_writes_to_itself_for_ever_leaves_room_for_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as process, skerry.Client(data) as client:
        client.send(Counter.at("loop").echo)
        seen, before = 0, memory(psutil.Process(process.pid))
        for n in range(1, 60):
            assert client.ask(Counter.at(f"other-{n % 7}").add) >= 1
            newest = client.ask(Counter.at("loop").value)
            assert newest > seen, "it goes on, too"
            seen = newest
        assert memory(psutil.Process(process.pid)) < before + (200 << 20)


def test_very_many_timers_due_at_once_all_ring(data: Path) -> None:
    with skerry.Client(data) as client:
        for n in range(5):
            client.ask(Counter.at(f"timers-{n}").many_timers, 20_000)
        for n in range(5):
            while client.ask(Counter.at(f"timers-{n}").value) < 20_000:
                os.sched_yield()
            assert client.get(Counter.at(f"timers-{n}")).count == 20_000


def test_a_client_that_never_reads_holds_up_nobody(data: Path) -> None:
    """Its requests run and their outcomes wait, bounded; others are answered meanwhile."""

    async def deaf() -> list[int]:
        async with skerry.AsyncClient(data) as silent, skerry.AsyncClient(data) as other:
            # The requests leave at once; nobody ever looks at what comes back.
            unread = [
                asyncio.create_task(silent.ask(Counter.at(f"deaf-{n % 50}").add))
                for n in range(20_000)
            ]
            answers = [await other.ask(Counter.at("heard").add) for _ in range(100)]
            for task in unread:
                task.cancel()
            await asyncio.gather(*unread, return_exceptions=True)
            return answers

    answers = asyncio.run(deaf())
    assert answers == list(range(answers[0], answers[0] + 100))


def test_a_source_that_is_faster_than_the_turns_does_not_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "flood.py").write_text(
        "from skerry import App, Entity, Generate, send\n"
        "class Sink(Entity):\n    n: int = 0\n"
        "    def take(self, pad: str) -> None:\n        self.n += 1\n        sum(range(2000))\n"
        "class Fan(Entity):\n"
        "    def out(self, n: int) -> None:\n"
        "        for to in range(10):\n            send(Sink.at(f's{to}').take, 'x' * 200)\n"
        "app = App('flood', entities=[Sink, Fan])\n"
        "app.source(Generate(lambda p, n: n, partitions=2)).key_by(str).to(Fan.out)\n"
    )
    data = tmp_path / "data"
    with running(data, target="flood.py", cwd=tmp_path) as process:
        watched, most, turns = psutil.Process(process.pid), 0, 0
        while turns < 300_000:
            status = json.loads(launcher("status", "--json", "--data", str(data)).stdout)
            turns = sum(shard["turns"] for shard in status["shards"])
            most = max(most, memory(watched))
    assert most < 700 << 20, f"{most >> 20} MiB"
    assert launcher("check", str(data)).returncode == 0
