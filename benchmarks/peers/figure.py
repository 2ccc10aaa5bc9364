"""What a peer is asked to measure, and how it answers: one line of JSON a figure.

A peer's file lists its figures and ends with `figure.main(...)`. What was counted is read
back from the peer and held against the load; a figure with a wrong sum has no value, only
the reason. Needs nothing installed.
"""

import argparse
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.peers import load

PARTITIONS = 4
LISTENS_MS_MAX = 60_000
UNITS = {"keyed_counter": "messages/s", "transfers": "transfers/s", "word_count": "words/s"}


class Given(NamedTuple):
    """What a peer is told."""

    folder: Path
    """Empty, on a real disk, removed afterwards."""
    texts: Path
    """The files whose words are counted."""
    server: str
    """Where its server listens, when it has one."""
    partitions: tuple[str, ...]
    count: int
    """Messages per partition; for `ask`, requests."""


class Done(NamedTuple):
    """What a peer answers."""

    seconds: float
    states: Mapping[str, int]
    """Read back after the run."""
    took: Sequence[float] = ()
    """Milliseconds of each request, for `ask`."""


class Figure(NamedTuple):
    """One thing to measure."""

    name: str
    variant: str
    promise: str
    about: int
    """Messages a second, roughly: how much work fills the time."""
    run: Callable[[Given], Done]
    partitions: int = PARTITIONS


def expected(name: str, given: Given) -> dict[str, int]:
    """The states that must come out."""
    match name:
        case "keyed_counter":
            return load.counted(given.partitions, given.count)
        case "transfers":
            return load.moved(given.partitions, given.count)
        case "word_count":
            return load.words(given.texts)
        case "ask" | "first_result":
            return load.counted(given.partitions, given.count)
    raise ValueError(name)


def judged(figure: Figure, given: Given) -> list[dict[str, Any]]:
    """The rows of one figure, or the reason why there is none."""
    row = {"name": figure.name, "variant": figure.variant, "promise": figure.promise}
    try:
        done = figure.run(given)
        wanted = expected(figure.name, given)
        load.check(done.states, wanted)
    except Exception as error:
        traceback.print_exc()
        return [{**row, "wrong": f"{type(error).__name__}: {str(error)[:200]}"}]
    if figure.name == "ask":
        took = sorted(done.took)
        p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
        return [
            {**row, "name": "ask_p50", "value": round(p50, 3), "unit": "ms"},
            {**row, "name": "ask_p99", "value": round(p99, 3), "unit": "ms"},
        ]
    if figure.name == "first_result":
        return [row]
    work = sum(wanted.values()) if figure.name == "word_count" else given.count * figure.partitions
    return [{**row, "value": round(work / done.seconds), "unit": UNITS[figure.name]}]


def main(package: str, figures: Sequence[Figure], first: Callable[[Given], Done]) -> None:
    """Measure what was asked for, print a line for each. `first`: how one message is counted."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--server", default="")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--first", action="store_true", help="one message only, then its result")
    told = parser.parse_args()
    if told.first:
        figures = [Figure("first_result", "", "", 0, first, partitions=1)]
    for number, figure in enumerate(figures):
        folder = told.folder / str(number)
        folder.mkdir()
        given = Given(
            folder=folder,
            texts=told.texts,
            server=told.server,
            partitions=tuple(str(partition) for partition in range(figure.partitions)),
            count=max(1, round(told.seconds * figure.about / figure.partitions)),
        )
        for row in judged(figure, given):
            print(json.dumps({"package": f"{package} {version(package)}", **row}), flush=True)


def at_once(clients: int, work: Callable[..., None], given: Given) -> float:
    """Seconds that so many processes take for `work(given, ready)`, once all are ready.

    Each is given its part of the partitions.
    """
    context = multiprocessing.get_context("fork")
    barrier, spans = context.Barrier(clients), context.SimpleQueue()

    def one(number: int) -> None:
        started = 0.0

        def ready() -> None:
            nonlocal started
            barrier.wait()
            started = time.perf_counter()

        try:
            work(given._replace(partitions=given.partitions[number::clients]), ready)
            spans.put((started, time.perf_counter()))
        except BaseException as error:
            traceback.print_exc()
            spans.put(f"{type(error).__name__}: {error}")
            barrier.abort()

    running = [context.Process(target=one, args=(number,)) for number in range(clients)]
    for process in running:
        process.start()
    found = [spans.get() for _ in running]
    for process in running:
        process.join()
    failed = [text for text in found if isinstance(text, str)]
    if failed:
        raise RuntimeError(failed[0])
    return max(end for _, end in found) - min(start for start, _ in found)


def asked(request: Callable[[str], object], given: Given) -> list[float]:
    """Milliseconds of each request, one at a time."""
    took = []
    for name in load.keys(given.partitions, given.count):
        start = time.perf_counter()
        request(name)
        took.append((time.perf_counter() - start) * 1000)
    return took


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def quiet() -> Iterator[None]:
    """Standard output goes to standard error meanwhile: only figures are printed there."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def wait_for(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    """Returns when somebody listens there. Raises TimeoutError, also when the process has ended."""
    for _ in range(LISTENS_MS_MAX // 10):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process is not None and process.poll() is not None:
            raise TimeoutError(f"it ended with {process.returncode}")
        time.sleep(0.01)
    raise TimeoutError(f"nobody listens on port {port} after {LISTENS_MS_MAX // 1000} s")
