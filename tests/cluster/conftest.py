"""Tests with real NATS servers: what one test has broken is whole for the next."""

from collections.abc import Iterator

import pytest

from tests.cluster.servers import Servers, nats

__all__ = ["nats"]


@pytest.fixture(autouse=True)
def _healed(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "nats" in request.fixturenames:
        servers: Servers = request.getfixturevalue("nats")
        servers.heal()
