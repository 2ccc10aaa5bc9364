"""`skerry restart`: another release of a program takes over while its app serves, or is refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

import skerry
from skerry import Entity, message, query
from skerry.runtime.app import directory
from skerry.runtime.app.control import Line
from tests.processes.load import Load
from tests.processes.started import CLI, ROOT, await_start, launcher, running

KEYS = [f"k{n}" for n in range(40)]

PROGRAM = """
import os, sys
from pathlib import Path
from skerry import App, Entity, Generate, handler, query, send

class Counter(Entity):
    count: int = 0

    def add(self) -> int:
        self.count += 1
        return self.count

    def give(self, to: str) -> None:
        self.count -= 1
        send(Counter.at(to).TAKE)

    @handler(was="take")
    def TAKE(self) -> None:
        self.count += 1

    @query
    def release(self) -> int:
        return RELEASE

    @query
    def value(self) -> int:
        return self.count

app = App("counting", entities=[Counter])
"""


BONUS = """
class Counter(Counter, was="Counter"):
    def bonus(self) -> None:
        self.count += 1

app = App("counting", entities=[Counter])
"""


class Counter(Entity):
    """As callers know it, whatever its release."""

    count: int = 0

    def add(self) -> int: ...  # type: ignore[empty-body]

    def give(self, to: str) -> None: ...

    @query
    def release(self) -> int: ...  # type: ignore[empty-body]

    @query
    def value(self) -> int: ...  # type: ignore[empty-body]


def write(place: Path, release: int, more: str = "", *, bonus: bool = False) -> Path:
    """Write a release of the program. Each has another size, by which Python tells compiled files apart.

    `bonus`: entities give each other by a handler that the first release does not have.
    """
    text = PROGRAM.replace("RELEASE", str(release)).replace(
        "TAKE", "take" if release == 1 else "accept"
    )
    if bonus:
        text = text.replace("at(to).accept", "at(to).bonus")
        more = f"{BONUS}{more}"
    file = place / "counting.py"
    file.write_text(f"{text}{more}\n" + "#" * release + "\n")
    return file


@contextmanager
def serving(
    place: Path, *options: str, more: str = ""
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """An app of release 1 with a state for each key: its data, and its supervisor."""
    target = str(write(place, 1, more))
    with running(place / "data", *options, target=target) as supervisor:
        with skerry.Client(place / "data") as client:
            client.ask_many(message(Counter.at(key).add) for key in KEYS)
        yield place / "data", supervisor


def restart(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return launcher("restart", "--data", str(data), *options)


def releases(data: Path) -> set[Any]:
    """Which releases answer."""
    with skerry.Client(data) as client:
        return set(client.ask_many(message(Counter.at(key).release) for key in KEYS))


def pids(data: Path) -> list[int]:
    """The process of each worker."""
    shown = json.loads(launcher("status", "--json", "--data", str(data)).stdout)
    return [shard["pid"] for shard in shown["shards"]]


HELD = """
import time
if "worker" in sys.argv[0]:
    try:
        Path(__file__).with_name("first").touch(exist_ok=False)
    except FileExistsError:
        while not Path(__file__).with_name("go").exists():
            time.sleep(0.01)
