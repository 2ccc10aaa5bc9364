"""An app that is run by a program: a script, a module, a notebook."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.started import launcher

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
