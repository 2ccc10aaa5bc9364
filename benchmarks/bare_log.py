"""Bare appends to JetStream: what an app in a cluster can't do without.

Streams are set up as the logs of shards are, and each append names the sequence that it expects, as
theirs do. Here they come from a loop that does nothing else, from a process for each stream, over
the client library that skerry has.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from nats.aio.client import Client
from nats.js.api import ConsumerConfig, DeliverPolicy

from benchmarks.hosted import NODES, Servers
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.stream import settings

IN_FLIGHT = 1
"""Appends of a shard that are on their way at once: the next one names the sequence of this one."""

READ_S = 10.0
GRACE_S = 10.0


class Appends:
    """Appends to one stream, one after the other."""

    def __init__(self, client: Client, name: str) -> None:
        self._context, self._name = client.jetstream(), name
        self._last = 0

    async def make(self) -> None:
        """Make the stream, as the log of a shard is made."""
        await self._context.add_stream(settings(self._name, replicas=NODES))

    async def one(self, payload: bytes) -> None:
        """Append a message; it is durable on a majority of servers when this returns."""
        headers = {"Nats-Expected-Last-Sequence": str(self._last)}
        ack = await self._context.publish(self._name, payload, headers=headers)
        assert ack.seq == self._last + 1, f"{self._name}: {ack.seq} follows {self._last}"
        self._last = ack.seq


def sizes(servers: Servers, name: str, after: int, last: int) -> list[int]:
    """The sizes of a log's messages behind one sequence, up to another one."""

    if last == after:
        return []

    async def ask(client: Client) -> list[int]:
        config = ConsumerConfig(
            headers_only=True,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=after + 1,
        )
        told = await client.jetstream().subscribe(name, ordered_consumer=True, config=config)
        found = [await told.next_msg(READ_S) for _ in range(last - after)]
        await told.unsubscribe()
        return [int((message.headers or {})["Nats-Msg-Size"]) for message in found]

    return servers.engine.run(ask, 2 * READ_S)


def bytes_per_s(servers: Servers, logs: Sequence[Sequence[int]], seconds: float) -> float:
    """Bytes a second that these servers take when messages of the same sizes are all that is done.

    Args:
        logs: for each log the sizes of its messages, in their order.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    for place, log in enumerate(logs):
        name = f"bare-{place}"
        ours, theirs = context.Pipe()
        given = (servers.url.split(","), name, log, seconds, theirs)
        context.Process(target=_appending, args=given, daemon=True).start()
        theirs.close()
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()  # It is connected. EOFError: it has ended, its traceback stands above.
    for pipe in pipes:
        pipe.send(None)
    rate = sum(pipe.recv() for pipe in pipes)
    servers.clear()
    return float(rate)


def _appending(urls: list[str], name: str, sizes: list[int], seconds: float, pipe: Any) -> None:
    engine = Engine(urls, name=name)
    noise = os.urandom(max(sizes))

    async def ask(client: Client) -> float:
        appends = Appends(client, name)
        await appends.make()
        await appends.one(noise[: sizes[0]])
        pipe.send(None)
        pipe.recv()
        sent, start = 0, time.perf_counter()
        for size in itertools.cycle(sizes):
            await appends.one(noise[:size])
            sent += size
            if (spent := time.perf_counter() - start) > seconds:
                return sent / spent
        return 0.0

    pipe.send(engine.run(ask, seconds + GRACE_S))
    engine.close()
