"""The schedule forgives nobody: neither a server that stalls nor a generator that is late."""

import asyncio
import itertools
import statistics
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from benchmarks.open_loop import (
    CLOCK_S,
    PASS_CALLS,
    ClosedLoop,
    Done,
    OpenLoop,
    closed_loop,
    evenly,
    poisson,
)
from tests.benchmarks.clockwork import Clockwork

T = TypeVar("T")
SERVICE_S = 0.0001


def played(play: Callable[[Clockwork], Coroutine[Any, Any, T]]) -> T:
    """What a play on the fake clock returns."""
    loop = Clockwork()
    try:
        return loop.run_until_complete(play(loop))
    finally:
        loop.close()


def percentile(latencies: list[float], percent: float) -> float:
    """By counting."""
    return sorted(latencies)[min(len(latencies) - 1, int(len(latencies) * percent / 100))]


class Server:
    """Serves one call after the other; from `stall_at` on it does nothing for `stall` seconds."""

    def __init__(self, loop: Clockwork, *, stall_at: float = 1e9, stall: float = 0.0) -> None:
        self._loop, self._stall_at, self._stall = loop, stall_at, stall
        self._free_at = 0.0

    def call(self, number: int, done: Done) -> None:
        begin = max(self._loop.time(), self._free_at)
        if self._stall_at <= begin < self._stall_at + self._stall:
            begin = self._stall_at + self._stall
        self._free_at = begin + SERVICE_S
        self._loop.call_at(self._free_at, done, True)


def by_schedule(
    arrivals: Iterator[float], seconds: float, **stalls: float
) -> tuple[OpenLoop, list[float]]:
    """A whole run against the server."""
    latencies: list[float] = []

    async def play(loop: Clockwork) -> OpenLoop:
        calls = OpenLoop(Server(loop, **stalls), latencies.append)
        await calls.run(arrivals, start=0.0, seconds=seconds, patience=60.0)
        return calls

    return played(play), latencies


def test_a_stall_of_a_second_is_seen_by_everybody_who_came_meanwhile() -> None:
    calls, latencies = by_schedule(evenly(1000), 10.0, stall_at=5.0, stall=1.0)
    assert calls.called == calls.answered == len(latencies) == 10_000
    # A tenth came during the stall, evenly: they waited a second, or a half, or hardly.
    assert percentile(latencies, 50) == pytest.approx(SERVICE_S, rel=0.01)
    assert percentile(latencies, 95) == pytest.approx(0.5, abs=0.1)
    assert percentile(latencies, 99) == pytest.approx(0.9, abs=0.1)
    assert max(latencies) == pytest.approx(1.0, abs=0.01)


def test_without_a_stall_nobody_waits() -> None:
    _, latencies = by_schedule(evenly(1000), 10.0)
    assert max(latencies) == pytest.approx(SERVICE_S, rel=0.01)


def test_a_caller_who_waits_for_the_answer_hides_the_same_stall() -> None:
    """Why there is a schedule at all: of the closed loop's calls one in all is slow."""
    took: list[float] = []

    async def play(loop: Clockwork) -> None:
        server = Server(loop, stall_at=5.0, stall=1.0)

        class Timed:
            def call(self, number: int, done: Done) -> None:
                begun = loop.time()

                def ended(answered: bool) -> None:
                    took.append(loop.time() - begun)
                    done(answered)

                server.call(number, ended)

        await closed_loop(Timed(), width=1, seconds=10.0)

    played(play)
    assert sum(seconds > 0.1 for seconds in took) == 1
    assert percentile(took, 99) == pytest.approx(SERVICE_S, rel=0.01)


def test_a_generator_that_is_late_does_not_excuse_itself() -> None:
    """One call keeps the whole process busy for a second: those due meanwhile waited, too."""
    latencies: list[float] = []

    async def play(loop: Clockwork) -> None:
        class Heavy:
            def call(self, number: int, done: Done) -> None:
                if number == 100:
                    loop.pass_time(1.0)
                loop.call_soon(done, True)

        calls = OpenLoop(Heavy(), latencies.append)
        await calls.run(evenly(1000), start=0.0, seconds=2.0, patience=60.0)

    played(play)
    assert len(latencies) == 2000
    assert sum(seconds > 0.5 for seconds in latencies) == pytest.approx(500, abs=5)


def test_however_late_the_generator_is_answers_are_heard_between_its_calls() -> None:
    """Calls take longer than their distance in the schedule: only what was called is open."""
    latencies: list[float] = []

    async def play(loop: Clockwork) -> OpenLoop:
        class Dear:
            def call(self, number: int, done: Done) -> None:
                loop.pass_time(0.002)
                loop.call_soon(done, True)

        calls = OpenLoop(Dear(), latencies.append)
        await calls.run(evenly(1000), start=0.0, seconds=5.0, patience=60.0)
        return calls

    calls = played(play)
    assert calls.called == calls.answered == 5000
    assert calls.in_time == pytest.approx(2500, abs=PASS_CALLS)
    assert calls.waiting_peak <= PASS_CALLS
    assert max(latencies) == pytest.approx(5.0, rel=0.2)


def test_what_the_clock_saves_is_a_small_part_of_what_is_measured() -> None:
    """Calls of 40 ms: none waits for the clock for more than a twentieth, and it rings rarely."""
    took, latencies, rings = 0.04, list[float](), set[float]()

    async def play(loop: Clockwork) -> None:
        class Slow:
            def call(self, number: int, done: Done) -> None:
                rings.add(loop.time())
                loop.call_later(took, done, True)

        calls = OpenLoop(Slow(), latencies.append)
        await calls.run(evenly(10_000), start=0.0, seconds=1.0, patience=60.0)

    played(play)
    assert len(latencies) == 10_000
    assert took - 1e-6 < min(latencies) and max(latencies) < took * 20 / 19 + 1e-6
    # By the finest clock until the first answer comes, then each two milliseconds.
    assert len(rings) == pytest.approx(took / CLOCK_S[0] + (1 - took) / (took / 20), rel=0.1)


