"""Who may run an app, and what its processes agree on: the promises of the coordinator's port."""

from __future__ import annotations

from pathlib import Path

import pytest

from skerry.errors import SkerryError, StoreLocked
from skerry.runtime.app.coordinator import DirectoryCoordinator
from skerry.runtime.description import Running
from skerry.runtime.ports import Coordinator
from tests.store import described


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An app that has run once."""
    described.make(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def coordinator(data: Path) -> Coordinator:
    return DirectoryCoordinator(data)


def test_one_at_a_time_holds_the_lease(data: Path, coordinator: Coordinator) -> None:
    coordinator.acquire()
    second = DirectoryCoordinator(data)
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


def test_an_announcement_stands_until_it_is_withdrawn(coordinator: Coordinator) -> None:
    assert coordinator.last_running() is None
    running = Running(pid=1, app="described", sockets="/somewhere", shards=[0, 1], secret="00")
    coordinator.announce(running)
    assert coordinator.last_running() == running
    coordinator.withdraw()
    coordinator.withdraw()
    assert coordinator.last_running() is None
