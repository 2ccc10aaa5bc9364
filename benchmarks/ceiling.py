"""What this machine allows: the least work that a durable keyed turn can cost in Python.

    python -m benchmarks.ceiling --keys 10000

Each process does, for messages in frames, only what nothing can leave out: decode the frame,
find the entity, call its handler, encode the new states, append one checksummed record to
LMDB, synced by a second thread while the next frame runs. No streams, acks, routing, timers
or recovery. Everything else is measured as a ratio to this, in the same run.

Each process has its share of the keys, and comes to each of them equally often, in random
order. All of its entities exist before the clock runs; with `--new` each turn makes one.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import queue
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable
from typing import Any

import lmdb
import msgspec
import xxhash

KEPT_RECORDS = 2000
DRAWN_MIN = 1 << 17
"""So many messages, or one for each key, come before the first of them comes again."""


class Account(msgspec.Struct, array_like=True):
    """The state of an entity."""

    balance: int = 0

    def deposit(self, amount: int) -> int:
        """The handler."""
        self.balance += amount
        return self.balance


def _commit(store: Any, log: Any, records: queue.Queue[bytes | None]) -> None:
    """Write and sync what waits, until told to stop."""
    number, open_ = 0, True
    while open_:
        batch = [records.get()]
        while not records.empty():
            batch.append(records.get())
        with store.begin(db=log, write=True) as txn:
            for record in batch:
                if record is None:
                    open_ = False
                    continue
                number += 1
                txn.put(number.to_bytes(8, "little"), record)
            if number > KEPT_RECORDS:
                txn.delete((number - KEPT_RECORDS).to_bytes(8, "little"))


def _frames(names: list[str], times: int, size: int, rng: random.Random) -> list[bytes]:
    """So many messages to each of these keys, in random order."""
    drawn = names * times
    rng.shuffle(drawn)
    encode = msgspec.msgpack.Encoder().encode
    return [
        encode([(0, key, 1) for key in drawn[place : place + size]])
        for place in range(0, len(drawn), size)
    ]


class Worker:
    """One process of the ceiling."""

    def __init__(self, folder: str) -> None:
        self._store = lmdb.open(folder, map_size=8 << 30, metasync=False, max_dbs=2)
        log = self._store.open_db(b"log", integerkey=True)
        self._records: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
        self._thread = threading.Thread(target=_commit, args=(self._store, log, self._records))
        self._thread.start()
        self._entities: dict[str, Account] = {}

    def run(self, frames: Iterable[bytes], until: float = math.inf) -> int:
        """Take these frames, or as many as there is time for; how many turns they were."""
        decode, encode = msgspec.msgpack.Decoder().decode, msgspec.msgpack.Encoder().encode
        entities, handlers, turns = self._entities, [Account.deposit], 0
        for frame in frames:
            dirty, messages = {}, decode(frame)
            for handler, key, amount in messages:
                entity = entities.get(key)
                if entity is None:
                    entity = entities[key] = Account()
                handlers[handler](entity, amount)
                dirty[key] = entity
            turns += len(messages)
            body = encode(dirty)
            self._records.put(xxhash.xxh3_64_digest(body) + body)
            if time.perf_counter() > until:
                break
        return turns

    def close(self) -> None:
        """Wait until all is synced."""
        self._records.put(None)
        self._thread.join()
        self._store.close()


def _work(
    names: list[str], folder: str, seconds: float, frame: int, new: bool, barrier: Any, results: Any
) -> None:
    times = 1 if new else -(-DRAWN_MIN // len(names))
    frames = _frames(names, times, frame, random.Random(names[0]))
    worker = Worker(folder)
    if not new:
        worker.run(frames)
    barrier.wait()
    start = time.perf_counter()
    turns = worker.run(frames if new else itertools.cycle(frames), start + seconds)
    worker.close()
    results.put(turns / (time.perf_counter() - start))


def measure(
    *,
    workers: int,
    keys: int,
    seconds: float = 3,
    frame: int = 1000,
    new: bool = False,
    folder: str | None = None,
) -> float:
    """Turns per second of so many processes, synced. `new`: of first turns, each of a new entity."""
    place = tempfile.mkdtemp(dir=folder)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    names = [f"a{number:07d}" for number in range(keys)]
    running = [
        context.Process(
            target=_work,
            args=(names[i::workers], f"{place}/{i}", seconds, frame, new, barrier, results),
        )
        for i in range(workers)
    ]
    for process in running:
        process.start()
    total = float(sum(results.get() for _ in running))
    for process in running:
        process.join()
    shutil.rmtree(place)
    return total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What this machine allows.")
    parser.add_argument("--keys", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--new", action="store_true", help="each turn makes its entity")
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    turns = measure(workers=cores, keys=given.keys, seconds=given.seconds, new=given.new)
    print(f"{turns:,.0f} turns/s")
