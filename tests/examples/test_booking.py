"""The simulation finds the bug of the hasty trip, and none in the right one."""

from __future__ import annotations

from collections.abc import Callable

from examples.booking import HastyTrip, Seat, Trip, app
from skerry.testing import Harness, Simulation


def stray(sim: Simulation, trip: type[HastyTrip]) -> list[str]:
    """Seats that are taken by a trip that does not know of it, after all has drained."""
    for n in range(12):
        sim.send(trip.at(f"trip-{n}").book, f"seat-{n % 4}", 0.03)
        sim.step(5)
    sim.run()
    seats = {f"seat-{n}": sim[Seat.at(f"seat-{n}")].taken_by for n in range(4)}
    return [seat for seat, by in seats.items() if by and sim[trip.at(by)].seat != seat]


def test_a_trip_that_gives_back_what_came_late_leaves_no_stray_seat(
    skerry_sim: Callable[..., Simulation],
) -> None:
    assert stray(skerry_sim(app), Trip) == []


def test_the_hasty_trip_is_found_within_twenty_seeds() -> None:
    assert any(stray(Simulation(app, seed=seed), HastyTrip) for seed in range(20))


def test_a_seed_that_fails_fails_again() -> None:
    found = [seed for seed in range(20) if stray(Simulation(app, seed=seed), HastyTrip)]
    again = [seed for seed in found if stray(Simulation(app, seed=seed), HastyTrip)]
    assert found == again


def test_without_faults_and_haste_nobody_sees_the_bug() -> None:
    h = Harness(app)
    h.ask(HastyTrip.at("a").book, "1A")
    assert (h[HastyTrip.at("a")].seat, h[Seat.at("1A")].taken_by) == ("1A", "a")
