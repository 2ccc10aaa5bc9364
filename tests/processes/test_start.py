"""What keeps an app from starting is said once, with its cause, and with what to do about it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from skerry import App, SkerryError
from tests.processes.started import CLI, launcher, limited

COUNTING = """
from skerry import App, Entity, Generate

class Hit(Entity):
    n: int = 0

    def add(self) -> None:
        self.n += 1

app = App("counting", entities=[Hit])
app.source(Generate(lambda p, n: n, partitions=1, count=3)).key_by(lambda n: "all").to(Hit.add)
"""
SKERRY = [str(Path(sys.executable).with_name("skerry"))]
"""As users start it: `python -m` would put the folder that it is in before the libraries."""


def run(cwd: Path, *args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The console script, to its end."""
    return subprocess.run(
        [*SKERRY, "run", *args],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def write(path: Path, text: str) -> Path:
    """A file, and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ("raise OSError(24, 'Too many open files')", "OSError: [Errno 24] Too many open files"),
        ("raise RecursionError('too deep')", "RecursionError: too deep"),
        ("import nowhere", "No module named 'nowhere'"),
        ("os._exit(7)", "worker 0 ended (exit code 7) before it served anybody"),
        ("os._exit(0)", "worker 0 ended (exit code 0) before it served anybody"),
        ("os.kill(os.getpid(), 11)", "worker 0 ended (killed by signal 11) before it served"),
    ],
)
def test_a_worker_that_can_t_start_is_started_once_and_names_its_cause(
    tmp_path: Path, worse: str, said: str
) -> None:
    write(
        tmp_path / "dying.py",
        f"import os, sys\nif 'worker' in sys.argv[0]:\n    print('tried')\n    {worse}\n{COUNTING}",
    )
    done = launcher("run", "dying.py", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("tried") == 1
    assert "Traceback" not in done.stderr


def test_what_no_sentence_was_made_for_is_in_the_log_with_its_place(tmp_path: Path) -> None:
    source = "if 'worker' in sys.argv[0]:\n    app.pipelines[0].source.partitions = lambda: 1 / 0\n"
    write(tmp_path / "odd.py", f"import sys\n{COUNTING}\n{source}")
    done = launcher("run", "odd.py", "--workers", "1", cwd=tmp_path)
    log = tmp_path / ".skerry/counting/logs/worker-0.log"
    assert done.returncode == 1
    assert "Worker 0 of" in done.stderr and "ZeroDivisionError" in done.stderr
    assert str(log) in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in log.read_text()


@pytest.mark.parametrize("name", ["queue", "logging", "calendar", "kafka", "msgspec", "typer"])
def test_files_that_lie_where_an_app_is_started_stand_in_nobody_s_way(
    tmp_path: Path, name: str
) -> None:
    app = write(tmp_path / "app" / "counting.py", COUNTING + "import calendar\ncalendar.weekday\n")
    here = tmp_path / "here"
    write(here / f"{name}.py", "jobs = []")
    done = run(here, str(app), "--workers", "1")
    assert done.returncode == 0, done.stderr


def test_workers_of_a_module_import_what_the_launcher_did(tmp_path: Path) -> None:
    for name in ("queue", "logging", "typer"):
        write(tmp_path / f"{name}.py", "raise SystemExit(3)")
    write(tmp_path / "colorsys.py", "mine = True")
    more = "import queue, logging, typer, colorsys\nqueue.Queue, logging.info, colorsys.mine\n"
    write(tmp_path / "counting.py", COUNTING + more)
    done = run(tmp_path, "counting:app", "--workers", "1")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "target", ["queue.py", "queue:app", "skerry.py", "skerry:app", "msgspec.py"]
)
def test_an_app_with_the_name_of_a_library_is_told_to_take_another(
    tmp_path: Path, target: str
) -> None:
    name = target.partition(":")[0].removesuffix(".py")
    write(tmp_path / f"{name}.py", COUNTING)
    done = run(tmp_path, target)
    assert done.returncode == 1
    assert f"`{name}`" in done.stderr and "Rename" in done.stderr
    assert not (tmp_path / ".skerry").exists()


def test_a_program_that_changes_its_directory_on_import_runs_where_it_was_started(
    tmp_path: Path,
) -> None:
    write(tmp_path / "sub/moving.py", "import os\nos.chdir('sub')\n" + COUNTING)
    done = launcher("run", "sub/moving.py", "--workers", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / ".skerry/counting/app.json").is_file()
    done = launcher("run", "sub/moving.py", "--data", "there", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "there/app.json").is_file()


@pytest.mark.parametrize("main", ["from .app import app\napp.run()\n", COUNTING + "app.run()\n"])
def test_a_package_s_main_needs_no_guard(tmp_path: Path, main: str) -> None:
    write(tmp_path / "pack/__init__.py", "")
    write(tmp_path / "pack/app.py", COUNTING)
    write(tmp_path / "pack/__main__.py", main)
    subprocess.run([sys.executable, "-m", "pack"], cwd=tmp_path, check=True, timeout=60)
    assert launcher("get", "Hit/all", cwd=tmp_path).stdout == '{"n": 3}\n'


def test_a_file_of_a_package_is_told_its_module_s_name(tmp_path: Path) -> None:
    write(tmp_path / "outer/__init__.py", "")
    write(tmp_path / "outer/inner/__init__.py", "")
    write(tmp_path / "outer/inner/app.py", "from . import other\n")
    done = run(tmp_path, "outer/inner/app.py:app")
    assert done.returncode == 1
    assert f"from {tmp_path}: `skerry run outer.inner.app`" in done.stderr


def test_run_in_a_thread_is_refused_with_the_other_way() -> None:
    caught: list[BaseException] = []

    def start() -> None:
        try:
            App("threaded").run()
        except SkerryError as error:
            caught.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0]) and "app.running()" in str(caught[0])


def test_a_limit_on_files_sizes_is_named_before_anything_is_lost(tmp_path: Path) -> None:
    write(tmp_path / "counting.py", COUNTING)
    done = subprocess.run(
        [*CLI, "run", "counting.py", "--workers", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=limited(resource.RLIMIT_FSIZE, 6144),
    )
    assert done.returncode == 1
    assert "6,144 bytes: raise `ulimit -f`" in done.stderr and "Traceback" not in done.stderr
    assert launcher("run", "counting.py", cwd=tmp_path).returncode == 0
