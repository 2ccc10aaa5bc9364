"""A workload on a simulated cluster, and checks that share no code with the core."""

from __future__ import annotations

import random
from typing import Any

import msgspec

from skerry.message import message
from skerry.runtime.shard.events import Table
from skerry.runtime.shard.shard import Limits
from skerry.runtime.simulator.cluster import Cluster
from tests.simulation.apps import RECEIVERS, Account, Alarm, Sender, app

ACCOUNTS, SENDERS, ALARMS = 6, 4, 4


def run(seed: int) -> Cluster:
    """One seed: everything at once, with faults, until all is quiet. Raises AssertionError."""
    rng = random.Random(f"workload {seed}")
    cluster = Cluster(
        app(drums=seed % 3, beats=20),
        seed=seed,
        shards=1 + seed % 4,
        limits=Limits(turns_per_batch_max=rng.choice([5, 50, 8192])),
        slow={0} if seed % 7 == 0 else set(),
    )
    opened = [cluster.ask(message(Account.at(f"a{n}").deposit, 100)) for n in range(ACCOUNTS)]
    for n in range(SENDERS):
        cluster.ask(message(Sender.at(f"s{n}").begin, 8))
    armed: list[tuple[str, str]] = []
    disarmed: dict[int, tuple[str, str]] = {}
    for step in range(40):
        to = rng.choice([f"a{rng.randrange(ACCOUNTS)}", "broken"])
        transfer = message(
            Account.at(f"a{rng.randrange(ACCOUNTS)}").transfer, to, rng.randrange(1, 60)
        )
        cluster.ask(transfer, reply=rng.random() < 0.5)
        alarm = Alarm.at(f"alarm-{rng.randrange(ALARMS)}")
        name = f"timer-{step}"
        armed.append((alarm.key, name))
        cluster.ask(message(alarm.arm, name, rng.choice([0.0, 0.01, 0.1])))
        if rng.random() < 0.3:
            number = cluster.ask(message(alarm.disarm, name))
            disarmed[number] = (alarm.key, name)
        cluster.run(8)
    cluster.settle()
    _check(cluster, opened, armed, disarmed)
    return cluster


def _check(
    cluster: Cluster,
    opened: list[int],
    armed: list[tuple[str, str]],
    disarmed: dict[int, tuple[str, str]],
) -> None:
    seed = cluster.seed
    assert all(cluster.outcomes[number].kind == "done" for number in opened)
    states = [cluster.state("Account", f"a{n}") for n in range(ACCOUNTS)]
    money = sum(state.balance for state in states)
    assert money == ACCOUNTS * 100, f"seed {seed}: money is {money}"
    assert cluster.state("Account", "broken") is None
    _check_order(cluster)
    for key in {key for key, _ in armed}:
        alarm: Any = cluster.state("Alarm", key)
        cancelled = [
            name
            for number, (of, name) in disarmed.items()
            if of == key and msgspec.msgpack.decode(cluster.outcomes[number].body)
        ]
        assert sorted(alarm.cancelled) == sorted(cancelled), f"seed {seed}: {key}"
        expected = sorted({name for of, name in armed if of == key} - set(cancelled))
        assert sorted(alarm.rung) == expected, f"seed {seed}: I10: {key}"


def _check_order(cluster: Cluster) -> None:
    senders = [f"s{n}" for n in range(SENDERS)]
    for pipeline in cluster.app.pipelines:
        senders += [f"drum-{partition}" for partition in pipeline.source.partitions()]
    for n in range(RECEIVERS):
        receiver: Any = cluster.state("Receiver", f"r{n}")
        for sender in senders:
            sent = cluster.state("Sender", sender).sent
            assert receiver.last[sender] == sent, f"seed {cluster.seed}: I1, I2: {sender} to r{n}"
    for machine in cluster.machines:
        for _, row in machine.disk.scan(Table.DEAD):
            error = msgspec.msgpack.decode(row)[7]
            assert "out of order" not in error, f"seed {cluster.seed}: I2: {error}"
