"""From a command to a first turn, and from `kill -9` to a first reply.

The ceiling of both is what no program of two processes in Python can do without: one
interpreter that loads the libraries starts another, which loads them too and says so.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import skerry
from benchmarks import apps, running, stored
from benchmarks.figures import ROOT, Allowed, Job, Sample
from skerry.runtime.client.connection import Connection

WORKERS = 2
LIBRARIES = "import sys, subprocess, pathlib, msgspec, lmdb, zmq, psutil, xxhash, cloudpickle"
INNER = f"{LIBRARIES}; pathlib.Path(sys.argv[1]).write_bytes(b'1')"
OUTER = f"{LIBRARIES}, typer; subprocess.run([sys.executable, '-c', sys.argv[1], sys.argv[2]])"


def until_heard(command: list[str], pipe: Path) -> tuple[float, subprocess.Popen[bytes]]:
    """Seconds from the start of a command until something is written to the pipe."""
    os.mkfifo(pipe)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    with open(pipe, "rb") as heard:  # Opens when the other end does.
        heard.read(1)
    return time.perf_counter() - start, process


def bare(folder: str) -> Allowed:
    """Two interpreters, one after the other."""
    pipe = Path(folder) / "pipe"
    command = [sys.executable, "-c", OUTER, INNER, str(pipe)]
    seconds, process = until_heard(command, pipe)
    process.wait()
    return {"s": seconds}


def start(folder: str) -> list[Sample]:
    """From `skerry run` to the first turn, in a new data directory."""
    pipe, data = Path(folder) / "pipe", f"{folder}/data"
    command = [sys.executable, "-m", "skerry.runtime.cli", "run", "benchmarks.first_turn_app:app"]
    command += ["--workers", str(WORKERS), "--data", data, "--", str(pipe)]
    seconds, process = until_heard(command, pipe)
    assert process.wait() == 0, "the app with one turn did not come to its end"
    stored.check("start_s", stored.total(data, "First", "turns"), 1)
    promise = f"from `skerry run` with {WORKERS} workers and no data to the first turn"
    return [Sample("start_s", seconds, "s", promise)]


def turns_so_far(data: Path) -> int:
    """What the workers of a running app have done."""

    async def ask() -> int:
        connection = await Connection.open(data)
        try:
            answers = [await connection.control(shard, "status") for shard in connection.shards]
            return sum(answer["turns"] for answer in answers)
        finally:
            await connection.close()

    return asyncio.run(ask())


def recovery(keys: int, folder: str) -> list[Sample]:
    """Kill an app at work on most of so many entities; from its next start to its first reply."""
    args = ["counter", str(keys), str(keys)]
    given = running.options(folder, "benchmarks.apps:app", args, "bench")
    data = Path(given.data)
    process = running.started(given)
    while turns_so_far(data) < keys:
        time.sleep(0.05)
    process.kill()
    process.wait()
    given = running.served(given, ["serve", "10", "0"])
    begun = time.perf_counter()
    process = running.started(given)
    with skerry.Client(data) as client:
        client.ask(apps.Account.at(apps.NAMES[0]).deposit, 1)
    seconds = time.perf_counter() - begun
    running.stop(process)
    names = (f"a{number:07d}" for number in range(keys))
    counted = stored.total(given.data, "Account", "balance", names)
    most = keys * apps.PARTITIONS + 1  # All items, and the request.
    assert keys <= counted <= most, f"recovery: {counted:,} counted of {keys:,} to {most:,}"
    promise = f"kill -9 at work on {keys:,} entities; from the next start to a first reply"
    return [Sample("recovery_s", seconds, "s", promise)]


def jobs(scale: float) -> list[Job]:
    """What can be measured here. `scale`: of the work in each."""
    keys = int(1e6 * scale)
    about = f"{keys:,} entities, killed at work"
    return [
        Job(("recovery_s",), partial(recovery, keys), bare, about),
        Job(("start_s",), start, bare, "an app of one turn"),
    ]
