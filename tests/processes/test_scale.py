"""`skerry scale`: workers come and go while an app serves, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

import skerry
from skerry import message
from skerry.entity_type import STATE_BYTES_MAX
from skerry.runtime.app import directory, room
from skerry.runtime.app.control import Line
from skerry.runtime.core.events import SLOTS
from skerry.runtime.core.ownership import slot_of
from tests.processes.apps import Blob, Counter
from tests.processes.load import Load
from tests.processes.started import CLI, ROOT, interruptible, launcher, running
from tests.processes.test_storage import small_disk

KEYS = 300


class Adding(Load):
    """Each request counts once, whatever becomes of the workers."""

    wrong = 0

    def round(self, client: skerry.Client) -> None:
        answers = client.ask_many(message(Counter.at(f"k{n}").add) for n in range(KEYS))
        self.wrong += answers != [self.rounds + 1] * KEYS


def scale(data: Path, workers: object, *options: str) -> subprocess.CompletedProcess[str]:
    return launcher("scale", str(workers), "--data", str(data), *options)


def members(data: Path) -> list[int]:
    app = directory.load(data)
    assert app is not None
    return app.placement.members


def version_of(data: Path) -> int:
    app = directory.load(data)
    assert app is not None
    return app.placement.version


def test_workers_come_and_go_while_each_request_counts_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1"), Adding(data) as load:
        for workers in (2, 4, 1, 2):
            done = scale(data, workers, "--json")
            assert done.returncode == 0, done.stderr
            told = json.loads(done.stdout)
            assert told["workers"] == workers
            assert told["slots"] > 0 and told["bytes"] > 0 and told["pause_s"] > 0
            assert len(members(data)) == workers
            load.more(2)  # It goes on, on the workers that there are now.
    assert load.wrong == 0
    assert members(data) == [0, 4], "an id is never used again"
    stores = sorted(path.name for path in data.glob("shard-*"))
    assert stores == ["shard-0", "shard-4"], "stores of shards that left are gone"
    assert launcher("check", "--data", str(data)).returncode == 0
    with running(data, "--workers", "2"), skerry.Client(data) as client:
        assert client.ask(Counter.at("k7").value) == load.rounds


def test_the_largest_entity_moves_like_any_other(tmp_path: Path) -> None:
    data, size = tmp_path / "data", STATE_BYTES_MAX - 1000
    large = next(key for key in map(str, range(99)) if slot_of("Blob", key) < SLOTS // 2)
    with running(data, "--workers", "1"), skerry.Client(data) as client:
        client.ask(Blob.at(large).fill, size)
        done = scale(data, 2, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["bytes"] > size, "it is among what has moved"
        assert len(client.get(Blob.at(large)).data) == size


def await_stuck(data: Path) -> None:
    """Wait until a handler runs for long."""
    with Line(data, directory.running_app(data)) as line:
        while not line.ask("status")["stuck"]:
            os.sched_yield()


def test_a_handler_that_never_returns_is_named_and_ended_and_its_slot_moves(tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    key = next(key for key in map(str, range(9999)) if slot_of("Counter", key) < 8)
    with running(data, "--workers", "1", "--hang", "3", said=said), skerry.Client(data) as client:
        assert client.ask(Counter.at(key).add) == 1
        ask = [*CLI, "ask", f"Counter/{key}", "hang", "--data", str(data)]
        with subprocess.Popen(ask, cwd=ROOT, stderr=subprocess.DEVNULL):
            await_stuck(data)
            shown = launcher("status", "--data", str(data)).stdout
            assert f"shard 0 answers nobody: Counter/{key} hang has run for " in shown
            done = scale(data, 2)
            assert done.returncode == 0, done.stderr
            assert len(members(data)) == 2
            assert client.ask(Counter.at(key).add) == 2
        assert f" has not moved for 3 s: Counter/{key} hang does not return." in said.read_text()
        assert launcher("status", "--data", str(data)).stdout.count("answers nobody") == 0


def cores_of(supervisor: int) -> list[set[int]]:
    """Where each worker may run, whichever of its threads."""
    return [
        {
            core
            for thread in Path(f"/proc/{worker.pid}/task").iterdir()
            for core in os.sched_getaffinity(int(thread.name))
        }
        for worker in psutil.Process(supervisor).children()
    ]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_workers_keep_to_a_core_each_only_while_there_are_as_many_whoever_comes_and_goes(
    tmp_path: Path,
) -> None:
    data, cores = tmp_path / "data", os.sched_getaffinity(0)
    with running(data, "--workers", str(len(cores))) as supervisor, skerry.Client(data) as client:
        client.ask(Counter.at("a").add)  # It has all its threads.
        while sorted(map(sorted, cores_of(supervisor.pid))) != [[core] for core in sorted(cores)]:
            os.sched_yield()
        for workers in (len(cores) + 1, len(cores) - 1):
            assert scale(data, workers).returncode == 0
            while cores_of(supervisor.pid) != [cores] * workers:
                os.sched_yield()
        assert scale(data, len(cores)).returncode == 0
        while sorted(map(sorted, cores_of(supervisor.pid))) != [[core] for core in sorted(cores)]:
            os.sched_yield()


def test_a_start_with_another_number_of_workers_moves_slots_while_the_app_serves(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1"), skerry.Client(data) as client:
        client.ask_many(message(Counter.at(f"k{n}").add) for n in range(KEYS))
    with running(data, "--workers", "3"), skerry.Client(data) as client:
        while len(members(data)) < 3 or directory.load(data).goal:  # type: ignore[union-attr]
            answers = client.ask_many(message(Counter.at(f"k{n}").value) for n in range(KEYS))
            assert answers == [1] * KEYS
    assert launcher("check", "--data", str(data)).returncode == 0


@pytest.mark.parametrize("version", [1, 2, 9, 20])
def test_a_change_that_a_kill_of_all_cut_short_goes_on_with_the_next_start(
    tmp_path: Path, version: int
) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1") as supervisor:
        with skerry.Client(data) as client:
            client.ask_many(message(Counter.at(f"k{n}").add) for n in range(KEYS))
        asking = subprocess.Popen([*CLI, "scale", "3", "--data", str(data)], cwd=ROOT)
        while not directory.load(data).goal or version_of(data) < version:  # type: ignore[union-attr]
            os.sched_yield()
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        asking.wait()
    cut = directory.load(data)
    assert cut is not None
    wanted = len(cut.goal or cut.placement.members)
    with running(data, "--workers", str(wanted)), skerry.Client(data) as client:
        answers = client.ask_many(message(Counter.at(f"k{n}").add) for n in range(KEYS))
        assert answers == [2] * KEYS
        while directory.load(data).goal:  # type: ignore[union-attr]
            os.sched_yield()
    assert len(members(data)) == wanted


def test_a_start_with_as_many_workers_as_there_are_takes_back_a_change_that_was_cut_short(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "2") as supervisor:
        with skerry.Client(data) as client:
            client.ask_many(message(Counter.at(f"k{n}").add) for n in range(KEYS))
        asking = subprocess.Popen([*CLI, "scale", "1", "--data", str(data)], cwd=ROOT)
        while version_of(data) < 8:
            os.sched_yield()
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        asking.wait()
    assert members(data) == [0, 1], "it was cut short"
    with running(data, "--workers", "2"), skerry.Client(data) as client:
        answers = client.ask_many(message(Counter.at(f"k{n}").add) for n in range(KEYS))
        assert answers == [2] * KEYS
        while directory.load(data).goal:  # type: ignore[union-attr]
            os.sched_yield()
        slots = directory.load(data).placement.slots  # type: ignore[union-attr]
        assert slots.count(0) == slots.count(1)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ("0", "an app has 1 to 512 workers on a host, not 0"),
        ("-1", "an app has 1 to 512 workers on a host, not -1"),
        ("513", "an app has 1 to 512 workers on a host, not 513"),
        (str(10**30), "an app has 1 to 512 workers on a host, not 1000"),
        ("1.5", "Invalid value for 'workers'"),
        ("many", "Invalid value for 'workers'"),
    ],
)
def test_a_number_of_workers_that_cannot_be_is_refused_and_the_app_serves_on(
    tmp_path: Path, workers: str, said: str
) -> None:
    data = tmp_path / "data"
    with running(data), skerry.Client(data) as client:
        done = scale(data, workers)
        assert done.returncode != 0 and said in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert client.ask(Counter.at("a").add) == 1


@pytest.mark.parametrize("command", [("scale", "3"), ("restart",)])
def test_an_app_that_is_stopping_begins_no_change_and_says_so(
    tmp_path: Path, command: tuple[str, ...]
) -> None:
    data = tmp_path / "data"
    with running(data) as supervisor, skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
        wait = [*CLI, "ask", "Counter/a", "wait", "5", "--data", str(data)]
        with subprocess.Popen(wait, cwd=ROOT, stderr=subprocess.DEVNULL) as waiting:
            await_stuck(data)
            supervisor.terminate()
            said = data.with_name("data.said")
            while "stopping" not in said.read_text():
                os.sched_yield()
            done = launcher(*command, "--data", str(data))
            assert (done.returncode, supervisor.poll()) == (1, None)
            assert "The app is stopping. Ask again when it has been started." in done.stderr
            waiting.kill()
    app = directory.load(data)
    assert app is not None and not app.goal


def test_a_command_that_is_interrupted_says_that_the_change_goes_on(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1"):
        asking = subprocess.Popen(
            [*CLI, "scale", "4", "--data", str(data)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
        )
        while version_of(data) < 4:
            os.sched_yield()
        asking.send_signal(signal.SIGINT)
        assert "It goes on with the app, without this command." in asking.communicate()[1]
        assert asking.returncode == 130
        while len(members(data)) < 4 or directory.load(data).goal:  # type: ignore[union-attr]
            os.sched_yield()


def test_an_app_that_does_not_run_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        pass
    done = scale(data, 2)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"No app runs in {data}" in done.stderr


def test_a_change_that_begins_while_another_is_under_way_is_refused_by_name(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "1"):
        first = subprocess.Popen([*CLI, "scale", "4", "--data", str(data)], cwd=ROOT)
        while not (directory.load(data).goal or first.poll() is not None):  # type: ignore[union-attr]
            os.sched_yield()
        second = scale(data, 2)
        assert first.wait() == 0
        if second.returncode:  # Else the first had come to its end already.
            assert "The app is changing to 4 workers" in second.stderr


def test_as_many_workers_as_there_are_is_done_at_once(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--workers", "2"):
        done = scale(data, 2, "--json")
        assert json.loads(done.stdout)["slots"] == 0


def test_a_change_that_the_disk_has_no_room_for_is_refused_or_waits_and_the_app_serves_on(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "96M"):
        data, ballast = tmp_path / "disk" / "data", tmp_path / "disk" / "ballast"
        with (
            running(data, "--workers", "1", target="tests.processes.apps"),
            skerry.Client(data) as client,
        ):
            for n in range(80):
                client.ask(Blob.at(f"b{n}").fill, 100_000)
            ballast.write_bytes(bytes(shutil.disk_usage(data).free - (12 << 20)))
            done = scale(data, 2)
            assert done.returncode == 1 and members(data) == [0]
            assert "Nothing was changed: the rows of 512 slots" in done.stderr
            assert f"the disk that holds {data} has" in done.stderr
            assert room.lacking(data, [0], 1)
            assert not room.lacking(data, [0], 0), "what is copied already can be handed over"
            assert client.ask(Counter.at("a").add) == 1
        said = tmp_path / "said"
        with running(data, "--workers", "2", said=said), skerry.Client(data) as client:
            while "waiting for room on the disk" not in said.read_text():
                assert client.ask(Counter.at("a").value) == 1
            ballast.unlink()
            while members(data) != [0, 1] or directory.load(data).goal:  # type: ignore[union-attr]
                assert client.ask(Counter.at("a").value) == 1
            assert {key for key, _ in client.scan(Blob)} == {f"b{n}" for n in range(80)}
