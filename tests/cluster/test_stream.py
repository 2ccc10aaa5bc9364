"""A log in JetStream, on real servers: what is read of it while others change it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from skerry.runtime.cluster.appending import Acked
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.stream import WINDOW, JetStream
from tests.cluster.servers import Servers

COUNT = 2 * WINDOW


@pytest.fixture
def engine(nats: Servers) -> Iterator[Engine]:
    engine = Engine(nats.servers, name="tests")
    yield engine
    engine.close()


@pytest.fixture
def log(engine: Engine) -> Iterator[JetStream]:
    """A log with numbered messages."""
    found = JetStream(engine, f"skerry-read-{os.urandom(4).hex()}-0")
    found.create(replicas=1)
    for n in range(COUNT):
        assert found.publish(b"%d" % n, n) == Acked(found.name, n + 1)
    yield found
    found.delete()


def test_a_log_that_is_purged_while_it_is_read_is_read_again_and_not_damaged(
    log: JetStream,
) -> None:
    reading = log.read(*log.ends())
    assert next(reading) == (1, b"0")
    log.purge(COUNT)
    with pytest.raises(Away, match="was purged while it was read"):
        list(reading)
    assert list(log.read(*log.ends())) == [(COUNT, b"%d" % (COUNT - 1))]


def test_a_log_that_is_purged_between_the_look_at_its_ends_and_the_read_is_not_damaged(
    log: JetStream,
) -> None:
    ends = log.ends()
    log.purge(COUNT)
    with pytest.raises(Away, match="was purged while it was read"):
        list(log.read(*ends))
