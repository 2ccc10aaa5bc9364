"""What this machine allows: the least work that a durable keyed turn can cost in Python.

    python -m benchmarks.ceiling --keys 10000

Each process does, for messages in frames, only what nothing can leave out: decode the frame,
find the entity, call its handler, encode the new states, append one checksummed record to
LMDB, synced by a second thread while the next frame runs. No streams, acks, routing, timers
or recovery. Everything else is measured as a ratio to this, in the same run.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import random
import shutil
import tempfile
import threading
import time
from typing import Any

import lmdb
import msgspec
import xxhash

KEPT_RECORDS = 2000


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


def _work(
    index: int, folder: str, seconds: float, keys: int, frame: int, barrier: Any, results: Any
) -> None:
    rng = random.Random(index)
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder()
    names = [f"a{i:07d}" for i in range(keys)]
    frames = [
        encoder.encode([(0, names[rng.randrange(keys)], 1) for _ in range(frame)])
        for _ in range(200)
    ]
    store = lmdb.open(f"{folder}/{index}", map_size=8 << 30, metasync=False, max_dbs=2)
    log = store.open_db(b"log", integerkey=True)
    records: queue.Queue[bytes | None] = queue.Queue(maxsize=64)
    thread = threading.Thread(target=_commit, args=(store, log, records))
    thread.start()
    entities: dict[str, Account] = {}
    handlers = [Account.deposit]
    barrier.wait()
    turns = position = 0
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        dirty = {}
        for handler, key, amount in decoder.decode(frames[position % len(frames)]):
            entity = entities.get(key)
            if entity is None:
                entity = entities[key] = Account()
            handlers[handler](entity, amount)
            dirty[key] = entity
        position += 1
        turns += frame
        body = encoder.encode(dirty)
        records.put(xxhash.xxh3_64_digest(body) + body)
    records.put(None)
    thread.join()
    results.put(turns / (time.perf_counter() - start))
    store.close()


def measure(
    *, workers: int, keys: int, seconds: float = 3, frame: int = 1000, folder: str | None = None
) -> float:
    """Turns per second of so many processes, synced."""
    place = tempfile.mkdtemp(dir=folder)
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(workers), context.Queue()
    shape = (place, seconds, keys, frame, barrier, results)
    running = [context.Process(target=_work, args=(i, *shape)) for i in range(workers)]
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
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(f"{measure(workers=cores, keys=given.keys, seconds=given.seconds):,.0f} turns/s")
