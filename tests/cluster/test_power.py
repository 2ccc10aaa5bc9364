"""What is left of a log in NATS after power cuts, on real servers with disks of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from skerry.runtime.cluster import nodes, server
from skerry.runtime.cluster.appending import Appending, Step
from skerry.runtime.cluster.bucket import patiently
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.server import name_of
from skerry.runtime.cluster.stream import ASK_S, JetStream
from skerry.runtime.ports import LogDamaged
from tests.cluster.disks import PoweredServers, missing
from tests.cluster.servers import servers_of

LOG = "skerry-power-00000000-0"
COUNT = 200
"""Messages that are appended before each cut."""

MESSAGE_BYTES = 200


@pytest.fixture
def powered(tmp_path: Path) -> Iterator[PoweredServers]:
    if lacks := missing(tmp_path):
        pytest.skip(f"needs {lacks}")
    (tmp_path / "nats").mkdir()
    yield from servers_of(PoweredServers, tmp_path / "nats")


@pytest.fixture
def lazy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers sync as by default, some time later."""

    def configuration(*args: Any, **more: Any) -> str:
        return server.configuration(*args, **more).replace("sync_interval: always", "")

    monkeypatch.setattr(nodes, "configuration", configuration)


@pytest.fixture
def engine(powered: PoweredServers) -> Iterator[Engine]:
    found = Engine(powered.servers, name="test")
    yield found
    found.close()


@pytest.fixture
def log(engine: Engine) -> JetStream:
    found = JetStream(engine, LOG)
    found.create(replicas=3)
    return found


def append(log: JetStream, first: int) -> None:
    """Append numbered messages; returns when all of them count."""
    for n in range(first, first + COUNT):
        append = Appending(LOG, n, f"{n:>{MESSAGE_BYTES}}".encode())
        while append.step in (Step.PUBLISH, Step.LOOK):
            if append.step is Step.PUBLISH:
                append.published(log.publish(append.payload, append.expected))
            else:
                append.looked(log.look(append.sequence))
        assert append.step is Step.DURABLE


def read(log: JetStream) -> list[int]:
    """The numbers that stand there."""
    return patiently(lambda: [int(payload) for _, payload in log.read(1, log.ends()[1])])


def lead(powered: PoweredServers, engine: Engine, node: int) -> None:
    """Have a node lead the log."""
    request = json.dumps({"placement": {"preferred": name_of(node)}}).encode()

    async def step_down(client: Client) -> None:
        await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{LOG}", request, timeout=ASK_S)

    while powered.leader(LOG) != node:
        with suppress(Away):
            engine.run(step_down, ASK_S)


def test_what_was_acknowledged_outlives_power_cuts_of_each_server_and_of_all(
    powered: PoweredServers, engine: Engine, log: JetStream
) -> None:
    append(log, 0)
    for times, i in enumerate(powered.indexes, 1):
        powered.cut(i)
        powered.heal()
        lead(powered, engine, i)
        assert read(log) == list(range(times * COUNT))
        append(log, times * COUNT)
    powered.cut(*powered.indexes)
    powered.heal()
    for i in powered.indexes:
        lead(powered, engine, i)
        assert read(log) == list(range(4 * COUNT))


def test_servers_that_sync_later_forget_what_they_have_acknowledged(
    lazy: None, powered: PoweredServers, log: JetStream
) -> None:
    """Which is what a host that starts says of them; and that these disks do forget."""
    append(log, 0)
    powered.cut(*powered.indexes)
    powered.heal()
    try:
        assert read(log) != list(range(COUNT))
    except LogDamaged as damage:
        assert "is missing" in str(damage)
