"""Plants each bug in a copy of the package, and sees that a test or a seed finds it.

    python -m tests.mutants.plant [--seeds 60] [--only WORDS]

Prints a table; a bug that survives fails.
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

from tests.mutants.bugs import FAULT, Bug, all_bugs

ROOT = Path(__file__).parents[2]
LONGEST_S = 1800
"""What the suite may take when there is no bug, on a slow machine."""

SLOWER = 3
"""A bug that makes the core stand still is found by this: it takes so many times as long. One
that nothing finds takes the whole time, beside another, and must not be taken for one."""


class Finding(NamedTuple):
    """What became of a planted bug."""

    name: str
    caught: bool
    by: str
    seconds: float


def hunt(bug: Bug | None, seeds: int, longest_s: float = LONGEST_S) -> Finding:
    """Run the suite over the planted bug, or over none."""
    name, *place = ("no bug", "", "") if bug is None else (bug.name, bug.file, bug.room)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="skerry-mutant-") as folder:
        copy = Path(folder) / "skerry"
        shutil.copytree(ROOT / "api", copy)
        shutil.copytree(ROOT / "runtime", copy / "runtime")
        if bug is not None:
            bug.plant(copy / "runtime")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "tests.mutants.suite", str(seeds), *place],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
                capture_output=True,
                text=True,
                timeout=longest_s,
            )
        except subprocess.TimeoutExpired:
            return Finding(name, True, f"it stands still for {longest_s:.0f} s", longest_s)
        fault = Path(folder) / FAULT
        if fault.exists():
            raise RuntimeError(f"{name}: the planted code fails by itself:\n{fault.read_text()}")
    by = (done.stdout.strip() or done.stderr.strip()[-200:]).splitlines()[-1:]
    return Finding(name, done.returncode != 0, "".join(by), time.perf_counter() - started)


def main() -> int:
    """0: every bug was caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--only", default="", help="bugs with these words in their name")
    given = parser.parse_args()
    chosen = [bug for bug in all_bugs().values() if given.only in bug.name]
    longest_s: float = LONGEST_S
    if not given.only:
        control = hunt(None, given.seeds)
        if control.caught:
            print(f"the suite fails without any bug: {control.by}")
            return 1
        print(f"The suite takes {control.seconds:.0f} s without any bug.")
        longest_s = SLOWER * control.seconds
    survived = 0
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for found in pool.map(lambda bug: hunt(bug, given.seeds, longest_s), chosen):
            survived += not found.caught
            word = "caught" if found.caught else "SURVIVED"
            print(f"{word:8} {found.seconds:5.1f} s  {found.name}\n{'':17} {found.by}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} bugs caught")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
