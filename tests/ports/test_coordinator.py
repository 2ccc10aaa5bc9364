"""Who may run an app, and what its processes agree on: the promises of the coordinator's port."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from skerry.errors import SkerryError, StoreLocked
from skerry.runtime.app.coordinator import DirectoryCoordinator
from skerry.runtime.cluster.coordinator import ClusterCoordinator
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.description import Running
from skerry.runtime.ports import Coordinator
from tests.cluster.servers import Servers, nats
from tests.store import described

__all__ = ["nats"]

Make = Callable[[], Coordinator]
_apps = itertools.count()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory for an app that has run once."""
    return tmp_path / "data"


@pytest.fixture(params=["directory", "cluster"])
def make(request: pytest.FixtureRequest, data: Path) -> Iterator[Make]:
    """Makes coordinators of one app, and on one data directory."""
    with ExitStack() as ends:
        if request.param == "directory":
            described.make(data)
            yield lambda: DirectoryCoordinator(data)
            return
        servers: Servers = request.getfixturevalue("nats")
        app = f"described-{next(_apps)}"

        def make() -> Coordinator:
            engine = Engine(servers.servers, name="test")
            ends.callback(engine.close)
            return ClusterCoordinator(engine, app, "h1", data, say=print)

        first = make()
        first.acquire()
        first.replace(described.make(data.with_name("elsewhere")), generation=0)
        first.release()
        yield make


@pytest.fixture
def coordinator(make: Make) -> Coordinator:
    return make()


def test_one_at_a_time_holds_the_lease(make: Make, coordinator: Coordinator) -> None:
    coordinator.acquire()
    second = make()
    with pytest.raises(StoreLocked):
        second.acquire()
    assert coordinator.holds()
    coordinator.release()
    second.acquire()
    second.release()


def test_a_lease_on_data_that_was_replaced_is_none(data: Path, coordinator: Coordinator) -> None:
    coordinator.acquire()
    data.rename(data.with_name("moved"))
    assert not coordinator.holds()
    described.make(data)
    DirectoryCoordinator(data).acquire()
    assert not coordinator.holds()
    coordinator.release()


def test_a_description_replaces_the_one_that_it_was_made_from_and_no_other(
    coordinator: Coordinator,
) -> None:
    coordinator.acquire()
    first, second = coordinator.read(), coordinator.read()
    assert first is not None and second is not None
    before, first.generation, first.target = first.generation, first.generation + 1, "first"
    coordinator.replace(first, generation=before)
    second.target = "second"
    with pytest.raises(SkerryError, match="changed by somebody else"):
        coordinator.replace(second, generation=before)
    with pytest.raises(SkerryError, match="changed by somebody else"):
        coordinator.replace(second, generation=0)
    assert coordinator.read() == first
    coordinator.release()


def test_an_announcement_stands_until_it_is_withdrawn(coordinator: Coordinator) -> None:
    coordinator.acquire()
    assert coordinator.last_running() is None
    running = Running(pid=1, app="described", sockets="/somewhere", shards=[0, 1], secret="00")
    coordinator.announce(running)
    assert coordinator.last_running() == running
    coordinator.withdraw()
    coordinator.withdraw()
    assert coordinator.last_running() is None
    coordinator.release()
