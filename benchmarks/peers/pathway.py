"""Pathway: `groupby` and `count`, of a Python source and of text files.

After its guide: "Custom Python connectors", "File system connector", "Persistence" (a file
system backend and a snapshot interval) and "Worker architecture" (`pathway spawn`).
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pathway as pw

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given


class Message(pw.Schema):
    """To one key."""

    name: str


class Source(pw.io.python.ConnectorSubject):
    """The load."""

    def __init__(self, partitions: int, count: int) -> None:
        super().__init__()
        self.shape = [str(number) for number in range(partitions)], count

    @property
    def _deletions_enabled(self) -> bool:
        return False  # as its page says, for speed

    def run(self) -> None:
        for name in load.keys(*self.shape):
            self.next(name=name)


def counter(partitions: str, count: str) -> pw.Table:
    """Messages to keys, each an increment."""
    source = Source(int(partitions), int(count))
    names = pw.io.python.read(source, schema=Message, name="load")
    return names.groupby(names.name).reduce(names.name, count=pw.reducers.count())


def words(texts: str) -> pw.Table:
    """The words of a folder of files."""
    lines = pw.io.plaintext.read(texts, mode="static", name="texts")
    found = lines.select(name=pw.apply_with_type(load.split, list[str], lines.data))
    found = found.flatten(found.name)
    return found.groupby(found.name).reduce(found.name, count=pw.reducers.count())


def run(folder: str, snapshots: str, flow: str, *shape: str) -> None:
    """A process of the dataflow, to the end of its input."""
    counts: dict[str, int] = {}

    def changed(key: pw.Pointer, row: dict, time: int, is_addition: bool) -> None:
        if is_addition:
            counts[row["name"]] = row["count"]

    pw.io.subscribe(globals()[flow](*shape), on_change=changed)
    kept = None
    if snapshots:
        backend = pw.persistence.Backend.filesystem(f"{folder}/kept")
        kept = pw.persistence.Config(backend, snapshot_interval_ms=1000)
    start = time.perf_counter()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE, persistence_config=kept)
    span = [start, time.perf_counter()]
    Path(folder, f"{os.getpid()}.json").write_text(json.dumps([span, counts]))


def spawned(given: Given, processes: int, snapshots: bool, *flow: object) -> Done:
    """So many processes of this program."""
    command = [str(Path(sys.executable).with_name("pathway")), "spawn"]
    command += ["--processes", str(processes), "--first-port", str(figure.free_port())]
    command += [sys.executable, "-m", "benchmarks.peers.pathway", "run"]
    command += [str(given.folder), "yes" if snapshots else "", *map(str, flow)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return done(given.folder)


def one(given: Given) -> Done:
    """A single message, in this process."""
    with figure.quiet():
        run(str(given.folder), "", "counter", str(len(given.partitions)), str(given.count))
    return done(given.folder)


def done(folder: Path) -> Done:
    """What the processes wrote down."""
    found = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    counts = {name: count for _, part in found for name, count in part.items()}
    return Done(max(end - start for (start, end), _ in found), counts)


def keyed(processes: int, snapshots: bool = False) -> Callable[[Given], Done]:
    """The counter, run so."""
    return lambda given: spawned(
        given, processes, snapshots, "counter", len(given.partitions), given.count
    )


def text(processes: int, snapshots: bool = False) -> Callable[[Given], Done]:
    """The words, run so."""
    return lambda given: spawned(given, processes, snapshots, "words", given.texts)


NONE = "nothing kept"
EACH_S = "a snapshot each second; what came later is done again"
FIGURES = [
    Figure("keyed_counter", "1 process", NONE, 120_000, keyed(1)),
    Figure("keyed_counter", "2 processes", NONE, 120_000, keyed(2)),
    Figure("keyed_counter", "2 processes, snapshots", EACH_S, 100_000, keyed(2, snapshots=True)),
    Figure("word_count", "1 process", NONE, 0, text(1)),
    Figure("word_count", "2 processes", NONE, 0, text(2)),
    Figure("word_count", "2 processes, snapshots", EACH_S, 0, text(2, snapshots=True)),
]

if __name__ == "__main__":
    if sys.argv[1] == "run":
        run(*sys.argv[2:])
    else:
        figure.main("pathway", FIGURES, first=one)
