"""What is written to the disk for a turn; and many entities in little memory.

Both take minutes and are run by name only. The bytes written are the kernel's count of what
the workers have given to the disk (`write_bytes`): log, tree, and pages that were copied, since
LMDB writes each page anew that it changes. The payload is what nothing can leave out: the key
and the new state of each turn.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

import skerry
from benchmarks import running, starting, stored
from benchmarks.figures import Job, Sample
from skerry.runtime.config import Config

PARTITIONS = 4
SIZES = {"10k": 10_000, "1m": 1_000_000}
ENTITIES = 10_000_000


def written(label: str, keys: int, count: int, folder: str) -> list[Sample]:
    """What a run of the counter has written."""
    given = running.sized(folder, PARTITIONS, keys, count)
    run = running.measured(given)
    turns = PARTITIONS * count
    print(f"written_{label}: {run.lengths}")
    stored.check(f"written_{label}", stored.counted(given.data, keys), turns)
    payload = len(msgspec.msgpack.encode("e00000000")) + len(msgspec.msgpack.encode(turns // keys))
    each = run.used.written / turns
    about = f"{turns:,} turns of {payload} bytes of payload, {keys:,} keys"
    return [
        Sample(f"written_per_m_turns_{label}", each, "MB", about),
        Sample(f"write_amplification_{label}", each / payload, "times the payload", about),
        Sample(f"stored_{label}", on_disk(given.data) / 1e6, "MB", f"the stores' files; {about}"),
    ]


def on_disk(data: str) -> int:
    """Bytes of the stores' files that the disk holds."""
    return sum(path.stat().st_blocks * 512 for path in Path(data).glob("shard-*/*"))


def many(entities: int, folder: str) -> list[Sample]:
    """So many entities: to make them, to start with them, to recover with them."""
    count = entities // PARTITIONS
    given = running.sized(folder, PARTITIONS, entities, count)
    run = running.measured(given)
    print(f"entities_10m: {run.lengths}")
    size = on_disk(given.data)
    started_s = _first_reply(given)
    peak = max(run.memory_peak, _killed_at_work(given, entities, count))
    recovered_s = _first_reply(given)
    counted = stored.counted(given.data, entities)
    # Once for each entity, what was done until the kill, and a request after each start.
    most = 2 * entities + 2
    assert entities + 2 <= counted <= most, f"{counted:,} counted of {entities + 2:,} to {most:,}"
    about = f"{entities:,} entities on {given.workers} workers, a cache of {given.limits.cache_bytes >> 20} MiB each"
    return [
        Sample("entities_10m_turns", run.rate, "turns/s", f"each entity made once; {about}"),
        Sample("entities_10m_memory_peak", peak / 1e6, "MB", f"the largest worker; {about}"),
        Sample("entities_10m_stored", size / 1e6, "MB", about),
        Sample("entities_10m_start_s", started_s, "s", f"after a clean end; {about}"),
        Sample("entities_10m_recovery_s", recovered_s, "s", f"after kill -9 at work; {about}"),
    ]


def _first_reply(given: Config) -> float:
    """Seconds from a start to a first reply."""
    from benchmarks.sized_app import Counter, name

    start = time.perf_counter()
    process = running.started(running.served(given, []))
    with skerry.Client(given.data) as client:
        client.ask(Counter.at(name(0)).add, 1)
    seconds = time.perf_counter() - start
    running.stop(process)
    return seconds


def _killed_at_work(given: Config, entities: int, count: int) -> int:
    """Go on counting for a while, and kill. The most memory of a worker."""
    args = [str(PARTITIONS), str(entities), str(2 * count)]
    program = replace(given.program, args=args)
    process = running.started(replace(given, program=program))
    workers = running.Workers(process.pid)
    while starting.turns_so_far(Path(given.data)) < entities // 4:
        workers.look()
        time.sleep(running.LOOK_EVERY_S)
    process.kill()
    process.wait()
    return workers.memory_peak


def jobs(scale: float) -> list[Job]:
    """What can be measured here. `scale`: of the work in each."""
    found = []
    for label, keys in SIZES.items():
        count = max(keys // PARTITIONS, int(1e6 * scale))
        names: tuple[str, ...] = (
            f"written_per_m_turns_{label}",
            f"write_amplification_{label}",
            f"stored_{label}",
        )
        about = f"{PARTITIONS * count:,} turns to {keys:,} keys"
        once = partial(written, label, keys, count)
        found.append(Job(names, once, None, about, runs_max=3))
    entities = int(ENTITIES * scale)
    rows = ("turns", "memory_peak", "stored", "start_s", "recovery_s")
    names = tuple(f"entities_10m_{row}" for row in rows)
    once = partial(many, entities)
    found.append(Job(names, once, None, f"{entities:,} entities", runs_max=1))
    return found
