"""What an entity costs that nobody calls: on the disk, and in a worker's memory.

On the disk: the pages of the tree that hold entities, divided by the entities in them, less
the fields' values. So it is the key, the checksum, the schema's name and the tree itself.

In memory: what the workers grow by while each entity is looked at once by a query, which
changes nothing and so leaves nothing but the object in the cache. Anonymous memory is counted:
a file's pages are the page cache's.

The ceilings are a bare LMDB tree with the same keys and values, and a dict of bare objects.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import lmdb
import msgspec

import skerry
from benchmarks import running, stored
from benchmarks.figures import Allowed, Job, Sample
from skerry.message import message

UNIT_STORE, UNIT_CACHE = "B over its state", "B"
PARTITIONS = 4
WARM, AT_ONCE = 20_000, 1000
SMALL_CACHE = 16 << 20
"""So that nearly all entities are carried down to the tree while the app still runs."""

OBJECTS = """
import sys, msgspec
from benchmarks.running import anonymous
class Counter(msgspec.Struct):
    key: str
    count: int = 0
before = anonymous("self")
kept = {name: Counter(name, 1) for name in (f"e{n:08d}" for n in range(int(sys.argv[1])))}
print((anonymous("self") - before) / len(kept))
"""


def pages(env: Any, db: Any) -> tuple[int, int]:
    """(bytes of the pages, rows) of a tree."""
    with env.begin() as txn:
        stat = txn.stat(db)
    count = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return count * stat["psize"], stat["entries"]


def bare_store(entities: int, folder: str) -> Allowed:
    """A tree with the same keys and values, put in order, and nothing else."""
    state = msgspec.msgpack.encode(1)
    with lmdb.open(f"{folder}/bare", map_size=1 << 30, max_dbs=1) as env:
        db = env.open_db(b"rows")
        with env.begin(db=db, write=True) as txn:
            for number in range(entities):
                txn.put(f"e{number:08d}".encode(), state, append=True)
        size, rows = pages(env, db)
    return {UNIT_STORE: size / rows - len(state)}


def store(entities: int, folder: str) -> list[Sample]:
    """So many entities, once each."""
    given = running.sized(folder, PARTITIONS, entities, entities // PARTITIONS)
    given = running.cached(given, SMALL_CACHE)
    run = running.measured(given)
    row = "bytes_per_idle_entity_store"
    stored.check(row, stored.counted(given.data, entities), run.progress.turns)
    size = rows = 0
    for path in Path(given.data).glob("shard-*"):
        with lmdb.open(str(path), readonly=True, lock=False, max_dbs=4) as env:
            found = pages(env, env.open_db(b"rows", create=False))
            size, rows = size + found[0], rows + found[1]
    promise = f"{rows:,} rows of the tree, keys of 9 bytes, states of 1"
    return [Sample(row, size / rows - len(msgspec.msgpack.encode(1)), UNIT_STORE, promise)]


def bare_cache(entities: int, folder: str) -> Allowed:
    """A dict of objects with a key and a number."""
    told = subprocess.run(
        [sys.executable, "-c", OBJECTS, str(entities)], stdout=subprocess.PIPE, check=True
    )
    return {UNIT_CACHE: float(told.stdout)}


def cache(entities: int, folder: str) -> list[Sample]:
    """Look at so many entities, and see what the workers grow by."""
    from benchmarks.sized_app import Counter, name

    made = entities + WARM
    given = running.sized(folder, PARTITIONS, made, made // PARTITIONS)
    given = running.cached(given, SMALL_CACHE)
    running.measured(given)
    stored.check("entities made", stored.counted(given.data, made), made)
    given = running.cached(running.served(given, ["4", "1", "0"]), 4 << 30)
    process = running.started(given)
    workers = running.Workers(process.pid)
    with skerry.Client(given.data) as client:
        # In small calls: what the requests themselves need for a moment is little, and is there
        # when the growth is measured from. The objects find no room that was freed before.
        before = seen = 0
        for place in range(0, entities + WARM, AT_ONCE):
            if place == WARM:
                before, seen = workers.memory(), 0
            asked = range(place, place + AT_ONCE)
            counts = client.ask_many([message(Counter.at(name(n)).look) for n in asked])
            seen += sum(count for count in counts if isinstance(count, int))
        grown = workers.memory() - before
    running.stop(process)
    row = "bytes_per_idle_entity_cache"
    stored.check(row, seen, entities)
    promise = f"growth of the workers by {entities:,} entities, each looked at once"
    return [Sample(row, grown / entities, UNIT_CACHE, promise)]


def jobs(scale: float) -> list[Job]:
    """What can be measured here. `scale`: of the work in each."""
    many, few = max(200_000, int(1e6 * scale)), max(100_000, int(2e5 * scale) // 1000 * 1000)
    return [
        Job(
            ("bytes_per_idle_entity_store",),
            partial(store, many),
            partial(bare_store, many),
            f"{many:,} entities",
            runs_max=3,
        ),
        Job(
            ("bytes_per_idle_entity_cache",),
            partial(cache, few),
            partial(bare_cache, few),
            f"{few:,} entities",
            runs_max=3,
        ),
    ]
