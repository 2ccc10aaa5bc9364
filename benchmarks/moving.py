"""What a change of the number of workers costs while it lasts: waiting, and throughput.

    python -m benchmarks.moving [--workers 2 4] [--rate 1000] [--seconds 8]

    open loop at a steady rate:  quiet -> scale up -> scale down     latencies of keys that move, and of others
    closed loop at full speed:   quiet -> scale up -> scale down     turns a second beside the quiet ones
    closed loop, started anew with the larger number                 beside the rate after scaling up

A latency counts from the moment when the call was due (`open_loop.py`), so a pause cannot hide. A
call is of a key that moves when its slot changes hands in the change that was under way. The
clients share the cores with the workers.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks import command_line, running
from benchmarks.callers import KEYS, STRIDE, Request
from benchmarks.figures import in_folder
from benchmarks.open_loop import Done, OpenLoop, closed_loop, poisson, precise_loop
from benchmarks.sized_app import name
from skerry.runtime.app import directory
from skerry.runtime.core.ownership import slot_of

WIDTH = 512
"""Callers of the closed loop."""

PATIENCE_S = 60.0
STEP_S = 1.0
"""A closed loop is begun anew so often while a change lasts."""

SLOTS = [slot_of("Counter", name(number)) for number in range(KEYS)]


class Waited(Struct):
    """How long calls have waited, by what became of their keys."""

    seconds: float
    still: list[float]
    moved: list[float]


class Named:
    """A target that tells whose answer has come last."""

    def __init__(self, target: Request) -> None:
        self._target = target
        self.slot = 0

    def call(self, number: int, done: Done) -> None:
        """See `Target`."""

        def told(answered: bool) -> None:
            self.slot = SLOTS[number * STRIDE % KEYS]
            done(answered)

        self._target.call(number, told)


def slots_of(data: str) -> list[int]:
    """The owner of each slot now."""
    app = directory.load(Path(data))
    assert app is not None, "an app that runs describes itself"
    return app.placement.slots


async def scaled(data: str, workers: int) -> None:
    """Change the number of workers, as a user does."""
    command = [sys.executable, "-m", "skerry.runtime.cli", "scale", str(workers), "--data", data]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    code = await process.wait()
    assert code == 0, f"skerry scale {workers} ended with {code}"


async def paused(data: str, rate: float, during: Callable[[], Awaitable[Any]]) -> Waited:
    """Call at a steady rate for as long as something lasts."""
    loop, before = asyncio.get_running_loop(), slots_of(data)
    caller = await Request.open(data, 0)
    named = Named(caller)
    by_slot: list[tuple[int, float]] = []
    calls = OpenLoop(named, lambda seconds: by_slot.append((named.slot, seconds)))
    start = loop.time()
    lasts = asyncio.ensure_future(during())
    number = 0
    while not lasts.done():
        arrivals = poisson(rate, seed=number)
        await calls.run(arrivals, start=loop.time(), seconds=STEP_S, patience=PATIENCE_S)
        number += 1
    await lasts
    spent = loop.time() - start
    await caller.close()
    assert not calls.refused and not calls.unanswered, "every call is answered"
    after = slots_of(data)
    moved = {slot for slot in range(len(after)) if after[slot] != before[slot]}
    return Waited(
        spent,
        sorted(s for slot, s in by_slot if slot not in moved),
        sorted(s for slot, s in by_slot if slot in moved),
    )


async def rate_of(data: str, during: Callable[[], Awaitable[Any]]) -> float:
    """Answers a second of a closed loop, for as long as something lasts."""
    caller = await Request.open(data, 0)
    lasts, answered, spent = asyncio.ensure_future(during()), 0, 0.0
    while not lasts.done():
        calls = await closed_loop(caller, width=WIDTH, seconds=STEP_S)
        answered, spent = answered + calls.in_time, spent + STEP_S
    await lasts
    await caller.close()
    return answered / spent


def ms(seconds: list[float], part: float) -> str:
    """A percentile, for a reader."""
    return f"{seconds[int((len(seconds) - 1) * part)] * 1000:,.1f}" if seconds else ""


def pauses(folder: str, few: int, many: int, rate: float, seconds: float) -> Table:
    """Latencies while workers come and go."""
    table = Table(title=f"latency at {rate:,.0f} calls a second, ms")
    for head in ("", "s", "calls", "p50", "p99", "max", "calls", "p50", "p99", "max"):
        table.add_column(head, justify="right")

    async def rows(data: str) -> None:
        phases: dict[str, Callable[[], Awaitable[Any]]] = {
            "quiet": lambda: asyncio.sleep(seconds),
            f"{few} to {many} workers": lambda: scaled(data, many),
            "quiet again": lambda: asyncio.sleep(seconds),
            f"{many} to {few} workers": lambda: scaled(data, few),
        }
        for phase, during in phases.items():
            found = await paused(data, rate, during)
            columns = [
                text
                for waits in (found.still, found.moved)
                for text in (f"{len(waits):,}", *(ms(waits, part) for part in (0.5, 0.99, 1.0)))
            ]
            table.add_row(phase, f"{found.seconds:.1f}", *columns)

    with_app(folder, few, rows)
    return table


def throughput(folder: str, few: int, many: int, seconds: float) -> Table:
    """Answers a second while workers come and go, and after."""
    table = Table(title=f"answers a second to {WIDTH} callers")
    for head in ("", "answers/s", "beside quiet"):
        table.add_column(head, justify="right")

    async def rows(data: str) -> None:
        quiet = await rate_of(data, lambda: asyncio.sleep(seconds))
        table.add_row(f"quiet, {few} workers", f"{quiet:,.0f}", "1.00")
        up = await rate_of(data, lambda: scaled(data, many))
        table.add_row(f"{few} to {many} workers", f"{up:,.0f}", f"{up / quiet:.2f}")
        after = await rate_of(data, lambda: asyncio.sleep(seconds))
        table.add_row(f"quiet, {many} workers", f"{after:,.0f}", f"{after / quiet:.2f}")
        down = await rate_of(data, lambda: scaled(data, few))
        table.add_row(f"{many} to {few} workers", f"{down:,.0f}", f"{down / quiet:.2f}")
        again = await rate_of(data, lambda: asyncio.sleep(seconds))
        table.add_row(f"quiet, {few} workers again", f"{again:,.0f}", f"{again / quiet:.2f}")

    async def fresh(data: str) -> None:
        rate = await rate_of(data, lambda: asyncio.sleep(seconds))
        table.add_row(f"started with {many} workers", f"{rate:,.0f}", "")

    with_app(f"{folder}/scaled", few, rows)
    with_app(f"{folder}/fresh", many, fresh)
    return table


def with_app(folder: str, workers: int, measure: Callable[[str], Awaitable[None]]) -> None:
    """Run an app, and measure once each of its keys has been asked."""
    Path(folder).mkdir(exist_ok=True)
    given = running.options(
        folder, "benchmarks.sized_app:app", [], "sized", workers=workers, serve=True
    )
    process = running.started(given)
    loop = precise_loop()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(rate_of(given.data, lambda: asyncio.sleep(2 * STEP_S)))
        loop.run_until_complete(measure(given.data))
    finally:
        loop.close()
        running.stop(process)


def main() -> None:
    """Measure and print tables."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--workers", type=command_line.count, nargs=2, default=[2, 4], help="from, and to"
    )
    parser.add_argument(
        "--rate", type=command_line.amount, default=1000.0, help="calls a second by schedule"
    )
    parser.add_argument(
        "--seconds", type=command_line.amount, default=8.0, help="of each quiet part"
    )
    given = parser.parse_args()
    console, (few, many) = Console(width=120), given.workers
    started = time.perf_counter()
    console.print(in_folder(lambda f: pauses(f, few, many, given.rate, given.seconds)))
    console.print("left: keys that stay; right: keys whose slot moved in this part")
    console.print(in_folder(lambda f: throughput(f, few, many, given.seconds)))
    console.print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
