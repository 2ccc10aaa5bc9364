"""What looks for a planted bug: seeds of the simulation, then the tests of core and store.

    python -m tests.mutants.suite SEEDS

Says what found it in one line; the exit code is then 1. 0: nothing did.
"""

from __future__ import annotations

import contextlib
import io
import sys

import pytest
from hypothesis import Phase, settings

from tests.simulation import workload

QUICK = [f"tests/simulation/test_{name}.py" for name in ("packets", "traces", "watch", "verbs")]
TESTS = [*QUICK, "tests/store", "tests/simulation"]


def main(seeds: int) -> int:
    """The first thing that finds it."""
    for seed in range(seeds):
        try:
            workload.run(seed)
        except Exception as error:
            print(f"seed {seed}: {type(error).__name__}: {error}"[:200].replace("\n", " "))
            return 1
    settings.register_profile("hunt", phases=[Phase.explicit, Phase.generate])
    settings.load_profile("hunt")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestWarning"]
        failed = pytest.main([*quiet, "-k", "not survive", *TESTS])
    if failed:
        lines = said.getvalue().splitlines()
        print(next((line for line in lines if line.startswith("FAILED")), "".join(lines[-2:])))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
