"""An app that is run by a program: a script, a module, a notebook."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import skerry
from skerry import SkerryError
from tests.processes.apps import Counter
from tests.processes.started import launcher, running

SCRIPT = """
from __future__ import annotations
import skerry
from skerry import App, Entity, Generate

STEP = 2

class Pair(skerry.Entity):
    values: list[tuple[int, int]] = []

    def add(self, n: int) -> None:
        self.values.append((n, n * STEP))

app = App("scripted", entities=[Pair])
app.source(Generate(lambda partition, at: at, partitions=1, count=3)).key_by(lambda n: "all").to(Pair.add)
RUN
"""
RUN = 'app.run(workers=2)\nprint("after")'
GUARDED = 'if __name__ == "__main__":\n    app.run(workers=2)\n    print("after")'
RUNNING = """
with app.running() as client:
    client.ask(Pair.at("some").add, 3)
    print(client.get(Pair.at("some")).values)
"""
ALL = '{"values": [[0, 0], [1, 2], [2, 4]]}\n'


@pytest.mark.parametrize("run", [RUN, GUARDED])
def test_a_script_runs_its_app_and_goes_on_behind(tmp_path: Path, run: str) -> None:
    (tmp_path / "scripted.py").write_text(SCRIPT.replace("RUN", run))
    done = subprocess.run(
        [sys.executable, "scripted.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "after\n"), done.stderr
    assert launcher("get", "Pair/all", cwd=tmp_path).stdout == ALL
    again = launcher("run", "scripted.py", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, ""), again.stderr
    assert launcher("get", "Pair/all", cwd=tmp_path).stdout == ALL


def test_an_app_of_an_imported_module_is_run_by_a_script_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "scripted.py").write_text(SCRIPT.replace("RUN", ""))
    (tmp_path / "lib" / "main.py").write_text("import scripted\nscripted.app.run(workers=1)\n")
    subprocess.run([sys.executable, "lib/main.py"], cwd=tmp_path, check=True, timeout=60)
    assert launcher("get", "Pair/all", cwd=tmp_path).stdout == ALL


def test_a_notebook_s_classes_travel_by_value(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-"],
        input=SCRIPT.replace("RUN", RUN),
        cwd=tmp_path,
        check=True,
        text=True,
        timeout=60,
    )
    assert launcher("get", "Pair/all", cwd=tmp_path).stdout == ALL


def test_a_module_that_runs_its_app_when_imported_is_told_how_not_to(tmp_path: Path) -> None:
    (tmp_path / "scripted.py").write_text(SCRIPT.replace("RUN", RUN))
    done = launcher("run", "scripted", cwd=tmp_path)
    assert (done.returncode, "if __name__ ==" in done.stderr) == (1, True)


REFUSED = """
from skerry import App, Entity, SkerryError
from skerry.sources import TextFiles

class Line(Entity):
    count: int = 0

    def seen(self) -> None:
        self.count += 1

app = App("refused", entities=[Line])
app.source(TextFiles("nowhere.txt")).key_by(str).to(Line.seen)
"""
OWN = """
class Own:
    def partitions(self):
        return 1 / 0

    def read(self, partition, after):
        yield 0, ""
"""
CATCHES = """
try:
    app.run(workers=1)
except SkerryError as error:
    print(type(error).__name__)
"""
CONSOLE = f"""
import code
console = code.InteractiveInterpreter()
console.runcode(compile({REFUSED + "app.run(workers=1)"!r}, "cell", "exec"))
print("next cell")
"""


def script(
    folder: Path, program: str, *options: str, how: str = "file", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run a program as a file, a module, an argument or a console's input."""
    (folder / "program.py").write_text(program)
    by = {"file": ["program.py"], "module": ["-m", "program"], "argument": ["-c", program]}
    return subprocess.run(
        [sys.executable, *options, *by.get(how, ["-i"])],
        input=program + "\n" if how == "typed" else "",
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("how", ["file", "module", "argument"])
def test_a_script_whose_app_is_refused_ends_with_a_sentence_and_no_traceback(
    tmp_path: Path, how: str
) -> None:
    done = script(tmp_path, REFUSED + "app.run(workers=1)\nprint('after')", how=how)
    as_launched = launcher("run", "program.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (as_launched.returncode, "") == (1, "")
    assert re.fullmatch(r"skerry: .*nowhere\.txt.*\n", done.stderr)
    assert done.stderr == as_launched.stderr


def test_a_program_that_catches_the_refusal_goes_on(tmp_path: Path) -> None:
    done = script(tmp_path, REFUSED + CATCHES)
    assert (done.returncode, done.stdout, done.stderr) == (0, "SkerryError\n", "")


def test_a_console_shows_the_refusal_as_any_error_and_goes_on(tmp_path: Path) -> None:
    done = script(tmp_path, CONSOLE)
    assert (done.returncode, done.stdout) == (0, "next cell\n")
    assert "Traceback" in done.stderr and "nowhere.txt" in done.stderr
    (tmp_path / "refused.py").write_text(REFUSED)
    lines = "from refused import app\napp.run(workers=1)\nprint('next line')"
    typed = script(tmp_path, lines, how="typed")
    assert typed.stdout == "next line\n"
    assert "Traceback" in typed.stderr and "nowhere.txt" in typed.stderr


def test_an_error_of_the_program_behind_its_app_keeps_its_traceback(tmp_path: Path) -> None:
    done = script(tmp_path, REFUSED + CATCHES + "raise SkerryError('mine')")
    assert (done.returncode, "Traceback" in done.stderr, "mine" in done.stderr) == (1, True, True)


def test_a_script_that_meets_its_app_running_ends_with_4(tmp_path: Path) -> None:
    with running(tmp_path / "data", target="tests.processes.apps", said=tmp_path / "said"):
        program = "import skerry\nskerry.App('apps').run(data='data')"
        done = script(tmp_path, program)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1), done.stderr
    assert "is in use by process" in done.stderr


def test_a_source_that_raises_is_told_by_the_user_s_own_lines(tmp_path: Path) -> None:
    program = REFUSED.replace("class Line", OWN + "\nclass Line").replace(
        'TextFiles("nowhere.txt")', "Own()"
    )
    (tmp_path / "program.py").write_text(program)
    done = launcher("run", "program.py", cwd=tmp_path)
    assert (done.returncode, "ZeroDivisionError" in done.stderr) == (1, True)
    files = re.findall(r'File "(.*)", line', done.stderr)
    assert files == [str(tmp_path / "program.py")], done.stderr


def test_a_number_of_workers_that_can_t_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    for workers in (0, -1, 513):
        with pytest.raises(
            SkerryError, match=f"an app has 1 to 512 workers on a host, not {workers}"
        ):
            skerry.App("many").run(workers=workers, data=tmp_path)


def test_a_free_threaded_interpreter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    with (
        pytest.raises(SkerryError, match="free-threaded"),
        skerry.App("unlocked").running(),
    ):
        pass


def test_an_app_lives_in_a_folder_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    """And so do its sockets, where the path is short enough for them."""
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    odd.mkdir()
    (tmp_path / "main.py").write_text(SCRIPT.replace("RUN", RUNNING))
    done = subprocess.run(
        [sys.executable, tmp_path / "main.py"],
        env=os.environ | {"TMPDIR": str(odd)},
        capture_output=True,
        timeout=60,
    )
    assert done.stdout == b"[(3, 6)]\n", done.stderr
    with running(odd / "data", said=tmp_path / "said"), skerry.Client(odd / "data") as client:
        assert client.ask(Counter.at("a").add) == 1
