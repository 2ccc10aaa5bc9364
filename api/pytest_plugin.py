"""Fixtures for pytest: an app that runs, and an app under simulated faults.

    def test_money_is_kept(skerry_sim):
        sim = skerry_sim(app)
        ...

A test with `skerry_sim` runs once per seed: `pytest --skerry-seeds 500` tries more of them,
`--skerry-seed 17` only that one. Loaded by pytest itself; imports nothing until it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from skerry.app import App
    from skerry.client import Client
    from skerry.testing import Faults, Simulation

SEEDS = 20


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options of a campaign."""
    group = parser.getgroup("skerry")
    group.addoption(
        "--skerry-seeds", type=int, default=SEEDS, metavar="N", help=f"seeds per test ({SEEDS})"
    )
    group.addoption("--skerry-seed", type=int, metavar="SEED", help="try this seed only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a simulation runs once per seed."""
    if "skerry_sim" in metafunc.fixturenames:
        one = metafunc.config.getoption("skerry_seed")
        many = int(metafunc.config.getoption("skerry_seeds") or 0)
        if many < 1:
            raise pytest.UsageError(f"--skerry-seeds is 1 or more, not {many}")
        seeds = range(many) if one is None else [one]
        ids = [f"seed-{seed}" for seed in seeds]
        metafunc.parametrize("_skerry_seed", seeds, ids=ids, indirect=True)


@pytest.fixture
def _skerry_seed(request: pytest.FixtureRequest) -> int:
    seed: int = request.param
    return seed


@pytest.fixture
def skerry_sim(_skerry_seed: int) -> Callable[..., Simulation]:
    """Makes a `Simulation` of an app with this run's seed: `sim = skerry_sim(app, shards=3)`."""

    def simulate(app: App, *, shards: int = 4, faults: Faults | None = None) -> Simulation:
        from skerry.testing import Simulation

        return Simulation(app, seed=_skerry_seed, shards=shards, faults=faults)

    return simulate


@pytest.fixture
def skerry_app() -> Iterator[Callable[[App], Client]]:
    """Runs an app in real processes until the test ends: `client = skerry_app(app)`."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(app.running())
