"""Latency against load: client processes that call an app by one schedule.

    python -m benchmarks.load ask --levels 10 50 100 150

    closed loop: what can be served at most -> open loop at 10 % ... 150 % of it -> a curve

Each client is a process of its own, on the cores that the workers run on: who has one machine
pays for both ends. Each level begins with an app that has just started and an empty store, and
is warmed up for a second. After it, what is stored is compared with what was called.

Latencies go into HDR histograms: three digits of each, from a microsecond to ten minutes, in
fixed room; those of several processes add up without loss.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import resource
import sys
import time
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks import command_line, running, stored
from benchmarks.callers import KEYS, KINDS, Caller
from benchmarks.figures import PROMISE, Job, Sample, in_folder, number
from benchmarks.open_loop import (
    ClosedLoop,
    OpenLoop,
    Record,
    closed_loop,
    poisson,
    precise_loop,
)

LEVELS = (10, 25, 50, 75, 90, 100, 125, 150, 200)
"""Loads, in percent of the most that a closed loop gets."""

PERCENTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
CHARTED = ("ask", "request", "hop")
CLIENTS = 2
WIDTH = 1024
"""Callers in a client process while the most is looked for: with fewer, batches are so small that
more would be answered."""

WARM_S = 1.0
PATIENCE_S = 60.0
"""How long open calls are waited for when the schedule has ended: twice a client's time-out."""

MICROSECONDS_MAX = 600_000_000


class Plan(Struct, frozen=True):
    """What each client process does."""

    kind: str
    data: str
    rate: float
    """Calls per second of this process; 0: a closed loop."""
    seconds: float


class Told(Struct):
    """What a client process has seen."""

    warmed: int
    called: int
    unknown: int
    """Calls whose effect nobody knows: refused or unanswered, the warm-up's, too."""
    in_time: int
    refused: int
    unanswered: int
    waiting_peak: int
    histogram: bytes
    cpu_s: float
    """While the schedule lasted."""
    ended_s: float
    """From its start until the last answer."""
    memory_peak: int


class Level(Struct):
    """One point of a curve."""

    offered: float
    """Calls per second."""
    answered: float
    """Answers per second, while the schedule lasted."""
    latencies_ms: dict[str, float]
    refused: int
    unanswered: int
    waiting_peak: int
    """The most calls on their way at once, of one client."""
    workers_cpu: float
    """Cores that the workers used while the schedule lasted."""
    clients_cpu: float
    worker_memory_peak: int
    client_memory_peak: int
    drained_s: float
    """From the end of the schedule until the last answer."""


# ── a client process ──


def _client(place: int, plan: Plan, pipe: Any) -> None:
    # A hundred thousand open calls are a hundred thousand tasks, and the collector of garbage walks
    # through all of them again and again: two thirds of this process, and nothing of what is measured.
    gc.set_threshold(100_000, 50, 1000)
    loop = precise_loop()
    asyncio.set_event_loop(loop)
    loop.run_until_complete(_serve(place, plan, pipe))
    loop.close()