"""
"""Only one worker can load the release, until there is a file `go`."""


def said_by(asking: subprocess.Popen[str]) -> str:
    """What a command that has ended complained of."""
    assert asking.stderr is not None
    return asking.stderr.read()


@contextmanager
def half_way(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A restart under way with a release that is held: the first of two workers is replaced."""
    with subprocess.Popen(
        [*CLI, "restart", "--data", str(data)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as asking:
        with Line(data, directory.running_app(data)) as line:
            while line.ask("status")["restart"]["replaced"] != 1:
                assert asking.poll() is None
        try:
            yield asking
        finally:
            asking.kill()


class Giving(Load):
    """Each request counts once, and what entities give each other, too."""

    gap_s = 0.0

    def round(self, client: skerry.Client) -> None:
        began_s = time.monotonic()
        client.ask_many(message(Counter.at(key).add) for key in KEYS)
        for key, other in zip(KEYS, reversed(KEYS)):
            client.send(Counter.at(key).give, other)
        self.gap_s = max(self.gap_s, time.monotonic() - began_s)


def test_workers_are_replaced_one_by_one_while_each_request_counts_once(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    with serving(tmp_path) as (data, _), Giving(data) as load:
        before = pids(data)
        write(tmp_path, 2)
        done = restart(data, "--json")
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        assert (told["workers"], told["replaced"]) == (2, 2)
        assert told["pause_s"] > 0
        assert not {*before}.intersection(pids(data))
        assert releases(data) == {2}
        load.more(2)
    record_property("longest_gap_s", load.gap_s)
    with running(data, target=str(tmp_path / "counting.py")), skerry.Client(data) as client:
        while sum(client.ask_many(message(Counter.at(key).value) for key in KEYS)) != len(KEYS) * (  # type: ignore[arg-type]
            load.rounds + 1
        ):
            os.sched_yield()
    shown = launcher("dead", "list", "--data", str(data), "--json")
    assert not shown.stdout.strip().strip("[]"), shown.stdout


NO_CLASS = "\nclass Other(Entity):\n    count: int = 0\napp = App('counting', entities=[Other])\n"
NO_FIT = (
    "\nclass Counter(Entity):\n    count: dict[str, int] = {}\n"
    "app = App('counting', entities=[Counter])\n"
)
RAISES = (
    "\nclass Counter(Entity):\n    total: str = ''\n    @classmethod\n"
    "    def _upgrade(cls, old):\n        return old['none']\n"
    "app = App('counting', entities=[Counter])\n"
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with serving(tmp_path_factory.mktemp("served")) as (data, _):
        yield data


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("syntax error(", "counting.py fails on import:\n"),
        ("raise ValueError('not today')", "ValueError: not today"),
        ("raise SystemExit", "fails on import"),
        ("os._exit(7)", "The process that tried the program ended (exit code 7)"),
        ("app = App('another', entities=[Counter])", "holds the app 'counting', not 'another'"),
        ("app = None", "It has none: make one"),
        (NO_CLASS, "has a stored state, and the program has no entity type Counter any more"),
        (NO_FIT, "does not fit its class: field `count`"),
        (RAISES, "can't be read: its class raises KeyError: 'none'"),
    ],
)
def test_a_release_that_could_not_go_on_is_refused_and_no_worker_ends(
    served: Path, more: str, said: str
) -> None:
    before = pids(served)
    write(served.parent, 2, more)
    done = restart(served)
    assert done.returncode == 1
    assert said in done.stderr, done.stderr
    assert "No worker was replaced" in done.stderr
    assert pids(served) == before
    assert releases(served) == {1}


RUNS = "\nif __name__ == '__main__':\n    app.run(workers=2, data=sys.argv[1])\n"


@pytest.mark.parametrize("started_as", ["file", "module", "script"])
def test_what_a_link_leads_to_now_is_the_new_release(tmp_path: Path, started_as: str) -> None:
    data, app, said = tmp_path / "data", tmp_path / "app", tmp_path / "said"
    for release in (1, 2):
        folder = tmp_path / f"release-{release}"
        folder.mkdir()
        write(folder, release, RUNS)
    app.symlink_to("release-1")
    command = {
        "file": [*CLI, "run", str(app / "counting.py"), "--workers", "2", "--data", str(data)],
        "module": [*CLI, "run", "counting:app", "--workers", "2", "--data", str(data)],
        "script": [sys.executable, "counting.py", str(data)],
    }[started_as]
    with said.open("wb") as file:
        supervisor = subprocess.Popen(
            command, cwd=app, env=os.environ | {"PWD": str(app)}, stderr=file
        )
    try:
        await_start(supervisor, data, said)
        assert releases(data) == {1}
        app.unlink()
        app.symlink_to("release-2")
        shutil.rmtree(tmp_path / "release-1")
        done = restart(data)
        assert done.returncode == 0, done.stderr
        assert releases(data) == {2}
    finally:
        supervisor.terminate()
        supervisor.wait()


def test_an_app_whose_folder_is_gone_serves_on_and_the_folder_is_named(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "folder"
    folder.mkdir()
    with running(data, target=str(write(tmp_path, 1)), cwd=folder):
        assert releases(data) == {1}
        folder.rmdir()
        done = restart(data)
        assert done.returncode == 1
        assert f"runs in the folder {folder}, which can't be entered: " in done.stderr
        assert releases(data) == {1}


def test_a_class_without_a_stored_state_may_go(tmp_path: Path) -> None:
    more = "\nclass Idle(Entity):\n    count: int = 0\napp = App('counting', entities=[Counter, Idle])\n"
    with serving(tmp_path, more=more) as (data, _):
        write(tmp_path, 2)
        done = restart(data)
        assert done.returncode == 0, done.stderr
        assert releases(data) == {2}


BROKEN = """
if "worker" in sys.argv[0] and Path(__file__).with_name("broken").exists():
    raise ValueError("only in workers")
"""


def test_a_release_that_no_worker_can_load_stops_none_and_comes_up_when_it_is_mended(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as (data, supervisor):
        before = pids(data)
        write(tmp_path, 2, BROKEN)
        (tmp_path / "broken").touch()
        done = restart(data)
        assert done.returncode == 1
        assert "Worker 0 can't load the program (exit code 5): 0 of 2 workers" in done.stderr
        assert pids(data) == before
        os.kill(before[0], signal.SIGKILL)
        said = tmp_path / "data.said"
        while "it is tried again in 5 s" not in said.read_text():
            assert supervisor.poll() is None, "the others serve on"
        with skerry.Client(data).options(timeout=60) as client:
            own = Counter.at(next(key for key in KEYS if shard_of(data, key) == 1))
            assert client.ask(own.release) == 1
            (tmp_path / "broken").unlink()
            done = restart(data)
            assert done.returncode == 0, done.stderr
            assert client.ask(own.release) == 2
        assert releases(data) == {2}


def shard_of(data: Path, key: str) -> int:
    from skerry.runtime.core.ownership import slot_of

    app = directory.load(data)
    assert app is not None
    return app.placement.slots[slot_of("Counter", key)]


FAILS = """
class Source:
    def partitions(self):
        return ["0"]

    def read(self, partition, after):
        if "worker" in sys.argv[0]:
            raise SkerryError("not like this")
        yield from ()

from skerry import SkerryError
app.source(Source()).key_by(str).to(Counter.add)
"""


def test_a_release_that_fails_once_it_serves_goes_no_further_and_the_others_serve_on(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, "--serve") as (data, supervisor):
        write(tmp_path, 2, FAILS)
        done = restart(data)
        assert done.returncode == 1
        assert "ended (exit code 5) with the new program: " in done.stderr, done.stderr
        said = tmp_path / "data.said"
        while said.read_text().count("it is tried again in 5 s") < 2:
            assert supervisor.poll() is None, "the others serve on"
        write(tmp_path, 3)
        while (done := restart(data)).returncode:
            assert "Worker" in done.stderr or "answer" in done.stderr
        assert releases(data) == {3}


def test_an_app_that_was_killed_half_way_runs_the_new_release_everywhere(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, supervisor):
        write(tmp_path, 2, HELD)
        with half_way(data) as asking:
            supervisor.kill()
            supervisor.wait()
            assert asking.wait() == 1
            assert "Traceback" not in said_by(asking)
    (tmp_path / "go").touch()
    with running(data, target=str(tmp_path / "counting.py")):
        assert releases(data) == {2}
        with skerry.Client(data) as client:
            assert client.ask_many(message(Counter.at(key).add) for key in KEYS) == [2] * len(KEYS)


def test_an_app_that_is_stopped_half_way_ends_in_order(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, supervisor):
        write(tmp_path, 2, HELD)
        with half_way(data) as asking:
            family = psutil.Process(supervisor.pid).children(recursive=True)
            supervisor.terminate()
            assert supervisor.wait() == 0
            assert asking.wait() == 1
            assert "ended meanwhile" in said_by(asking)
        psutil.wait_procs(family, timeout=10)
        assert not [process for process in family if process.is_running()]
    assert launcher("check", "--data", str(data)).returncode == 0


def test_workers_that_are_killed_half_way_are_started_with_the_new_release(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, _):
        write(tmp_path, 2, HELD)
        with half_way(data) as asking:
            for pid in pids(data):
                os.kill(pid, signal.SIGKILL)
            (tmp_path / "go").touch()
            assert asking.wait() == 0, said_by(asking)
        assert releases(data) == {2}


def test_a_next_worker_that_is_killed_while_it_loads_is_started_again(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, supervisor):
        before = pids(data)
        write(tmp_path, 2, HELD)
        (tmp_path / "first").touch()
        with subprocess.Popen([*CLI, "restart", "--data", str(data)], cwd=ROOT) as asking:
            for _ in range(2):
                while not (found := next_workers(supervisor.pid, before)):
                    assert asking.poll() is None
                found[0].kill()
            (tmp_path / "go").touch()
            assert asking.wait() == 0
        assert releases(data) == {2}


def next_workers(supervisor: int, known: list[int]) -> list[psutil.Process]:
    """Workers that load a release, beside those that serve."""
    found = started(supervisor, "skerry.runtime.worker.process")
    return [process for process in found if process.pid not in known]


def started(supervisor: int, module: str) -> list[psutil.Process]:
    """Processes of a supervisor that run this module."""
    found = []
    for process in psutil.Process(supervisor).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if module in process.cmdline():
                found.append(process)
    return found


def test_what_a_worker_of_the_old_release_does_not_know_can_be_retried_when_it_is_replaced(
    tmp_path: Path,
) -> None:
    with serving(tmp_path) as (data, _):
        write(tmp_path, 2, HELD, bonus=True)
        with half_way(data) as asking, skerry.Client(data) as client:
            new, old = (
                next(key for key in KEYS if shard_of(data, key) == shard) for shard in (0, 1)
            )
            client.send(Counter.at(old).give, new)
            client.send(Counter.at(new).give, old)
            while not (letters := launcher("dead", "list", "--data", str(data)).stdout):
                assert asking.poll() is None
            assert "one that has it can retry this message" in letters
            (tmp_path / "go").touch()
            assert asking.wait() == 0, said_by(asking)
            assert launcher("dead", "retry", "--all", "--data", str(data)).returncode == 0
            while client.ask(Counter.at(old).value) != 1 or client.ask(Counter.at(new).value) != 1:
                os.sched_yield()


def test_one_change_of_the_workers_runs_at_a_time(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, _):
        write(tmp_path, 2, HELD)
        with half_way(data) as asking:
            assert releases(data) == {1, 2}
            for command in (["restart"], ["scale", "3"], ["backup", str(tmp_path / "backup")]):
                other = launcher(*command, "--data", str(data))
                assert other.returncode == 1
                assert "The app's workers are being replaced: 1 of 2 are" in other.stderr
            (tmp_path / "go").touch()
            assert asking.wait() == 0, said_by(asking)


def test_a_backup_that_is_being_made_is_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, supervisor):
        before = pids(data)
        write(tmp_path, 2)
        with Line(data, directory.running_app(data)) as line:
            line.ask("hold")  # As a backup does every now and then.
            with subprocess.Popen([*CLI, "restart", "--data", str(data)], cwd=ROOT) as asking:
                while not (trial := started(supervisor.pid, "skerry.runtime.app.release")):
                    assert asking.poll() is None
                while trial[0].is_running() and trial[0].status() != psutil.STATUS_ZOMBIE:
                    line.ask("hold")
                assert line.ask("status")["restart"]["waits"] == "for a backup"
                assert pids(data) == before
                assert asking.wait() == 0
        assert releases(data) == {2}


ENDS = """
class Ends:
    def partitions(self):
        return ["0"]

    def read(self, partition, after):
        while not Path(__file__).with_name("over").exists():
            yield (after or 0) + 1, "k0"

app.source(Ends()).key_by(str).to(Counter.add)
"""


def test_an_app_that_comes_to_its_end_half_way_ends_as_usual(tmp_path: Path) -> None:
    with serving(tmp_path, more=ENDS) as (data, supervisor):
        write(tmp_path, 2, ENDS + HELD)
        with half_way(data) as asking:
            (tmp_path / "over").touch()
            assert supervisor.wait() == 0
            assert asking.wait() == 1
            assert "ended meanwhile" in said_by(asking)


SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from skerry import App, Entity
import counting
with counting.app.running() as client:
    print(client.ask(counting.Counter.at("a").release), flush=True)
    Path("counting.py").write_text(Path("later.py").read_text())
    data = next(Path(os.environ["TMPDIR"]).glob("skerry-data-*"))
    subprocess.run([sys.executable, "-m", "skerry.runtime.cli", "restart", "--data", data], check=True)
    print(client.ask(counting.Counter.at("a").release), flush=True)
"""


def hosted(place: Path) -> subprocess.CompletedProcess[str]:
    """Run the program `host.py`, which runs an app of its own."""
    return subprocess.run(
        [sys.executable, "host.py"],
        cwd=place,
        env=os.environ | {"TMPDIR": str(place)},
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_an_app_of_a_context_is_restarted_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(write(tmp_path, 2).read_text())
    write(tmp_path, 1)
    (tmp_path / "host.py").write_text(SCRIPT)
    done = hosted(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "1" and done.stdout.splitlines()[-1] == "2"


def test_an_app_that_no_file_has_is_not_restarted(tmp_path: Path) -> None:
    (tmp_path / "host.py").write_text(
        "import os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from skerry import App\n"
        "with App('inside').running() as client:\n"
        "    data = next(Path(os.environ['TMPDIR']).glob('skerry-data-*'))\n"
        "    cli = [sys.executable, '-m', 'skerry.runtime.cli', 'restart', '--data', data]\n"
        "    sys.exit(subprocess.run(cli).returncode)\n"
    )
    done = hosted(tmp_path)
    assert done.returncode == 1
    assert "was handed over by the program that runs it" in done.stderr, done.stderr


def test_an_app_that_does_not_run_is_named(tmp_path: Path) -> None:
    with serving(tmp_path) as (data, _):
        pass
    done = restart(data)
    assert done.returncode == 1
    assert f"No app runs in {data}" in done.stderr
