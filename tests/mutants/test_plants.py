"""The planted bugs stand in for what the code has; all of them are tried by `make mutants`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.mutants import bugs
from tests.mutants.bugs import FAULT, Bug, all_bugs
from tests.mutants.plant import hunt

BUGS = list(all_bugs().values())


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_what_a_planted_bug_stands_in_for_is_still_in_the_code(bug: Bug) -> None:
    bug.check()


@pytest.mark.timeout(900)  # Some are found by what stands still.
@pytest.mark.parametrize("bug", BUGS[::48], ids=lambda bug: bug.name)
def test_a_planted_bug_is_caught(bug: Bug) -> None:
    assert hunt(bug, seeds=60).caught


def misnamed(original: Any) -> None:
    original.no_such_name()


def breaking(original: Any) -> None:
    json.loads(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("instead", "faulty"), [(misnamed, True), (breaking, False)])
def test_a_bug_that_fails_by_itself_is_told_apart_from_one_that_breaks_the_code(
    instead: Any, faulty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = SimpleNamespace(__file__=str(tmp_path / "skerry" / "__init__.py"))
    monkeypatch.setitem(sys.modules, "skerry", package)
    monkeypatch.setattr(bugs, "all_bugs", lambda: {"a bug": Bug("a bug", "", "", instead)})
    with pytest.raises((AttributeError, TypeError)):
        bugs._stand_in(len, "a bug")()
    assert (tmp_path / FAULT).exists() is faulty
