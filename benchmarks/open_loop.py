"""Calls by a schedule, whatever becomes of them: a server that stalls cannot hide it.

A load generator that waits for an answer before it calls again calls less while the server
is slow, and so measures least when there is most to measure (coordinated omission). Here the
arrivals are drawn before anything is called. A call is due when the schedule says so, and its
latency counts from that moment: also when the generator itself was late, since a user who came
then would have waited then.

What is called is a `Target`; the schedule knows nothing of it. So asks, hops between entities
and an HTTP door are driven by the same arrivals. Times are seconds of the event loop's clock,
so that a test can drive all of it without waiting.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from typing import Protocol

from msgspec import Struct

PASS_CALLS = 256
"""Calls that are begun between two looks at what has come back, however late they are: as many as
take some milliseconds. Without a bound, each round of a loop that is late is longer than the round
before it, and answers are read ever later."""

CLOCK_S = 0.0002, 0.005
"""The clock rings so often at the most, and at the least, seconds. Between them it is a twentieth of
what the last call has taken: one that rings for each of twenty thousand calls a second takes a third
of a core from what is measured, and tells of a wait of a second to a fifth of a millisecond. What it
makes a call wait counts as its waiting."""

Done = Callable[[bool], None]
"""Told once how a call ended: whether it was answered; False, it was refused or failed."""

Record = Callable[[float], None]
"""Keeps the latency of one more call, seconds."""


class Target(Protocol):
    """What is called."""

    def call(self, number: int, done: Done) -> None:
        """Begin call `number` and return at once. `done` is called later, once."""
        ...


def evenly(rate: float, first: float = 0.0) -> Iterator[float]:
    """Arrivals at equal distances, `rate` a second: seconds from the start."""
    for number in count():
        yield first + number / rate


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Arrivals of many callers who know nothing of each other, `rate` a second on average.

    Several such schedules at once are one such schedule of their sum: a load can be dealt out to
    processes and stays the same load.
    """
    draw, at = random.Random(seed), 0.0
    while True:
        at += draw.expovariate(rate)
        yield at


class OpenLoop:
    """One run of a schedule against a target.

    Args:
        record: gets the latency of each call: of an answered one at its answer; of one that was
            never answered at the end, as what it has waited until then, which is the least that
            it can be. One that was refused has none: it is counted.
    """

    def __init__(self, target: Target, record: Record) -> None:
        self._target, self._record = target, record
        self._due: dict[int, float] = {}
        """When each call that is on its way was due."""
        self._idle = asyncio.Event()
        self._now = asyncio.get_running_loop().time
        self._end = float("inf")
        self.called = self.answered = self.refused = self.unanswered = 0
        self.in_time = 0
        """Answers that came before the schedule ended: what throughput is made of."""
        self.waiting_peak = 0
        """The most calls that were on their way at once. What was due and not begun is not among
        them: its latency says how late it was."""
        self._clock_s = CLOCK_S[0]

    async def run(
        self, arrivals: Iterator[float], *, start: float, seconds: float, patience: float
    ) -> None:
        """Call whatever is due from `start` on for so many seconds, then wait for what is open."""
        self._end = start + seconds
        due = start + next(arrivals)
        while due < self._end:
            now = min(self._now(), self._end)
            most = self.called + PASS_CALLS
            while due <= now and due < self._end and self.called < most:
                self._begin(due)
                due = start + next(arrivals)
            self.waiting_peak = max(self.waiting_peak, len(self._due))
            # Also when more is due already: what has come back is heard before more is called.
            ahead = min(due, self._end) - self._now()
            await asyncio.sleep(max(ahead, self._clock_s) if ahead > 0 else 0)
        await self._drain(patience)

    def _begin(self, due: float) -> None:
        number = self.called = self.called + 1
        self._due[number] = due
        self._target.call(number, partial(self._ended, number))

    def _ended(self, number: int, answered: bool) -> None:
        due = self._due.pop(number, None)
        if due is None:
            return  # Given up before; it stands as unanswered.
        if answered:
            now = self._now()
            self.answered += 1
            self.in_time += now <= self._end
            self._record(now - due)
            self._clock_s = min(max((now - due) / 20, CLOCK_S[0]), CLOCK_S[1])
        else:
            self.refused += 1
        if not self._due:
            self._idle.set()

    async def _drain(self, patience: float) -> None:
        if self._due:
            self._idle.clear()
            try:
                async with asyncio.timeout(patience):
                    await self._idle.wait()
            except TimeoutError:
                pass  # What is still open is counted below.
        now = self._now()
        self.unanswered = len(self._due)
        for due in self._due.values():
            self._record(now - due)
        self._due.clear()


class ClosedLoop(Struct):
    """What became of the calls of polite callers."""

    called: int = 0
    in_time: int = 0
    refused: int = 0
    unanswered: int = 0
    waiting_peak: int = 0


async def closed_loop(target: Target, *, width: int, seconds: float) -> ClosedLoop:
    """`width` callers each call again as soon as they are answered.

    That is how much can be served at most; of latency it says nothing.
    """
    loop, calls = asyncio.get_running_loop(), ClosedLoop(waiting_peak=width)
    end, over = loop.time() + seconds, loop.create_future()
    waiting = 0

    def begin() -> None:
        nonlocal waiting
        calls.called, waiting = calls.called + 1, waiting + 1
        target.call(calls.called, ended)

    def ended(answered: bool) -> None:
        nonlocal waiting
        waiting -= 1
        calls.refused += not answered
        if loop.time() < end:
            calls.in_time += answered
            begin()
        elif not waiting:
            over.set_result(None)

    for _ in range(width):
        begin()
    await over
    return calls


def precise_loop() -> asyncio.AbstractEventLoop:
    """An event loop that wakes within a twentieth of a millisecond.

    The usual one sleeps by `epoll`, which Python rounds up to whole milliseconds: more than
    what is measured here. `select` counts microseconds, and the few sockets here fit it.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())
