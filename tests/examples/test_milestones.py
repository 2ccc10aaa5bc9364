"""The simulation finds the sink that ignores its sequence, and no fault in the right one."""

from __future__ import annotations

from collections.abc import Callable

from examples.milestones import BIRDS, Book, HastyBook, app, milestones
from skerry.testing import Harness, Simulation

LINES = sorted(f"{bird} {count}" for bird in BIRDS for count in range(10, 61, 10))


def written(sim: Simulation, book: HastyBook) -> list[str]:
    """What stands in the book after all has drained."""
    sim.sink(milestones, book)
    sim.run()
    return sorted(map(str, book.lines))


def test_a_book_that_knows_its_newest_number_has_each_line_once(
    skerry_sim: Callable[..., Simulation],
) -> None:
    assert written(skerry_sim(app), Book()) == LINES


def test_the_hasty_book_is_found_within_twenty_seeds() -> None:
    books = [written(Simulation(app, seed=seed), HastyBook()) for seed in range(20)]
    assert any(book != LINES for book in books)
    assert all(sorted(set(book)) == LINES for book in books), "doubled, never lost"


def test_without_faults_nobody_sees_the_bug() -> None:
    h = Harness(app)
    h.run()
    assert sorted(f"{bird} {count}" for bird, count in h.emitted(milestones)) == LINES
