"""Fixtures for pytest: an app that runs, and an app under simulated faults.

    def test_money_is_kept(skerry_sim):
        sim = skerry_sim(app)
        ...

A test with `skerry_sim` runs once a seed: `pytest --skerry-seeds 500` tries more of them,
`--skerry-seed 17` only that one. With `--skerry-shrink` a seed that fails is run again without
one kind of fault after the other, as long as it fails; the faults that remain are named and drawn.

pytest loads this module in every run, so it imports nothing until it is used.
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
    """Add the options of a campaign."""
    group = parser.getgroup("skerry")
    group.addoption(
        "--skerry-seeds", type=int, default=SEEDS, metavar="N", help=f"seeds per test ({SEEDS})"
    )
    group.addoption("--skerry-seed", type=int, metavar="SEED", help="try this seed only")
    group.addoption(
        "--skerry-shrink",
        action="store_true",
        help="run a seed that fails again with fewer kinds of faults, and draw what is left",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for a simulation once for each seed."""
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


class Shrinking:
    """The kinds of faults that are left out of a failing test, and the simulations of its last run."""

    def __init__(self) -> None:
        self.without: dict[str, float] = {}
        self.made: list[Simulation] = []


_shrinking = pytest.StashKey[Shrinking]()


@pytest.fixture
def skerry_sim(request: pytest.FixtureRequest, _skerry_seed: int) -> Callable[..., Simulation]:
    """Return a function that makes a `Simulation` with this run's seed.

    Example:
        >>> def test_money_is_kept(skerry_sim):
        ...     sim = skerry_sim(app, shards=3)
        ...     sim.run()
    """
    shrinking = request.node.stash.setdefault(_shrinking, Shrinking())

    def simulate(app: App, *, shards: int = 4, faults: Faults | None = None) -> Simulation:
        from msgspec.structs import replace

        from skerry.testing import Faults, Simulation

        faults = replace(faults or Faults(), **shrinking.without)
        sim = Simulation(app, seed=_skerry_seed, shards=shards, faults=faults)
        if request.config.getoption("skerry_shrink"):
            sim.record()
            shrinking.made.append(sim)
        return sim

    return simulate


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[None]:
    """With `--skerry-shrink`, run a test that failed under a simulation again with fewer faults."""
    try:
        return (yield)
    except Exception:
        if pyfuncitem.config.getoption("skerry_shrink") and _shrinking in pyfuncitem.stash:
            pyfuncitem.add_report_section("call", "skerry", _shrink(pyfuncitem))
        raise


def _shrink(item: pytest.Function) -> str:
    """Run a failing test without one kind of fault after the other; return what remains, in words."""
    from skerry.testing import KINDS

    shrinking = item.stash[_shrinking]
    for kind in KINDS:
        shrinking.without[kind] = 0.0
        if not _fails(item, shrinking):
            del shrinking.without[kind]
    _fails(item, shrinking)
    left = [kind for kind in KINDS if kind not in shrinking.without]
    said = f"It fails with these kinds of faults alone: {', '.join(left) or 'none at all'}."
    for number, sim in enumerate(shrinking.made, 1):
        picture = f"skerry-seed-{sim.seed}{'' if number == 1 else f'-{number}'}.svg"
        (item.config.invocation_params.dir / picture).write_text(sim.picture(title=item.nodeid))
        said += f" Drawn in {picture}."
    return said


def _fails(item: pytest.Function, shrinking: Shrinking) -> bool:
    shrinking.made.clear()
    names = item._fixtureinfo.argnames
    try:
        item.obj(**{name: item.funcargs[name] for name in names})
    except Exception:
        return True
    return False


@pytest.fixture
def skerry_app() -> Iterator[Callable[[App], Client]]:
    """Return a function that runs an app in real processes until the test ends.

    Example:
        >>> def test_deposits(skerry_app):
        ...     client = skerry_app(app)
        ...     assert client.ask(Account.at("a").deposit, 10) == 10
    """
    with ExitStack() as running:
        yield lambda app: running.enter_context(app.running())
