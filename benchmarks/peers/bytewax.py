"""Bytewax: `stateful_map` for the counter, `count_final` for the words.

After its guide: "Wordcount", "Recovery" (`python -m bytewax.recovery`, then `-r` and `-s`),
"Workers and Parallelization" and "Performance" (a process a core and not a thread, sources
of several partitions that give batches). Run as it says, by `python -m bytewax.run`.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.files import DirSource
from bytewax.dataflow import Dataflow, Stream
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given


class Keys(StatefulSourcePartition[str, int]):
    """One partition of the load, so many messages at a time."""

    def __init__(self, partition: str, count: int, batch: int, position: int) -> None:
        self.partition, self.count, self.batch = partition, count, batch
        self.position = position

    def next_batch(self) -> list[str]:
        start, self.position = self.position, min(self.position + self.batch, self.count)
        if start == self.position:
            raise StopIteration
        return [load.key(self.partition, position) for position in range(start, self.position)]

    def snapshot(self) -> int:
        return self.position


class Source(FixedPartitionedSource[str, int]):
    """The load."""

    def __init__(self, partitions: int, count: int, batch: int) -> None:
        self.partitions, self.count, self.batch = partitions, count, batch

    def list_parts(self) -> list[str]:
        return [str(number) for number in range(self.partitions)]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> Keys:
        return Keys(for_part, self.count, self.batch, resume_state or 0)


class Last(StatelessSinkPartition[tuple[str, int]]):
    """Keeps the last count of each key, writes them down at the end."""

    def __init__(self, folder: str) -> None:
        self.folder, self.counts = folder, dict[str, int]()
        self.started = time.perf_counter()

    def write_batch(self, items: list[tuple[str, int]]) -> None:
        self.counts.update(items)

    def close(self) -> None:
        span = [self.started, time.perf_counter()]
        Path(self.folder, f"{os.getpid()}.json").write_text(json.dumps([span, self.counts]))


class Sink(DynamicSink[tuple[str, int]]):
    """One for each worker."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def build(self, step_id: str, worker_index: int, worker_count: int) -> Last:
        return Last(self.folder)


def counter(folder: str, partitions: int, count: int, batch: int, running: bool) -> Dataflow:
    """Messages to keys, each an increment."""
    flow = Dataflow("counter")
    names = op.input("load", flow, Source(partitions, count, batch))
    op.output("last", counts(names, running), Sink(folder))
    return flow


def words(folder: str, texts: str, running: bool) -> Dataflow:
    """The words of a folder of files."""
    flow = Dataflow("words")
    lines = op.input("lines", flow, DirSource(Path(texts)))
    found = op.flat_map("split", lines, load.split)
    op.output("last", counts(found, running), Sink(folder))
    return flow


def counts(items: Stream[str], running: bool) -> op.KeyedStream[int]:
    """Each item's count: after each message, or once at the end of all input."""
    if not running:
        return op.count_final("count", items, lambda item: item)
    keyed = op.map("key", items, lambda item: (item, 1))
    return op.stateful_map("count", keyed, add)


def add(count: int | None, one: int) -> tuple[int, int]:
    """The state, and what flows on."""
    count = (count or 0) + one
    return count, count


def run(flow: str, folder: Path, processes: int, snapshots: bool) -> Done:
    """Run a dataflow of this file to its end."""
    command = [sys.executable, "-m", "bytewax.run", f"benchmarks.peers.bytewax:{flow}"]
    if snapshots:
        store = folder / "recovery"
        store.mkdir()
        making = [sys.executable, "-m", "bytewax.recovery", str(store), str(processes)]
        subprocess.run(making, check=True, stdout=sys.stderr)
        command += ["-r", str(store), "-s", "1", "-b", "0"]
    if processes > 1:
        addresses = ";".join(f"127.0.0.1:{figure.free_port()}" for _ in range(processes))
        commands = [[*command, "-i", str(one), "-a", addresses] for one in range(processes)]
    else:
        commands = [command]
    running = [subprocess.Popen(each, stdout=sys.stderr) for each in commands]
    codes = [process.wait() for process in running]
    if any(codes):
        raise RuntimeError(f"bytewax.run ended with {codes}")
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    total = {name: count for _, part in found for name, count in part.items()}
    seconds = max(end for (_, end), _ in found) - min(start for (start, _), _ in found)
    return Done(seconds, total)


def keyed(
    processes: int, *, running: bool = True, batch: int = load.BATCH, snapshots: bool = False
) -> Callable[[Given], Done]:
    """The counter, run so."""

    def measured(given: Given) -> Done:
        shape = (str(given.folder), len(given.partitions), given.count, batch, running)
        return run(f"counter{shape}", given.folder, processes, snapshots)

    return measured


def text(processes: int, *, running: bool, snapshots: bool = False) -> Callable[[Given], Done]:
    """The words, run so."""

    def measured(given: Given) -> Done:
        shape = (str(given.folder), str(given.texts), running)
        return run(f"words{shape}", given.folder, processes, snapshots)

    return measured


NONE = "nothing kept"
EACH_S = "a snapshot each second; what came later is done again"
FIGURES = [
    Figure("keyed_counter", "stateful_map, 1 process", NONE, 180_000, keyed(1)),
    Figure("keyed_counter", "stateful_map, 2 processes", NONE, 240_000, keyed(2)),
    Figure(
        *("keyed_counter", "stateful_map, 2 processes, batches of 10,000", NONE, 330_000),
        keyed(2, batch=10_000),
    ),
    Figure(
        *("keyed_counter", "count_final, 2 processes, batches of 10,000", NONE, 500_000),
        keyed(2, running=False, batch=10_000),
    ),
    Figure(
        *("keyed_counter", "stateful_map, 2 processes, snapshots", EACH_S, 200_000),
        keyed(2, snapshots=True),
    ),
    Figure(
        *("keyed_counter", "count_final, 2 processes, batches of 10,000, snapshots", EACH_S),
        *(300_000, keyed(2, running=False, batch=10_000, snapshots=True)),
    ),
    Figure("word_count", "count_final, 1 process", NONE, 0, text(1, running=False)),
    Figure("word_count", "count_final, 2 processes", NONE, 0, text(2, running=False)),
    Figure("word_count", "stateful_map, 2 processes", NONE, 0, text(2, running=True)),
    Figure(
        *("word_count", "count_final, 2 processes, snapshots", EACH_S, 0),
        text(2, running=False, snapshots=True),
    ),
]

if __name__ == "__main__":
    figure.main("bytewax", FIGURES, first=keyed(1))
