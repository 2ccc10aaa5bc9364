"""What one caller waits: an ask, one at a time, beside a bare synced commit.

The caller asks again when it is answered, so this is the latency of an app that has nothing
else to do. What happens under load is measured by a schedule, see `load`.
"""

from __future__ import annotations

import statistics
import time
from functools import partial

import lmdb

import skerry
from benchmarks import apps, running, stored
from benchmarks.figures import Allowed, Job, Sample

WARM_REQUESTS = 100


def bare(folder: str) -> Allowed:
    """The median of a bare synced LMDB commit: what no durable reply can be faster than."""
    took = []
    with lmdb.open(f"{folder}/bare", map_size=1 << 26) as store:
        for number in range(300):
            start = time.perf_counter()
            with store.begin(write=True) as txn:
                txn.put(number.to_bytes(8, "big"), b"x" * 200)
            took.append((time.perf_counter() - start) * 1000)
    return {"ms": statistics.median(took)}


def asks(requests: int, folder: str) -> list[Sample]:
    """A client that asks one at a time."""
    given = running.options(folder, "benchmarks.apps:app", ["serve", "10000", "0"], "bench")
    given.finite = False
    process = running.started(given)
    took = []
    with skerry.Client(given.data) as client:
        for number in range(WARM_REQUESTS + requests):
            start = time.perf_counter()
            client.ask(apps.Account.at(f"k{number % 100}").deposit, 1)
            took.append((time.perf_counter() - start) * 1000)
    running.stop(process)
    counted = stored.total(given.data, "Account", "balance")
    stored.check("ask", counted, WARM_REQUESTS + requests)
    measured = sorted(took[WARM_REQUESTS:])
    print(f"ask: {WARM_REQUESTS} requests of warm-up, {sum(measured) / 1000:.1f} s measured")
    return [
        Sample("ask_p50_ms", measured[len(measured) // 2], "ms"),
        Sample("ask_p99_ms", measured[len(measured) * 99 // 100], "ms"),
    ]


def jobs(scale: float) -> list[Job]:
    """What can be measured here. `scale`: of the work in each."""
    requests = max(100, int(2000 * scale))
    about = f"{requests:,} requests, one at a time"
    return [Job(("ask_p50_ms", "ask_p99_ms"), partial(asks, requests), bare, about)]
