"""Hosts of a cluster beside one host without, and beside bare appends to JetStream.

    python -m benchmarks.hosts [--rounds 3] [--hosts 3] [--workers 2] [--seconds 3] [--quick]

    round:  one host without a cluster
            1, 2, 3 hosts: each beside bare appends of the same sizes, just after
            `ask` and a bare append of its size in turn, on the hosts of the largest cluster
    end:    hosts killed, one after the other

Everything is on this machine: the hosts, the load, and the three NATS servers that `skerry cluster
up` makes. So hosts share the cores that one of them has alone, and a second host adds none. What
is told are the medians of the rounds, and ratios are of what was measured in the same round.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import nats
from msgspec import Struct
from nats.aio.client import Client
from rich.console import Console
from rich.table import Table

import skerry
from benchmarks import bare_log, command_line, hosted
from benchmarks.apps import NAMES, Account
from benchmarks.figures import in_folder, number
from benchmarks.hosted import Host, Servers
from benchmarks.running import CORES
from skerry.message import message
from skerry.runtime.client.connection import Connection
from skerry.runtime.cluster import names
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.description import Description

LEASE_S = 10.0
"""The default of `skerry run`."""

WARM_ASKS = 40
ANSWER_S = 120.0
"""How long an answer is waited for when a host was killed."""


class Plan(Struct, frozen=True):
    """How much is measured."""

    rounds: int
    hosts: int
    workers: int
    """Of each host."""
    warm_s: float
    seconds: float
    """Of each rate."""
    bare_s: float
    asks: int
    kills: int
    lease_s: float


QUICK = Plan(1, 2, 1, 0.5, 0.5, 0.3, 20, 1, 4.0)
"""A look at whether everything works: its figures say nothing."""


class Rate(Struct):
    """What some hosts did in a moment, and what bare appends did after it."""

    turns: float
    """A second."""
    skerry_us: float
    """Processor time of all processes of all hosts, for a turn."""
    nats_us: float
    bytes: float = 0.0
    """To JetStream, for a turn."""
    append_bytes: float = 0.0
    """Of an append, on average."""
    bare: float = 0.0
    """The turns a second whose bytes bare appends would take."""


class Asks(Struct):
    """Milliseconds that calls took."""

    here: list[float]
    """An ask of an entity of the host that the client is on."""
    there: list[float]
    """An ask of an entity of another host."""
    bare: list[float]
    """A bare append of as many bytes as such an ask appends."""


class Found(Struct):
    """Everything that was measured."""

    rates: dict[int, list[Rate]]
    """By the number of hosts; 0: one host without a cluster."""
    asks: list[Asks]
    away: list[float]
    """Seconds from a kill until all shards of the killed host answer."""


# ── turns ──


class Look(Struct):
    """Where everything stood at a moment."""

    seconds: float
    turns: int
    skerry_s: float
    nats_s: float
    logs: dict[str, int]
    """The newest sequence of each log."""


def rate(servers: Servers, count: int, plan: Plan, folder: str) -> Rate:
    """What so many hosts do at full speed; 0: one host without a cluster."""
    start = Path(folder) / "start"
    args = ["serve", "10000", "0", str(start)]
    cluster = servers if count else None
    with hosted.hosts(Path(folder), max(1, count), cluster, plan.workers, args) as hosts:
        start.touch()
        restarts = [host.restart() for host in hosts]
        assert not any(restart.wait() for restart in restarts), "each host reads its sources"
        before, after = asyncio.run(_looks(servers, hosts, plan))
        turns, seconds = after.turns - before.turns, after.seconds - before.seconds
        assert turns > 0, f"{count} hosts have done nothing in {seconds:.1f} s"
        found = Rate(
            turns / seconds,
            (after.skerry_s - before.skerry_s) * 1e6 / turns,
            (after.nats_s - before.nats_s) * 1e6 / turns,
        )
        logs = [
            bare_log.sizes(servers, log, before.logs[log], last) for log, last in after.logs.items()
        ]
    if logs:
        found.bytes = sum(map(sum, logs)) / turns
        found.append_bytes = statistics.mean(size for log in logs for size in log)
        found.bare = bare_log.bytes_per_s(servers, [log for log in logs if log], plan.bare_s)
        found.bare /= found.bytes
    return found


async def _looks(servers: Servers, hosts: Sequence[Host], plan: Plan) -> tuple[Look, Look]:
    connection = await Connection.open(hosts[0].data)

    async def look() -> Look:
        answers = [await connection.control(shard, "status") for shard in connection.shards]
        return Look(
            time.perf_counter(),
            sum(answer["turns"] for answer in answers),
            sum(host.cpu_s for host in hosts),
            servers.cpu_s,
            _newest(servers, hosts[0]),
        )

    try:
        await asyncio.sleep(plan.warm_s)
        before = await look()
        await asyncio.sleep(plan.seconds)
        return before, await look()
    finally:
        await connection.close()


def _newest(servers: Servers, host: Host) -> dict[str, int]:
    """The newest sequence of each log of the app; nothing without a cluster."""
    app = host.described
    if not app.homes:
        return {}

    async def ask(client: Client) -> dict[str, int]:
        logs = [names.log_of(app.app, app.incarnation, shard) for shard in app.placement.members]
        return {log: (await client.jetstream().stream_info(log)).state.last_seq for log in logs}

    return servers.engine.run(ask, bare_log.READ_S)


# ── asks ──


def asks(servers: Servers, plan: Plan, folder: str) -> Asks:
    """Asks and bare appends in turn, from one loop."""
    args = ["serve", "10000", "0"]
    with hosted.hosts(Path(folder), plan.hosts, servers, plan.workers, args) as hosts:
        return asyncio.run(_asked(servers, hosts[0], plan.asks))


async def _asked(servers: Servers, host: Host, count: int) -> Asks:
    # One loop has both, so neither pays for a thread that the other does without.
    client = await nats.connect(servers.url.split(","))
    found = Asks([], [], [])
    here, there = (_keys(host, at_host) for at_host in (True, False))
    async with skerry.AsyncClient(host.data) as app:

        async def ask(keys: Sequence[str], n: int) -> float:
            begun = time.perf_counter()
            await app.ask(Account.at(keys[n % len(keys)]).deposit, 1)
            return (time.perf_counter() - begun) * 1000

        before = _newest(servers, host)
        for n in range(WARM_ASKS):
            await ask(here, n)
            await ask(there, n)
        logs = [
            bare_log.sizes(servers, log, before[log], last)
            for log, last in _newest(servers, host).items()
        ]
        payload = bytes(int(statistics.mean(size for log in logs for size in log)))
        streams = [bare_log.Appends(client, f"bare-{place}") for place in range(len(logs))]
        for stream in streams:
            await stream.make()
        for n in range(count):
            found.here.append(await ask(here, n))
            begun = time.perf_counter()
            await streams[n % len(streams)].one(payload)
            found.bare.append((time.perf_counter() - begun) * 1000)
            found.there.append(await ask(there, n))
    await client.close()
    return found


def _keys(host: Host, at_host: bool) -> list[str]:
    """Keys of entities that this host has, or of those that others have."""
    app = host.described
    return [name for name in NAMES if (_home(app, name) == host.name) == at_host]


def _home(app: Description, name: str) -> str:
    return app.homes[app.placement.slots[slot_of("Account", name)]]


# ── kills ──


def kills(servers: Servers, plan: Plan, folder: str) -> list[float]:
    """Kill hosts, one after the other, the one that leads among them; the last one stays."""
    args, lease = ["serve", "10000", "0"], ["--lease", str(plan.lease_s)]
    with hosted.hosts(Path(folder), plan.kills + 1, servers, plan.workers, args, *lease) as hosts:
        *victims, last = hosts
        with skerry.Client(last.data).options(timeout=ANSWER_S) as client:
            for name in NAMES[:WARM_ASKS]:
                client.ask(Account.at(name).deposit, 1)
            return [away(client, last, victim) for victim in victims]


def away(client: skerry.Client, host: Host, victim: Host) -> float:
    """Kill a host; seconds until an entity of each of its shards has answered through another one."""
    app = host.described
    keys = {app.placement.slots[slot_of("Account", name)]: name for name in NAMES}
    lost = [key for shard, key in keys.items() if app.homes[shard] == victim.name]
    assert lost, f"{victim.name} has shards"
    victim.kill()
    begun = time.perf_counter()
    client.ask_many(message(Account.at(key).deposit, 1) for key in lost)
    return time.perf_counter() - begun


# ── all of it ──


def measured(plan: Plan, say: Callable[[str], None], folder: str) -> Found:
    """Everything, round by round."""
    found = Found({count: [] for count in range(plan.hosts + 1)}, [], [])
    numbers = itertools.count()

    def inner() -> str:
        return f"{folder}/{next(numbers)}"

    with hosted.servers(Path(folder) / "nats") as servers:
        for n in range(plan.rounds):
            for count, rates in found.rates.items():
                rates.append(rate(servers, count, plan, inner()))
                say(f"round {n + 1}: {_hosts(count)}: {number(rates[-1].turns)} turns/s")
            found.asks.append(asks(servers, plan, inner()))
            say(f"round {n + 1}: ask: {_ms(found.asks[-1].here, 0.5)} ms")
        found.away = kills(servers, plan, inner())
    return found


def _hosts(count: int) -> str:
    return f"{count} host{'s' * (count > 1)}" if count else "no cluster"


def _part(values: Sequence[float], part: float) -> float:
    return sorted(values)[int((len(values) - 1) * part)]


def _ms(values: Sequence[float], part: float) -> str:
    return f"{_part(values, part):.2f}"


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def rates_table(found: Found) -> Table:
    """Turns a second, and what they cost."""
    table = Table(title="turns of 10,000 entities, from sources at full speed")
    heads = ("", "turns/s", "least to most", "beside no cluster", "bare appends would take")
    for head in (*heads, "part of that", "CPU-us/turn", "of NATS", "B/turn", "B/append"):
        table.add_column(head, justify="right")
    alone = [rate.turns for rate in found.rates[0]]
    for count, rates in found.rates.items():
        turns = [rate.turns for rate in rates]
        beside = _median(here / there for here, there in zip(turns, alone))
        row = [
            _hosts(count),
            number(_median(turns)),
            f"{number(min(turns))} to {number(max(turns))}",
            f"{beside:.2f}",
        ]
        costs = [number(_median(rate.skerry_us for rate in rates))]
        if not count:
            table.add_row(*row, "", "", *costs)
            continue
        table.add_row(
            *row,
            number(_median(rate.bare for rate in rates)),
            f"{_median(rate.turns / rate.bare for rate in rates):.2f}",
            *costs,
            number(_median(rate.nats_us for rate in rates)),
            number(_median(rate.bytes for rate in rates)),
            number(_median(rate.append_bytes for rate in rates)),
        )
    return table


def asks_table(found: Found) -> Table:
    """What a caller waits."""
    table = Table(title="one at a time, ms")
    for head in ("", "p50", "p99", "p50 beside the append"):
        table.add_column(head, justify="right")
    kinds: dict[str, Callable[[Asks], list[float]]] = {
        "bare append": lambda asks: asks.bare,
        "ask, an entity of this host": lambda asks: asks.here,
        "ask, an entity of another host": lambda asks: asks.there,
    }
    for name, kind in kinds.items():
        p50, p99 = (_median(_part(kind(asks), part) for asks in found.asks) for part in (0.5, 0.99))
        ratio = _median(_part(kind(asks), 0.5) / _part(asks.bare, 0.5) for asks in found.asks)
        table.add_row(name, f"{p50:.2f}", f"{p99:.2f}", f"{ratio:.2f}")
    return table


def main() -> None:
    """Measure and print tables."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--rounds", type=command_line.count, default=3, help="their medians count")
    parser.add_argument("--hosts", type=command_line.count, default=3, help="at most")
    parser.add_argument("--workers", type=command_line.count, default=CORES, help="of each host")
    parser.add_argument("--seconds", type=command_line.amount, default=3.0, help="of each rate")
    parser.add_argument("--quick", action="store_true", help="only see whether everything works")
    given = parser.parse_args()
    plan = Plan(
        given.rounds,
        given.hosts,
        given.workers,
        warm_s=1.5,
        seconds=given.seconds,
        bare_s=2.0,
        asks=300,
        kills=2,
        lease_s=LEASE_S,
    )
    plan = QUICK if given.quick else plan
    started = time.perf_counter()
    found: Found = in_folder(partial(measured, plan, lambda line: print(line, flush=True)))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(f"{CORES} cores for hosts, load and three NATS servers; {plan}")
    console.print(rates_table(found))
    console.print(asks_table(found))
    times = ", ".join(f"{seconds:.1f}" for seconds in found.away)
    console.print(f"seconds from a kill to answers, with a lease of {plan.lease_s:g} s: {times}")
    console.print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
