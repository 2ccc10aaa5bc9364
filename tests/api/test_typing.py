"""What checkers accept and refuse in a user's program, with the package as it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder laid out as a plain install is; checkers follow folders."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "api", site / "skerry")
    for program in PROGRAMS.glob("*.py"):
        shutil.copy(program, site)
    return site


def mypy(site: Path, program: str) -> set[int]:
    """Lines that mypy --strict refuses."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-incremental",
        "--config-file=",
        program,
    ]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True)
    return {int(line) for line in re.findall(rf"^{program}:(\d+): error", done.stdout, re.M)}


def pyright(site: Path, program: str) -> set[int]:
    """Lines that pyright refuses."""
    (site / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    # As in an editor, with the libraries that come with the package.
    with_libraries = ["--pythonpath", sys.executable]
    command = [sys.executable, "-m", "pyright", *with_libraries, "--outputjson", program]
    done = subprocess.run(command, cwd=site, capture_output=True, text=True)
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {one["range"]["start"]["line"] + 1 for one in found if one["severity"] == "error"}


def test_a_right_program_is_accepted_by_both_checkers(installed: Path) -> None:
    assert mypy(installed, "right.py") == set()
    assert pyright(installed, "right.py") == set()


def test_wrong_uses_are_refused_by_the_checkers(installed: Path) -> None:
    lines = (PROGRAMS / "wrong.py").read_text().splitlines()

    def marked(*marks: str) -> set[int]:
        return {n for n, line in enumerate(lines, 1) if line.partition("# ")[2] in marks}

    assert len(marked("wrong")) >= 40
    # Neither checker sees everything: each knows of one use that the other lets pass.
    by_mypy = marked("wrong", "wrong to mypy") - mypy(installed, "wrong.py")
    assert [lines[n - 1] for n in sorted(by_mypy)] == []
    by_pyright = marked("wrong", "wrong to pyright") - pyright(installed, "wrong.py")
    assert [lines[n - 1] for n in sorted(by_pyright)] == []
