"""What one caller waits: an ask, one at a time, beside a bare synced write.

The caller asks again when it is answered. So this is the latency of an app that has nothing else
to do; and, as `ask_busy`, of one that reads a source as fast as it can meanwhile. What happens
when many ask is measured by a schedule, see `load`.
"""

from __future__ import annotations

import os
import statistics
import time
from functools import partial

import skerry
from benchmarks import apps, running, stored
from benchmarks.figures import Allowed, Job, Sample

WARM_REQUESTS = 100
ENDLESS = "1000000000"
"""Items of each partition, more than can be read."""

WRITES, WRITE_BYTES = 300, 200
"""Of the bare ones: each about as large as the record of a request."""


def bare(folder: str) -> Allowed:
    """The median of a bare synced write over bytes that are there: no durable reply is faster."""
    took = []
    fd = os.open(f"{folder}/bare", os.O_RDWR | os.O_CREAT)
    os.pwrite(fd, bytes(WRITES * WRITE_BYTES), 0)
    os.fsync(fd)
    for number in range(WRITES):
        start = time.perf_counter()
        os.pwritev(fd, [b"x" * WRITE_BYTES], number * WRITE_BYTES, os.RWF_DSYNC)
        took.append((time.perf_counter() - start) * 1000)
    os.close(fd)
    return {"ms": statistics.median(took)}


def asks(name: str, requests: int, folder: str, *, busy: bool = False) -> list[Sample]:
    """A client that asks one at a time; `busy`: while a source is read."""
    what = ["counter", "10000", ENDLESS] if busy else ["serve", "10000", "0"]
    given = running.options(folder, "benchmarks.apps:app", what, "bench", serve=True)
    process = running.started(given)
    keys = [f"k{number}" for number in range(100)]
    took = []
    with skerry.Client(given.data) as client:
        for number in range(WARM_REQUESTS + requests):
            start = time.perf_counter()
            client.ask(apps.Account.at(keys[number % len(keys)]).deposit, 1)
            took.append((time.perf_counter() - start) * 1000)
    running.stop(process)
    counted = stored.total(given.data, "Account", "balance", keys)
    stored.check(name, counted, WARM_REQUESTS + requests)
    measured = sorted(took[WARM_REQUESTS:])
    print(f"{name}: {WARM_REQUESTS} requests of warm-up, {sum(measured) / 1000:.1f} s measured")
    return [
        Sample(f"{name}_p50_ms", measured[len(measured) // 2], "ms"),
        Sample(f"{name}_p99_ms", measured[len(measured) * 99 // 100], "ms"),
    ]


def jobs(scale: float) -> list[Job]:
    """What can be measured here. `scale`: of the work in each."""
    found = []
    for name, busy, full in (("ask", False, 2000), ("ask_busy", True, 500)):
        requests = max(100, int(full * scale))
        about = f"{requests:,} requests, one at a time" + ", beside a source" * busy
        once = partial(asks, name, requests, busy=busy)
        found.append(Job((f"{name}_p50_ms", f"{name}_p99_ms"), once, bare, about))
    return found
