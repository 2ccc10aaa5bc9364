"""Many seeds on all cores.

    python -m tests.simulation.campaign --seeds 2000

With `--moves`, the number of workers changes in each seed while the app runs. With `--hosts`, the shards
live on hosts of a cluster.
A failing seed prints its one-line reproduction; the exit code is then 1. What the workload or a
checker does wrong itself is reported as such: exit code 2.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import multiprocessing
import os
import sys
import time
import traceback
from pathlib import Path

import msgspec

from skerry.runtime.simulator.cluster import Cluster
from skerry.testing import KINDS, Faults
from tests.simulation import workload
from tests.simulation.world import World, drawn

Met = collections.Counter[str]
TESTS = Path(__file__).parents[1]
OURS = "the workload or a checker raised, which is no finding:\n"


def ours(error: Exception) -> bool:
    """Whether an exception is a mistake of the workload or of a checker, and no finding.

    A broken promise is an AssertionError, or what the core itself raised.
    """
    last = traceback.extract_tb(error.__traceback__)[-1]
    return not isinstance(error, AssertionError) and Path(last.filename).is_relative_to(TESTS)


def one(seed: int, *, moves: bool = False, hosts: bool = False) -> tuple[int, Met, str]:
    """(seed, faults by name, what failed)."""
    try:
        cluster = workload.run(seed, world=drawn(seed, moves=moves, hosts=hosts))
    except Exception as error:
        said = traceback.format_exc(limit=-3)
        return seed, collections.Counter(), f"{OURS}{said}" if ours(error) else said
    crashes = {"crashes": cluster.crashes, "packets lost": cluster.network.lost}
    return seed, cluster.points + Met(crashes | {"packets repeated": cluster.network.repeated}), ""


def _fails(seed: int, faults: Faults, size: workload.Size, around: World) -> str:
    try:
        workload.run(seed, faults, size, world=around)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


def shrink(seed: int, picture: Path, *, moves: bool, hosts: bool) -> int:
    """Make a failing seed small: fewer kinds of faults, fewer messages; then draw it."""
    faults, size = Faults(), workload.Size()
    around = drawn(seed, moves=moves, hosts=hosts)
    found = _fails(seed, faults, size, around)
    if not found:
        print(f"seed {seed} keeps every promise: nothing to shrink")
        return 0
    for name in World._fields:
        calmer = around._replace(**{name: 0})
        if calmer != around and (smaller := _fails(seed, faults, size, calmer)):
            around, found = calmer, smaller
    for name in KINDS:
        fewer = msgspec.structs.replace(faults, **{name: 0})
        if smaller := _fails(seed, fewer, size, around):
            faults, found = fewer, smaller
    for name in ("steps", "roots", "senders"):
        for value in (0, 1, 2, 5, 10, 20):
            less = size._replace(**{name: value})
            if value < getattr(size, name) and (smaller := _fails(seed, faults, less, around)):
                size, found = less, smaller
                break
    print("from skerry.testing import Faults")
    print("from tests.simulation import workload\nfrom tests.simulation.world import World")
    print(f"workload.run({seed}, {faults}, workload.{size}, world={around})\n{found}")
    clusters: list[Cluster] = []

    def watch(cluster: Cluster) -> None:
        cluster.record()
        clusters.append(cluster)

    with contextlib.suppress(Exception):
        workload.run(seed, faults, size, watch, around)
    (cluster,) = clusters
    picture.write_text(cluster.picture(f"seed {seed}: {found[:150]}"))
    print(f"drawn in {picture}")
    return 1


def main() -> int:
    """0: every seed kept every promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--moves", action="store_true", help="slots move in each seed")
    parser.add_argument("--hosts", action="store_true", help="shards live on hosts in each seed")
    parser.add_argument("--shrink", type=int, metavar="SEED", help="make a failing seed small")
    parser.add_argument("--picture", type=Path, default=Path("seed.svg"))
    given = parser.parse_args()
    if given.seeds < 1 or given.first < 0:
        parser.error("--seeds is 1 or more, --first 0 or more")
    if given.shrink is not None:
        return shrink(given.shrink, given.picture, moves=given.moves, hosts=given.hosts)
    seeds = range(given.first, given.first + given.seeds)
    started, faults, failed, wrongs = time.perf_counter(), Met(), 0, 0
    with multiprocessing.get_context("spawn").Pool(len(os.sched_getaffinity(0))) as pool:
        run = functools.partial(one, moves=given.moves, hosts=given.hosts)
        for seed, met, wrong in pool.imap_unordered(run, seeds, chunksize=4):
            faults += met
            if wrong.startswith(OURS):
                wrongs += 1
                print(f"seed {seed}: {wrong}")
            elif wrong:
                failed += 1
                again = "--moves " * given.moves + "--hosts " * given.hosts
                print(f"python -m tests.simulation.campaign {again}--shrink {seed}\n{wrong}")
    seconds = time.perf_counter() - started
    for name, count in sorted(faults.items()):
        print(f"{count:>10,}  {name}")
    rate = given.seeds / seconds
    print(f"{given.seeds} seeds in {seconds:.1f} s ({rate:.1f}/s), {failed} seeds failed")
    if wrongs:
        print(f"in {wrongs} more the workload or a checker raised")
    return 1 if failed else 2 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
