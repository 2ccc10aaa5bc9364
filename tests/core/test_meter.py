"""How busy a worker is, and with what, from the batches that it ran."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, msgpack

from skerry.runtime.core.demand import Load
from skerry.runtime.core.events import SLOTS, Commit, CommitNo, StateGroup
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.worker.meter import ENTITIES, ENTITIES_MAX, EVERY, KEYS, Meter

ALL = frozenset(range(SLOTS))
BATCH_S = 0.01


class Time:
    """A clock and a stopwatch, moved by hand. Every second second the thread waits for a core."""

    def __init__(self) -> None:
        self.now_s = self.clock_s = self.own_s = self.cpu_s = 0.0

    def start(self) -> None:
        self.clock_s = self.own_s = 0.0

    def now_ns(self) -> int:
        return self.steady_ns()

    def steady_ns(self) -> int:
        return int(self.now_s * 1e9)

    def spend(self, own_s: float) -> None:
        self.now_s += 2 * own_s
        self.clock_s += 2 * own_s
        self.own_s += own_s
        self.cpu_s += own_s


class Worker:
    """Runs batches of turns that take as long as is said, in as much time as is said."""

    def __init__(self, served: frozenset[int] = ALL) -> None:
        self.time, self.served = Time(), served
        self.meter = Meter(30.0, self.time, self.time)

    def batch(
        self,
        runs: Iterable[tuple[str, list[str], float]],
        *,
        states: dict[str, int] | None = None,
        rest_s: float = 0.0,
    ) -> None:
        """A batch of (type, keys, seconds of all of them), which writes states of so many bytes."""
        time = self.time
        time.start()
        sample = self.meter.begin()
        for type, keys, own_s in runs:
            time.spend(own_s)
            if sample is not None:
                sample(type, keys)
        time.spend(rest_s)
        commit = None if states is None else commit_of("T", states)
        self.meter.took(time.clock_s, time.own_s, commit, sample, self.served)

    def run(
        self,
        runs: list[tuple[str, list[str], float]],
        seconds: float,
        *,
        busy: float,
        states: dict[str, int] | None = None,
        rest_s: float = 0.0,
    ) -> Load:
        """Batches like this one for so long, at that part of a core; the load then."""
        until_s = self.time.now_s + seconds
        while self.time.now_s < until_s:
            began_s = self.time.now_s
            self.batch(runs, states=states, rest_s=rest_s)
            self.time.now_s = began_s + self.time.own_s / busy
        return self.meter.look(self.served)


def commit_of(type: str, states: dict[str, int]) -> Commit:
    encoded = [msgpack.encode([0, bytes(size)]) for size in states.values()]
    group = StateGroup(type, list(states), Raw(msgpack.encode([Raw(one) for one in encoded])))
    return Commit(CommitNo(1), b"", [group], [])


def part(load: Load, type: str, key: str) -> float:
    return {(t, k): busy for t, k, busy in load.hot}.get((type, key), 0.0)


@pytest.mark.parametrize("seconds", [2, 30, 300])
def test_a_worker_is_as_busy_as_its_batches_from_its_first_seconds_on(seconds: int) -> None:
    load = Worker().run([("T", ["a"], BATCH_S)], seconds, busy=0.4)
    assert load.busy == pytest.approx(0.4, rel=0.05)


def test_time_of_other_threads_counts_as_busy_and_so_does_waiting_inside_a_handler() -> None:
    threads, waiting = Worker(), Worker()
    for _ in range(3000):
        threads.time.cpu_s += BATCH_S / 2
        threads.run([("T", ["a"], BATCH_S)], BATCH_S, busy=0.25)
        waiting.time.cpu_s -= BATCH_S
        waiting.run([("T", ["a"], BATCH_S)], BATCH_S, busy=0.25)
    assert threads.meter.look(ALL).busy == pytest.approx(0.375, rel=0.05)
    assert waiting.meter.look(ALL).busy == pytest.approx(0.25, rel=0.05)


def test_what_was_measured_counts_half_after_the_half_life() -> None:
    worker = Worker()
    before = worker.run([("T", ["a"], BATCH_S)], 300, busy=0.8)
    worker.time.now_s += 30.0
    after = worker.meter.look(ALL)
    assert after.busy == pytest.approx(before.busy / 2, rel=0.02)
    slot = slot_of("T", "a")
    assert after.slots[slot] == pytest.approx(before.slots[slot] / 2, rel=0.02)


def test_an_hour_of_idling_weighs_by_its_rate_and_not_by_its_length() -> None:
    worker = Worker()
    worker.run([("T", ["a"], BATCH_S)], 60, busy=0.5)
    worker.time.now_s += 3600
    worker.time.cpu_s += 36
    assert worker.meter.look(ALL).busy == pytest.approx(0.01, rel=0.1)


def test_each_run_of_messages_is_charged_its_own_time() -> None:
    quick = [f"q{n}" for n in range(500)]
    load = Worker().run([("Q", quick, 0.002), ("Slow", ["s"], 0.008)], 120, busy=0.5)
    assert part(load, "Slow", "s") == pytest.approx(0.4, rel=0.05)
    assert load.slots[slot_of("Slow", "s")] == pytest.approx(0.4, rel=0.05)


@pytest.mark.parametrize("keys", [KEYS // 2, KEYS * 3, KEYS * 40])
def test_a_key_is_charged_by_its_part_of_the_messages_however_many_there_are(keys: int) -> None:
    column = ["hot" if n % 4 else f"k{n}" for n in range(keys)]
    load = Worker().run([("T", column, BATCH_S)], 240, busy=0.8)
    assert part(load, "T", "hot") == pytest.approx(0.6, rel=0.08)


@pytest.mark.parametrize("size", [3, 200])
def test_many_short_runs_are_charged_like_one_long_one(size: int) -> None:
    runs = [("T", ["hot" if n % 4 else f"k{n}"] * size, 1e-5) for n in range(600)]
    load = Worker().run(runs, 40, busy=0.8)
    assert part(load, "T", "hot") == pytest.approx(0.6, rel=0.08)


def test_the_time_around_turns_is_charged_by_the_bytes_that_are_written() -> None:
    states = {"large": 100_000, **{f"k{n}": 20 for n in range(100)}}
    load = Worker().run([("T", list(states), 0.001)], 60, busy=0.5, states=states, rest_s=0.009)
    assert part(load, "T", "large") > 0.3
    assert load.slots[slot_of("T", "large")] > 0.3


def test_turns_that_write_nothing_are_charged_the_time_around_them_too() -> None:
    load = Worker().run([("T", ["a"], 0.005)], 60, busy=0.5, rest_s=0.005)
    assert load.slots[slot_of("T", "a")] == pytest.approx(0.5, rel=0.05)


def test_messages_that_pass_through_to_other_shards_are_charged_to_no_slot() -> None:
    ours = slot_of("T", "ours")
    column = ["ours", *(f"k{n}" for n in range(99) if slot_of("T", f"k{n}") != ours)]
    worker = Worker(frozenset([ours]))
    load = worker.run([("T", column, BATCH_S)], 60, busy=0.5)
    assert set(load.slots) == {ours}
    assert load.slots[ours] < 0.02 and load.busy > 0.4
    assert set(worker.meter.look(ALL).slots) == {ours}, "nor to one that comes here later"


def test_a_slot_that_has_left_is_not_told_any_more() -> None:
    worker = Worker()
    worker.run([("T", ["a", "b"], BATCH_S)], 60, busy=0.5)
    left = slot_of("T", "a")
    assert left not in worker.meter.look(ALL - {left}).slots
    assert slot_of("T", "b") in worker.meter.look(ALL - {left}).slots


def test_a_batch_that_is_not_sampled_is_not_looked_at() -> None:
    worker = Worker()
    sampled = [worker.meter.begin() is not None for _ in range(EVERY * 4)]
    assert sum(sampled) == 4


@settings(max_examples=25, deadline=None)
@given(
    crowd=st.integers(ENTITIES_MAX, 3 * ENTITIES_MAX),
    share=st.floats(0.05, 0.9),
    seed=st.integers(0),
)
def test_a_hot_entity_in_a_crowd_is_found_and_never_charged_too_much(
    crowd: int, share: float, seed: int
) -> None:
    worker = Worker()
    hot = [("T", ["hot"], BATCH_S * share)]
    for n in range(50):
        keys = [f"k{(seed + n * 3001 + m * 7919) % crowd}" for m in range(KEYS - 1)]
        for _ in range(EVERY):  # One of them is sampled.
            worker.batch([*hot, ("T", keys, BATCH_S * (1 - share))])
    load = worker.meter.look(ALL)
    found = part(load, "T", "hot")
    real = share * load.busy
    assert real - load.busy * (1 / ENTITIES + 0.02) <= found <= real * 1.001
