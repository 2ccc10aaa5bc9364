"""The bill per message as shards are added: processor time per turn, and turns per second.

More shards than cores cannot be faster. What is asked here is whether they cost more: whether
something grows with the number of shards that a message pays for. Processor time tells, since
it is the workers' own, however they share the cores.

One shard sends nothing to others, of n shards all but one message in n travel: so the step
from 1 to 2 is the price of the way between shards, and is paid once.

Two things are told apart beside that. Keys: with few, no table of them is larger than the caches
of a core. And processes: as many apps of one shard each, side by side, share the cores, and
nothing travels between them.
"""

from __future__ import annotations

import multiprocessing
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from benchmarks.figures import Job, Sample
from benchmarks.throughput import bare, counter

SHARDS = (1, 2, 4, 8, 16)
PARTITIONS = 16
ITEMS = 375_000
"""Of each partition."""

KEYS = 10_000
FEW_KEYS = 640


def cost(shards: int, count: int, folder: str) -> list[Sample]:
    """The keyed counter on so many shards."""
    name = f"cost_per_turn_us_{shards}"
    run = counter(name, PARTITIONS, KEYS, count, folder, workers=shards)
    return [
        Sample(name, run.cpu_us_per_turn, "CPU-us/turn"),
        Sample(f"shards_{shards}", run.rate, "turns/s"),
    ]


def few_keys(shards: int, count: int, folder: str) -> list[Sample]:
    """The same with keys that fit the caches of a core, however many shards know all of them."""
    name = f"few_keys_us_{shards}"
    run = counter(name, PARTITIONS, FEW_KEYS, count, folder, workers=shards)
    return [Sample(name, run.cpu_us_per_turn, "CPU-us/turn")]


def apart(apps: int, keys: int, name: str, count: int, folder: str) -> list[Sample]:
    """The same items, dealt out to apps of one shard each, with so many keys each."""
    spawn = multiprocessing.get_context("spawn")
    alone = partial(_alone, f"{name}_{apps}", PARTITIONS // apps, keys, count)
    with ProcessPoolExecutor(apps, mp_context=spawn) as pool:
        costs = list(pool.map(alone, [f"{folder}/{number}" for number in range(apps)]))
    return [Sample(f"{name}_{apps}", statistics.mean(costs), "CPU-us/turn")]


def _alone(name: str, partitions: int, keys: int, count: int, folder: str) -> float:
    return counter(name, partitions, keys, count, folder, workers=1).cpu_us_per_turn


def jobs(scale: float) -> list[Job]:
    """What can be measured here. `scale`: of the work in each."""
    count = int(ITEMS * scale)
    about = f"{PARTITIONS * count:,} items to {KEYS:,} keys"
    return [
        Job(
            (f"cost_per_turn_us_{shards}", f"shards_{shards}"),
            partial(cost, shards, count),
            partial(bare, KEYS),
            about,
        )
        for shards in SHARDS
    ]


def further(scale: float) -> list[Job]:
    """What the rise is made of: by name only."""
    count = int(ITEMS * scale)
    few = [
        Job(
            (f"few_keys_us_{shards}",),
            partial(few_keys, shards, count),
            partial(bare, FEW_KEYS),
            f"{PARTITIONS * count:,} items to {FEW_KEYS:,} keys",
        )
        for shards in SHARDS
    ]
    return few + [
        Job(
            (f"{name}_{apps}",),
            partial(apart, apps, keys, name, count),
            None,
            f"{PARTITIONS * count:,} items to {apps} apps of one shard, {keys:,} keys each",
        )
        for apps in (2, 16)
        for name, keys in (("apart_us", KEYS), ("apart_dealt_us", KEYS // apps))
    ]
