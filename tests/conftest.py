"""Settings of every test: no property passes or fails by the time that an example takes."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

TESTS = Path(__file__).parent
WAITING = [TESTS / room for room in ("cluster", "link", "simulation")]
"""Folders whose tests wait for leases and elections, or run in one process."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for two processes: each test runs beside one of the other group, as they are listed."""
    for item in items:
        waits = any(item.path.is_relative_to(folder) for folder in WAITING)
        item.add_marker(pytest.mark.xdist_group("waiting" if waits else "busy"))
