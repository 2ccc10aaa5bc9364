"""Many seeds on all cores.

    python -m tests.simulation.campaign --seeds 2000

A failing seed prints its one-line reproduction; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import collections
import multiprocessing
import os
import sys
import time
import traceback

from tests.simulation import workload

Faults = collections.Counter[str]


def one(seed: int) -> tuple[int, Faults, str]:
    """(seed, faults by name, what failed)."""
    try:
        cluster = workload.run(seed)
    except Exception:
        return seed, collections.Counter(), traceback.format_exc(limit=-3)
    crashes = {"crashes": cluster.crashes, "packets lost": cluster.lost}
    return seed, cluster.points + Faults(crashes | {"packets repeated": cluster.repeated}), ""


def main() -> int:
    """0: every seed kept every promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    started, faults, failed = time.perf_counter(), Faults(), 0
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for seed, met, wrong in pool.imap_unordered(one, seeds, chunksize=4):
            faults += met
            if wrong:
                failed += 1
                print(f"python -m tests.simulation.campaign --first {seed} --seeds 1\n{wrong}")
    seconds = time.perf_counter() - started
    for name, count in sorted(faults.items()):
        print(f"{count:>10,}  {name}")
    rate = given.seeds / seconds
    print(f"{given.seeds} seeds in {seconds:.1f} s ({rate:.1f}/s), {failed} seeds failed")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
