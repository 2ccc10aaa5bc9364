"""Restate: a virtual object a key, asked by a client and sent to by a service.

After its guide: "Services" and "State" (virtual objects), "Service Communication" (one-way
messages), "HTTP" invocation (the client of the SDK was slower) and "Serving" (Hypercorn in
its production settings, a process a core). The server runs with its defaults.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from threading import Lock
from typing import Any

import httpx
import restate

from benchmarks.peers import figure, load
from benchmarks.peers.figure import Done, Figure, Given

IN_FLIGHT = 50
"""Requests at once, of each of two clients."""
FANNED_OUT = 500
"""Messages that one invocation of the service sends."""

HYPERCORN = """\
bind = "127.0.0.1:{port}"
h2_max_concurrent_streams = 2147483647
keep_alive_max_requests = 2147483647
keep_alive_timeout = 2147483647
workers = 2
"""

account = restate.VirtualObject("Account")
feeder = restate.Service("Feeder")
app = restate.app([account, feeder])


@account.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    """The state of one key."""
    value = (await ctx.get("value", type_hint=int) or 0) + amount
    ctx.set("value", value)
    return value


@account.handler()
async def transfer(ctx: restate.ObjectContext, amount: int) -> None:
    """Take it, send it to another key."""
    ctx.set("value", (await ctx.get("value", type_hint=int) or 0) - amount)
    ctx.object_send(add, key=load.other(ctx.key()), arg=amount)


@feeder.handler()
async def feed(ctx: restate.Context, part: list) -> None:
    """A message to each key of this part of the load."""
    partition, start, stop = part
    for position in range(start, stop):
        ctx.object_send(add, key=load.key(partition, position), arg=1)


@feeder.handler()
async def feed_transfers(ctx: restate.Context, part: list) -> None:
    """A transfer from each key of this part of the load."""
    partition, start, stop = part
    for position in range(start, stop):
        ctx.object_send(transfer, key=load.key(partition, position), arg=1)


class Served:
    """The service, known to the server."""

    def __init__(self, ingress: str, admin: str) -> None:
        self.ingress, self.admin = ingress, admin

    def query(self, sql: str) -> list[dict[str, Any]]:
        """What the server knows."""
        answer = httpx.post(
            f"{self.admin}/query",
            json={"query": sql},
            headers={"accept": "application/json"},
            timeout=60,
        )
        return answer.raise_for_status().json()["rows"]

    def states(self) -> dict[str, int]:
        """What all objects hold."""
        rows = self.query("SELECT service_key, value_utf8 FROM state WHERE key = 'value'")
        return {row["service_key"]: int(row["value_utf8"]) for row in rows}

    def settled(self) -> None:
        """Returns when no message is left in flight."""
        left = "SELECT count(*) AS n FROM sys_invocation WHERE status <> 'completed'"
        while self.query(left)[0]["n"]:
            time.sleep(0.1)


@contextmanager
def served(given: Given) -> Iterator[Served]:
    """Hypercorn with two processes, registered with the server."""
    ingress, admin = given.server.split()
    port = figure.free_port()
    config = given.folder / "hypercorn.toml"
    config.write_text(HYPERCORN.format(port=port))
    command = [sys.executable, "-m", "hypercorn", "--config", str(config)]
    serving = subprocess.Popen([*command, "benchmarks.peers.restate:app"], stdout=sys.stderr)
    try:
        figure.wait_for(port)
        deployment = {"uri": f"http://127.0.0.1:{port}", "force": True}
        httpx.post(f"{admin}/deployments", json=deployment, timeout=60).raise_for_status()
        yield Served(ingress, admin)
    finally:
        serving.terminate()
        serving.wait()


def call(connection: HTTPConnection, path: str, body: object) -> bytes:
    """A request and its reply."""
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {said[:200]!r}")
    return said


def call_all(ingress: str, requests: Iterable[tuple[str, object]]) -> None:
    """All of them, each of so many threads with a connection of its own."""
    waiting, taking = iter(requests), Lock()

    def some() -> None:
        connection = HTTPConnection(ingress)
        while True:
            with taking:
                request = next(waiting, None)
            if request is None:
                return
            call(connection, *request)

    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        for done in [pool.submit(some) for _ in range(IN_FLIGHT)]:
            done.result()


def asked(handler: str) -> Callable[[Given], Iterator[tuple[str, object]]]:
    """A request for each message."""
    return lambda given: (
        (f"/Account/{name}/{handler}", 1) for name in load.keys(given.partitions, given.count)
    )


def parts(handler: str) -> Callable[[Given], Iterator[tuple[str, object]]]:
    """A request for each part of the load, to a service that sends the messages."""
    return lambda given: (
        (f"/Feeder/{handler}", [partition, start, min(start + FANNED_OUT, given.count)])
        for partition in given.partitions
        for start in range(0, given.count, FANNED_OUT)
    )


def measured(
    requests: Callable[[Given], Iterator[tuple[str, object]]],
) -> Callable[[Given], Done]:
    """By two clients at once, until nothing is left in flight; what was there is taken off."""

    def run(given: Given) -> Done:
        with served(given) as server:
            before = server.states()

            def work(part: Given, ready: Callable[[], None]) -> None:
                ready()
                call_all(server.ingress, requests(part))

            start = time.perf_counter()
            figure.at_once(2, work, given)
            server.settled()
            seconds = time.perf_counter() - start
            return Done(seconds, changed(before, server.states()))

    return run


def ask(given: Given) -> Done:
    """A call and its reply is a request."""
    with served(given) as server:
        before = server.states()
        connection = HTTPConnection(server.ingress)
        took = figure.asked(lambda name: call(connection, f"/Account/{name}/add", 1), given)
        return Done(sum(took) / 1000, changed(before, server.states()), took)


def changed(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    """What a run added to what was there."""
    return {name: value - before.get(name, 0) for name, value in after.items()}


ONCE = "each step synced in its log, each message takes effect once"
FIGURES = [
    Figure("keyed_counter", "asked, 100 at once", ONCE, 600, measured(asked("add"))),
    Figure("keyed_counter", "sent by a service", ONCE, 800, measured(parts("feed"))),
    Figure("transfers", "asked, 100 at once", ONCE, 350, measured(asked("transfer"))),
    Figure("transfers", "sent by a service", ONCE, 350, measured(parts("feed_transfers"))),
    Figure("ask", "a virtual object", ONCE, 150, ask, 1),
]

if __name__ == "__main__":
    figure.main("restate-sdk", FIGURES, first=ask)
