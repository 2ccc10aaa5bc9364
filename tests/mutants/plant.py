"""Plants each bug in a copy of the code, and sees that something finds it.

    python -m tests.mutants.plant [--seeds 60] [--only WORDS]

Prints a table; a mutant that survives fails.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.mutants.rules import MUTANTS, Mutant

ROOT = Path(__file__).parents[2]
LONGEST_S = 1800
"""What the suite may take when there is no bug, on a slow machine."""

SLOWER = 3
"""A mutant that makes the core stand still is found by this: it takes so many times as long. One
that nothing finds takes the whole time, beside another, and must not be taken for one."""


class Finding(NamedTuple):
    """What became of a mutant."""

    mutant: Mutant
    caught: bool
    by: str
    seconds: float


def plant(mutant: Mutant, folder: Path) -> None:
    """A copy of the package with the bug in it. Raises ValueError when its place is gone."""
    shutil.copytree(ROOT / "api", folder / "skerry")
    shutil.copytree(ROOT / "runtime", folder / "skerry" / "runtime")
    path = folder / "skerry" / "runtime" / mutant.file
    code = path.read_text()
    if code.count(mutant.text) != 1:
        raise ValueError(
            f"{mutant.name}: its text stands {code.count(mutant.text)} times in {path}"
        )
    path.write_text(code.replace(mutant.text, mutant.instead))


def hunt(mutant: Mutant, seeds: int, longest_s: float = LONGEST_S) -> Finding:
    """Run the suite over the planted bug."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="skerry-mutant-") as folder:
        plant(mutant, Path(folder))
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "tests.mutants.suite",
                    str(seeds),
                    mutant.file,
                ],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
                capture_output=True,
                text=True,
                timeout=longest_s,
            )
        except subprocess.TimeoutExpired:
            return Finding(mutant, True, f"it stands still for {longest_s:.0f} s", longest_s)
    by = (done.stdout.strip() or done.stderr.strip()[-200:]).splitlines()[-1:]
    return Finding(mutant, done.returncode != 0, "".join(by), time.perf_counter() - started)


def main() -> int:
    """0: every mutant was caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--only", default="", help="mutants with these words in their name")
    given = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if given.only in mutant.name]
    control = hunt(MUTANTS[0]._replace(instead=MUTANTS[0].text), given.seeds)
    if control.caught:
        print(f"the suite fails without any bug: {control.by}")
        return 1
    print(f"The suite takes {control.seconds:.0f} s without any bug.")
    longest_s = SLOWER * control.seconds
    survived = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for finding in pool.map(lambda mutant: hunt(mutant, given.seeds, longest_s), chosen):
            survived += not finding.caught
            word = "caught" if finding.caught else "SURVIVED"
            print(f"{word:8} {finding.seconds:5.1f} s  {finding.mutant.name}\n{'':17} {finding.by}")
    print(f"{len(chosen) - survived} of {len(chosen)} mutants caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