async def _serve(place: int, plan: Plan, pipe: Any) -> None:
    """Warm up, say so, call from the moment that is told, tell."""
    from hdrh.histogram import HdrHistogram

    caller = await KINDS[plan.kind].open(plan.data, place * KEYS // CLIENTS)
    warmed, unknown = await _warm_up(caller, place, plan)
    pipe.send(None)
    start, loop = pipe.recv(), asyncio.get_running_loop()
    used_s = [time.process_time()]
    loop.call_at(start + plan.seconds, lambda: used_s.append(time.process_time()))
    latencies = array("d")
    calls = await _loaded(caller, place, plan, start, latencies.append)
    ended_s = loop.time() - start
    # Not while there is load: that would cost a twentieth of an ask, on the cores of what is measured.
    histogram = HdrHistogram(1, MICROSECONDS_MAX, 3)
    for seconds in latencies:
        histogram.record_value(max(1, min(MICROSECONDS_MAX, int(seconds * 1e6))))
    told = Told(
        warmed,
        calls.called,
        unknown + calls.refused + calls.unanswered,
        calls.in_time,
        calls.refused,
        calls.unanswered,
        calls.waiting_peak,
        histogram.encode(),
        used_s[1] - used_s[0],
        ended_s,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
    )
    await caller.close()
    pipe.send(msgspec.msgpack.encode(told))


async def _loaded(
    caller: Caller, place: int, plan: Plan, start: float, record: Record
) -> OpenLoop | ClosedLoop:
    """The load: by schedule, or by callers who wait."""
    if not plan.rate:
        await asyncio.sleep(start - asyncio.get_running_loop().time())
        return await closed_loop(caller, width=WIDTH, seconds=plan.seconds)
    calls, arrivals = OpenLoop(caller, record), poisson(plan.rate, seed=place)
    await calls.run(arrivals, start=start, seconds=plan.seconds, patience=PATIENCE_S)
    return calls


async def _warm_up(caller: Caller, place: int, plan: Plan) -> tuple[int, int]:
    """Half of the load for a moment, uncounted: how many calls, and of how many nobody knows."""
    if not plan.rate:
        polite = await closed_loop(caller, width=16, seconds=WARM_S)
        return polite.called, polite.refused
    calls = OpenLoop(caller, lambda seconds: None)
    start = asyncio.get_running_loop().time()
    arrivals = poisson(plan.rate / 2, seed=1000 + place)
    await calls.run(arrivals, start=start, seconds=WARM_S, patience=PATIENCE_S)
    return calls.called, calls.refused + calls.unanswered


# ── the app, and its clients ──


def level(kind: str, rate: float, seconds: float, folder: str) -> Level:
    """Run an app and call it `rate` times a second; 0: as often as it answers."""
    what = KINDS[kind]
    given = running.options(folder, what.app, [], what.name, serve=True)
    process = running.started(given)
    workers = running.Workers(process.pid)
    plan = Plan(kind, given.data, rate / CLIENTS, seconds)
    told, cpu_s = _clients(plan, workers)
    running.stop(process)
    _check(kind, told, stored.total(given.data, *what.counted, map(what.key, range(KEYS))))
    histogram = _added(told)
    return Level(
        rate,
        sum(each.in_time for each in told) / seconds,
        {name: histogram.get_value_at_percentile(p) / 1000 for name, p in PERCENTILES.items()},
        sum(each.refused for each in told),
        sum(each.unanswered for each in told),
        max(each.waiting_peak for each in told),
        cpu_s / seconds,
        sum(each.cpu_s for each in told) / seconds,
        workers.memory_peak,
        max(each.memory_peak for each in told),
        max(0.0, *(each.ended_s - seconds for each in told)),
    )


def _clients(plan: Plan, workers: running.Workers) -> tuple[list[Told], float]:
    """What the clients told, and the processor time of the workers while the schedule lasted."""
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for place in range(CLIENTS):
        ours, theirs = context.Pipe()
        context.Process(target=_client, args=(place, plan, theirs), daemon=True).start()
        theirs.close()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()  # It is warm. EOFError: it has ended, its traceback stands above.
    before, start = workers.look(), time.monotonic() + 0.1
    for pipe in pipes:
        pipe.send(start)
    told: list[Told] = []
    used = before
    while pipes:
        ready = wait(pipes, timeout=running.LOOK_EVERY_S)
        looked = workers.look()
        if time.monotonic() <= start + plan.seconds:
            used = looked
        for pipe in [pipe for pipe in pipes if pipe in ready]:
            told.append(msgspec.msgpack.decode(pipe.recv(), type=Told))
            pipes.remove(pipe)
    return told, used.cpu_s - before.cpu_s


def _check(kind: str, told: Sequence[Told], counted: int) -> None:
    """Every call that was answered counts once, one that was not at most once."""
    called = sum(each.warmed + each.called for each in told)
    unknown = sum(each.unknown for each in told)
    assert called - unknown <= counted <= called, (
        f"{kind}: {called:,} calls, {unknown:,} of them without an answer, and {counted:,} counted. "
        f"Messages were lost or doubled: run `make crash` and `make simulate`."
    )


def _added(told: Sequence[Told]) -> Any:
    from hdrh.histogram import HdrHistogram

    whole = HdrHistogram(1, MICROSECONDS_MAX, 3)
    for each in told:
        whole.decode_and_add(each.histogram)
    return whole


# ── curves ──


def most(kind: str, seconds: float, folder: str) -> float:
    """Answers per second of a closed loop."""
    return level(kind, 0, seconds, folder).answered


def curve(
    kind: str,
    seconds: float,
    levels: Sequence[int] = LEVELS,
    say: Callable[[str], None] = lambda line: None,
) -> list[tuple[int, Level]]:
    """(percent of the most, what was seen) of each level."""
    if find_spec("hdrh") is None:
        sys.exit("Latency under load is kept in HDR histograms: pip install -e '.[bench]'")
    limit = in_folder(lambda folder: most(kind, seconds, folder))
    say(f"{kind}: at most {limit:,.0f} a second by a closed loop of {CLIENTS} x {WIDTH:,} callers")
    say(f"{kind}: at each level {WARM_S:g} s of warm-up, {seconds:g} s of schedule")
    found = []
    for percent in levels:
        rate = limit * percent / 100
        point: Level = in_folder(partial(level, kind, rate, seconds))
        say(f"{kind}: {percent} %: {in_words(point)}")
        found.append((percent, point))
    return found


def in_words(point: Level) -> str:
    """A level as a line."""
    latencies = ", ".join(f"{name} {number(ms)}" for name, ms in point.latencies_ms.items())
    return (
        f"{point.offered:,.0f} offered, {point.answered:,.0f} answered a second; {latencies} ms; "
        f"{point.unanswered:,} unanswered, {point.refused:,} refused"
    )


def jobs(scale: float) -> list[Job]:
    """Each curve as rows: `load_ask_90_p99_ms`, `load_ask_90_answered` and so on."""
    seconds = max(1.0, 5 * scale)
    parts = ["answered", *(f"{part}_ms" for part in PERCENTILES)]
    return [
        Job(
            tuple(f"load_{kind}_{percent}_{part}" for percent in LEVELS for part in parts),
            partial(samples, kind, seconds),
            None,
            f"{seconds:g} s at each of {len(LEVELS)} loads, {CLIENTS} client processes",
            runs_max=1,
        )
        for kind in CHARTED
    ]


def samples(kind: str, seconds: float, folder: str) -> list[Sample]:
    """A curve, flat. Each of its levels has a folder of its own."""
    found = []
    for percent, point in curve(kind, seconds, say=print):
        name = f"load_{kind}_{percent}"
        promise = f"{number(point.offered)} a second offered, by schedule; {PROMISE}"
        found.append(Sample(f"{name}_answered", point.answered, "calls/s", promise))
        found += [
            Sample(f"{name}_{part}_ms", ms, "ms", promise)
            for part, ms in point.latencies_ms.items()
        ]
    return found


def as_table(kind: str, points: Sequence[tuple[int, Level]]) -> Table:
    """A curve for a reader."""
    table = Table(title=f"{kind}: latency from the scheduled arrival, ms")
    for head in ("load", "offered/s", "answered/s", *PERCENTILES, "no answer", "most open"):
        table.add_column(head, justify="right")
    for head in ("drained s", "cores: workers", "clients", "MB: worker", "client"):
        table.add_column(head, justify="right")
    for percent, point in points:
        table.add_row(
            f"{percent} %",
            number(point.offered),
            number(point.answered),
            *(number(ms) for ms in point.latencies_ms.values()),
            number(point.unanswered + point.refused),
            number(point.waiting_peak),
            f"{point.drained_s:.1f}",
            f"{point.workers_cpu:.2f}",
            f"{point.clients_cpu:.2f}",
            number(point.worker_memory_peak / 1e6),
            number(point.client_memory_peak / 1e6),
        )
    return table


def main() -> None:
    """Measure curves and print them."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "kinds", nargs="*", default=list(CHARTED), choices=list(KINDS), help="what is called"
    )
    parser.add_argument(
        "--levels",
        nargs="+",
        type=command_line.count,
        default=list(LEVELS),
        help="percent of the most",
    )
    parser.add_argument(
        "--seconds", type=command_line.amount, default=5.0, help="of schedule at each level"
    )
    given = parser.parse_args()
    for kind in given.kinds:
        points = curve(kind, given.seconds, given.levels, say=print)
        Console(width=200).print(as_table(kind, points))


if __name__ == "__main__":
    main()
