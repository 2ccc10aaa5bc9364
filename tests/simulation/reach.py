"""Which lines and branches of the core are reached while things go wrong.

    make reach SEEDS=200

Runs seeds in one process, under coverage.
"""

from __future__ import annotations

import sys

from tests.simulation import workload


def main(seeds: int) -> None:
    """Run them; coverage takes notes."""
    for seed in range(seeds):
        workload.run(seed)


if __name__ == "__main__":
    main(int(sys.argv[1]))
