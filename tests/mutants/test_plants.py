"""The planted bugs stand where they should; all of them are tried by `make mutants`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.plant import hunt, plant
from tests.mutants.rules import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_place_of_each_planted_bug_is_still_in_the_code(mutant: Mutant, tmp_path: Path) -> None:
    plant(mutant, tmp_path / "copy")


@pytest.mark.parametrize("mutant", MUTANTS[::9], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_caught(mutant: Mutant) -> None:
    assert hunt(mutant, seeds=60).caught
