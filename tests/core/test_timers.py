"""Timers of one shard: each that stands fires, in time's order; what stands no more takes no room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.core.events import Table
from skerry.runtime.core.tables.table import Stamp
from skerry.runtime.core.tables.timers import STALE_MIN, Timer, Timers, timer_key
from tests.core.effort import effort, grows_like

STAMP = Stamp(1, 1)


def a_timer(name: str, due_ns: int, key: str = "k") -> Timer:
    """A named timer of an entity."""
    return Timer("named", due_ns, "Shop", key, name, 1, 2, b"\x90")


def put(timers: Timers, timer: Timer) -> None:
    """Set it."""
    timers.set(timer_key(timer.type, timer.key, timer.name), timer)


def kept(timers: Timers) -> int:
    """How many timers memory holds, those that stand no more included."""
    return len(timers._heap)


def test_a_timer_that_is_set_again_and_again_takes_the_room_of_one() -> None:
    timers, standing = Timers(), 10
    for name in range(standing):
        put(timers, a_timer(f"other {name}", 10**9))
    for again in range(5000):
        put(timers, a_timer("idle", 10**9 + again))
        timers.sealed(STAMP)
        assert kept(timers) <= 2 * (standing + 1) + STALE_MIN
    assert [timer.due_ns for _, timer in timers.due(10**10, 100)] == [10**9] * standing + [
        10**9 + 4999
    ]


def test_time_outs_that_were_never_needed_take_no_room() -> None:
    timers = Timers()
    for number in range(5000):
        row_key = b"%08d" % number
        timers.set(row_key, Timer("timeout", 10**12, "Shop", "k", "", 1, 2, b"\x90", id=row_key))
        timers.sealed(STAMP)
        assert timers.cancel(row_key)
        timers.sealed(STAMP)
        assert kept(timers) <= STALE_MIN
    assert len(timers) == 0


@pytest.mark.parametrize("entities", ["many", "one"])
def test_to_forget_entities_costs_as_much_as_they_have_timers(entities: str) -> None:
    """One after the other in one batch: each its own timers, or the same entity again and again."""

    def set_and_forget(count: int) -> None:
        timers = Timers()
        keys = [f"k{number}" if entities == "many" else "k" for number in range(count)]
        for number, key in enumerate(keys):
            put(timers, a_timer(f"standing {number}", 1, key))
        timers.sealed(STAMP)
        for key in keys:
            put(timers, a_timer("staged", 1, key))
        for key in keys:
            timers.cancel_all("Shop", key)
        timers.sealed(STAMP)
        assert len(timers) == 0

    few, many = (effort(lambda n=n: set_and_forget(n)) for n in (100, 400))  # type: ignore[misc]
    assert grows_like(few, many, 4)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 5), st.integers(1, 9)),
        st.tuples(st.sampled_from(["cancel", "forget"]), st.integers(0, 5), st.just(0)),
        st.tuples(st.sampled_from(["seal", "undo", "restart"]), st.just(0), st.just(0)),
        st.tuples(st.just("pass"), st.just(0), st.integers(1, 5)),
    ),
    max_size=80,
)


@given(STEPS)
def test_what_stands_fires_once_and_nothing_else_in_whatever_batches(
    steps: list[tuple[str, int, int]],
) -> None:
    """Two timers of each of three entities, set, cancelled, forgotten and fired."""
    timers, rows = Timers(), dict[bytes, bytes]()
    standing: dict[tuple[str, str], int] = {}
    sealed: dict[tuple[str, str], int] = {}
    now = 0
    for step, number, amount in steps:
        key, name = f"k{number % 3}", f"t{number // 3}"
        match step:
            case "set":
                put(timers, a_timer(name, now + amount, key))
                standing[key, name] = now + amount
            case "cancel":
                stood = timers.cancel(timer_key("Shop", key, name))
                assert stood == (standing.pop((key, name), None) is not None)
            case "forget":
                timers.cancel_all("Shop", key)
                standing = {timer: due for timer, due in standing.items() if timer[0] != key}
            case "seal" | "pass":
                for _, row_key, row in timers.rows(STAMP):
                    if row is None:
                        rows.pop(row_key, None)
                    else:
                        rows[row_key] = row
                timers.sealed(STAMP)
                sealed = dict(standing)
            case "undo" | "restart":
                timers.undo()
                standing = dict(sealed)
        if step == "pass":
            now += amount
            fired = timers.due(now, 100)
            assert [t.due_ns for _, t in fired] == sorted(d for d in sealed.values() if d <= now)
            for row_key, _ in fired:
                assert timers.cancel(row_key)
                del rows[row_key]
            timers.sealed(STAMP)
            sealed = {timer: due for timer, due in sealed.items() if due > now}
            standing = dict(sealed)
        if step == "restart":
            timers = Timers()
            timers.load((Table.TIMER, key, row) for key, row in rows.items())
        if step in ("seal", "pass", "restart"):
            assert len(timers) == len(sealed) == len(rows)
            assert kept(timers) <= 2 * len(timers) + STALE_MIN
