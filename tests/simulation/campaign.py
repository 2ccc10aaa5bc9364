"""Many seeds on all cores.

    python -m tests.simulation.campaign --seeds 2000

A failing seed prints its one-line reproduction; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback

from tests.simulation import workload


def one(seed: int) -> tuple[int, int, int, str]:
    """(seed, crashes, packets lost or repeated, what went wrong)."""
    try:
        cluster = workload.run(seed)
    except Exception:
        return seed, 0, 0, traceback.format_exc(limit=-3)
    return seed, cluster.crashes, cluster.lost + cluster.repeated, ""


def main() -> int:
    """0: every seed kept every promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    started, crashes, packets, failed = time.perf_counter(), 0, 0, 0
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        for seed, crashed, disturbed, wrong in pool.imap_unordered(one, seeds, chunksize=4):
            crashes, packets = crashes + crashed, packets + disturbed
            if wrong:
                failed += 1
                print(f"python -m tests.simulation.campaign --first {seed} --seeds 1\n{wrong}")
    seconds = time.perf_counter() - started
    print(
        f"{given.seeds} seeds in {seconds:.1f} s ({given.seeds / seconds:.1f}/s): {crashes} crashes, "
        f"{packets} packets lost or repeated, {failed} seeds failed"
    )
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
