"""How much a batch takes in, from the time that batches took."""

from __future__ import annotations

from skerry.runtime.worker.pace import (
    ASKED_BATCH_S,
    BATCH_S,
    ITEMS_MAX,
    MIXED_BATCH_S,
    MIXED_S,
    TURNS_MIN,
    Pace,
)


def run(
    pace: Pace,
    turn_s: float,
    *,
    batches: int = 60,
    asked: int = 0,
    crowded: bool = False,
    waited_s: float = 0.0,
) -> float:
    """Batches that are always full, of turns that take so long, each after it waited for a core for
    so long; what the last one took itself."""
    took = 0.0
    for _ in range(batches):
        turns, items = pace.turns, pace.items
        took = (turns + items) * turn_s
        clock_s = took + waited_s
        pace.took(clock_s, took, turns=turns, items=items, asked=asked, crowded=crowded)
    return took


def test_full_batches_grow_until_they_take_about_as_long_as_they_may() -> None:
    pace = Pace(16_384)
    assert BATCH_S / 2 < run(pace, 1e-6) <= 2 * BATCH_S
    assert BATCH_S / 2 < run(pace, 4e-6) <= 2 * BATCH_S


def test_clients_that_wait_make_them_shorter() -> None:
    pace = Pace(16_384)
    run(pace, 1e-6)
    assert ASKED_BATCH_S / 2 < run(pace, 1e-6, asked=1000) <= 2 * ASKED_BATCH_S


def test_a_few_clients_beside_a_stream_make_them_shortest_and_for_a_while() -> None:
    pace = Pace(16_384)
    run(pace, 1e-6)
    assert run(pace, 1e-6, asked=1) <= 2 * MIXED_BATCH_S
    assert run(pace, 1e-6, batches=int(MIXED_S / MIXED_BATCH_S / 3)) <= 2 * MIXED_BATCH_S
    assert run(pace, 1e-6, batches=int(3 * MIXED_S / MIXED_BATCH_S)) > BATCH_S / 2


def test_a_crowd_of_clients_wants_cheap_batches() -> None:
    pace = Pace(16_384)
    run(pace, 1e-6, asked=1)
    assert run(pace, 1e-6, asked=1, crowded=True) > BATCH_S / 2


def test_cores_that_are_few_make_no_batch_shorter_but_for_a_client() -> None:
    pace = Pace(16_384)
    assert run(pace, 1e-6, waited_s=0.1) > BATCH_S / 2
    run(pace, 1e-6, waited_s=0.1, asked=1)
    assert (pace.turns, pace.items) == (TURNS_MIN, TURNS_MIN)


def test_the_bounds_have_bounds() -> None:
    pace = Pace(16_384)
    run(pace, 1e-9)
    assert (pace.turns, pace.items) == (16_384, ITEMS_MAX)
    run(pace, 1.0)
    assert (pace.turns, pace.items) == (1, 1)


def test_the_first_batch_is_small_and_turns_that_are_slow_make_smaller_ones() -> None:
    pace = Pace(16_384)
    assert (pace.turns, pace.items) == (TURNS_MIN, TURNS_MIN)
    assert run(pace, 0.002) <= 4 * BATCH_S
    assert run(pace, 1e-6) > BATCH_S / 2, "it grows again"


def test_what_was_not_full_does_not_grow() -> None:
    pace = Pace(16_384)
    before = pace.turns, pace.items
    for _ in range(20):
        pace.took(0.0001, 0.0001, turns=10, items=10, asked=0, crowded=False)
    assert (pace.turns, pace.items) == before
