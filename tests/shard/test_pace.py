"""How much a batch takes in, from the time that batches took."""

from __future__ import annotations

from skerry.runtime.pace import ASKED_BATCH_S, BATCH_S, ITEMS_MAX, TURNS_MIN, Pace


def run(pace: Pace, turn_s: float, *, batches: int = 60, asked: bool = False) -> float:
    """Batches that are always full, of turns that take so long; how long the last one took."""
    took = 0.0
    for _ in range(batches):
        turns, items = pace.turns, pace.items
        took = (turns + items) * turn_s
        pace.took(took, turns=turns, items=items, asked=asked)
    return took


def test_full_batches_grow_until_they_take_about_as_long_as_they_may() -> None:
    pace = Pace(16_384)
    assert BATCH_S / 2 < run(pace, 1e-6) <= 2 * BATCH_S
    assert BATCH_S / 2 < run(pace, 4e-6) <= 2 * BATCH_S


def test_a_waiting_client_makes_them_shorter() -> None:
    pace = Pace(16_384)
    run(pace, 1e-6)
    assert run(pace, 1e-6, asked=True) <= 2 * ASKED_BATCH_S


def test_the_bounds_have_bounds() -> None:
    pace = Pace(16_384)
    run(pace, 1e-9)
    assert (pace.turns, pace.items) == (16_384, ITEMS_MAX)
    run(pace, 1.0)
    assert (pace.turns, pace.items) == (TURNS_MIN, TURNS_MIN)


def test_what_was_not_full_does_not_grow() -> None:
    pace = Pace(16_384)
    before = pace.turns, pace.items
    for _ in range(20):
        pace.took(0.0001, turns=10, items=10, asked=False)
    assert (pace.turns, pace.items) == before