def test_overload_is_seen_as_ever_longer_waits_and_fewer_answers_in_time() -> None:
    capacity = 1 / SERVICE_S
    calls, latencies = by_schedule(evenly(2 * capacity), 1.0)
    assert calls.called == calls.answered == 2 * capacity
    assert calls.in_time == pytest.approx(capacity, rel=0.01)
    assert max(latencies) == pytest.approx(1.0, abs=0.01)
    assert calls.waiting_peak == pytest.approx(capacity, rel=0.01)


def test_calls_without_an_answer_count_as_long_as_they_were_waited_for() -> None:
    latencies: list[float] = []

    async def play(loop: Clockwork) -> OpenLoop:
        class Deaf:
            def call(self, number: int, done: Done) -> None:
                if number % 2:
                    loop.call_soon(done, True)

        calls = OpenLoop(Deaf(), latencies.append)
        await calls.run(evenly(10), start=0.0, seconds=1.0, patience=30.0)
        return calls

    calls = played(play)
    assert (calls.called, calls.answered, calls.unanswered) == (10, 5, 5)
    assert len(latencies) == 10
    assert min(sorted(latencies)[5:]) > 30.0


def test_refusals_are_counted_and_not_taken_for_quick_answers() -> None:
    latencies: list[float] = []

    async def play(loop: Clockwork) -> OpenLoop:
        class Busy:
            def call(self, number: int, done: Done) -> None:
                loop.call_soon(done, number % 2 == 0)

        calls = OpenLoop(Busy(), latencies.append)
        await calls.run(evenly(10), start=0.0, seconds=1.0, patience=30.0)
        return calls

    calls = played(play)
    assert (calls.called, calls.answered, calls.refused) == (10, 5, 5)
    assert len(latencies) == 5


def test_an_answer_that_comes_after_its_call_was_given_up_changes_nothing() -> None:
    async def play(loop: Clockwork) -> OpenLoop:
        class Slow:
            def call(self, number: int, done: Done) -> None:
                loop.call_later(10.0, done, True)

        calls = OpenLoop(Slow(), lambda seconds: None)
        await calls.run(evenly(1), start=0.0, seconds=1.0, patience=5.0)
        late = loop.create_future()
        loop.call_later(20.0, late.set_result, None)
        await late
        return calls

    calls = played(play)
    assert (calls.answered, calls.unanswered) == (0, 1)


def test_the_arrivals_are_the_same_whatever_is_called() -> None:
    first = list(itertools.islice(poisson(100, seed=7), 1000))
    assert first == list(itertools.islice(poisson(100, seed=7), 1000))
    assert first != list(itertools.islice(poisson(100, seed=8), 1000))


def test_poisson_arrivals_come_at_their_rate_and_not_evenly() -> None:
    arrivals = list(itertools.islice(poisson(100, seed=1), 20_000))
    gaps = [b - a for a, b in itertools.pairwise(arrivals)]
    assert statistics.mean(gaps) == pytest.approx(0.01, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.01, rel=0.05)


def test_even_arrivals_are_where_they_should_be_however_late_it_is() -> None:
    assert list(itertools.islice(evenly(4, first=0.1), 3)) == [0.1, 0.35, 0.6]
    assert next(itertools.islice(evenly(3), 3_000_000, None)) == 1_000_000.0


def test_a_closed_loop_counts_what_was_answered_in_time() -> None:
    async def play(loop: Clockwork) -> ClosedLoop:
        return await closed_loop(Server(loop), width=10, seconds=1.0)

    calls = played(play)
    assert calls.in_time == pytest.approx(1 / SERVICE_S, rel=0.01)
    assert calls.called == pytest.approx(calls.in_time, abs=10)
    assert calls.refused == 0


def test_a_closed_loop_counts_refusals_and_does_not_take_them_for_answers() -> None:
    async def play(loop: Clockwork) -> ClosedLoop:
        class Busy:
            def call(self, number: int, done: Done) -> None:
                loop.call_later(0.01, done, number % 4 != 0)

        return await closed_loop(Busy(), width=1, seconds=1.0)

    calls = played(play)
    assert calls.called == pytest.approx(100, abs=1)
    assert calls.refused == pytest.approx(25, abs=1)
    assert calls.in_time == pytest.approx(75, abs=1)


def test_histograms_of_several_processes_show_the_stall_of_one() -> None:
    histogram = pytest.importorskip("hdrh.histogram", reason="of the extra `bench`").HdrHistogram
    whole = histogram(1, 600_000_000, 3)
    for stall in (0.0, 1.0):
        _, latencies = by_schedule(evenly(1000), 10.0, stall_at=5.0, stall=stall)
        one = histogram(1, 600_000_000, 3)
        for seconds in latencies:
            one.record_value(int(seconds * 1e6))
        whole.decode_and_add(one.encode())
    assert whole.get_total_count() == 20_000
    assert whole.get_value_at_percentile(50) == pytest.approx(SERVICE_S * 1e6, rel=0.02)
    assert whole.get_value_at_percentile(99) == pytest.approx(800_000, rel=0.05)


def test_the_loop_of_the_clients_is_a_loop() -> None:
    from benchmarks.open_loop import precise_loop

    async def waits() -> str:
        over: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.001, over.set_result, "waited")
        return await over

    loop = precise_loop()
    try:
        assert loop.run_until_complete(waits()) == "waited"
    finally:
        loop.close()
