"""A workload on a simulated cluster, and checks that share no code with the core."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from unittest import mock

import msgspec

from skerry.message import message
from skerry.runtime.core import schedule, shard, wire
from skerry.runtime.core.events import Table
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.streams import inbound, outbound, outboxes
from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.hosts import Hosted
from skerry.testing import Faults
from tests.simulation import program
from tests.simulation.apps import (
    MIRRORS,
    RECEIVERS,
    Account,
    Alarm,
    Bomb,
    Mayfly,
    Sender,
    Tally,
    app,
)
from tests.simulation.world import Events, World, drawn

ACCOUNTS, SENDERS, ALARMS, BEATS = 6, 4, 4, 20


class Plan:
    """What was asked of a cluster, for the checks."""

    def __init__(self) -> None:
        self.opened: list[int] = []
        self.armed: list[tuple[str, str]] = []
        self.disarmed: dict[int, tuple[str, str]] = {}
        self.tallied: dict[int, list[int]] = {0: [], 1: []}
        """By caller."""
        self.looked: list[int] = []
        self.named: dict[int, list[int]] = {}
        """Requests by the name that they share."""
        self.lit: list[int] = []
        self.lived: dict[str, list[int]] = {}
        """Messages by their mayfly."""


class Size(NamedTuple):
    """How much a run does: smaller is easier to read."""

    steps: int = 40
    roots: int = 8
    senders: int = SENDERS


WHOLE = Size()


def run(
    seed: int,
    faults: Faults | None = None,
    size: Size = WHOLE,
    watch: Callable[[Cluster], object] = id,
    world: World | None = None,
) -> Cluster:
    """One seed: everything at once, with faults, until all is quiet. Raises AssertionError.

    `watch` is given the cluster before it runs. `world`: None: drawn by the seed.
    """
    rng = random.Random(f"workload {seed}")
    world = drawn(seed) if world is None else world
    with _limits(rng, world, bombs=_has_bomb(seed)):
        return _run(seed, rng, faults, size, watch, world)


@contextmanager
def _limits(rng: random.Random, world: World, *, bombs: bool) -> Iterator[None]:
    """The core's sizes, small for some seeds: what happens at a limit happens often then. Where
    hours pass, the rows of a slot are looked through every few steps, not every minute. Where a
    message ends its worker, slow mode lasts until it is found."""
    look_ns = 4_000_000 if world.leaps or world.days else shard.LOOK_NS
    small = rng.random() < 0.5
    slow = 60 if small and not bombs else schedule.SLOW_MESSAGES
    with (
        mock.patch.object(inbound, "CREDIT_BYTES", 600 if small else inbound.CREDIT_BYTES),
        mock.patch.object(wire, "FRAME_BYTES", 300 if small else wire.FRAME_BYTES),
        mock.patch.object(outbound, "BODIES_IN_MEMORY_BYTES", 2000 if small else 32 << 20),
        mock.patch.object(outboxes, "PRESSED_BYTES", 5000 if small else outboxes.PRESSED_BYTES),
        mock.patch.object(shard, "LOOK_NS", look_ns),
        mock.patch.object(schedule, "SLOW_MESSAGES", slow),
    ):
        yield


def _has_bomb(seed: int) -> bool:
    return seed % 5 == 0


def _run(
    seed: int,
    rng: random.Random,
    faults: Faults | None,
    size: Size,
    watch: Callable[[Cluster], object],
    world: World,
) -> Cluster:
    cluster = (partial(Hosted, hosts=world.hosts) if world.hosts else Cluster)(
        app(drums=seed % 3, beats=BEATS),
        seed=seed,
        shards=1 + seed % 4,
        faults=faults or Faults(stranger=0.05 if seed % 6 == 1 else 0),
        limits=Limits(
            turns_per_batch_max=rng.choice([5, 50, 8192]),
            waiting_requests_max=rng.choice([2, 16_384]),
            held_requests_max=rng.choice([1, 16_384]),
            session_outcomes_max=rng.choice([20, 1 << 16]),
        ),
        slow={0} if seed % 7 == 0 else set(),
        callers=3,
    )
    watch(cluster)
    plan = Plan()
    asked, expected = program.begin(rng, roots=size.roots)
    plan.opened = [cluster.ask(message(Account.at(f"a{n}").deposit, 100)) for n in range(ACCOUNTS)]
    for n in range(size.senders):
        cluster.ask(message(Sender.at(f"s{n}").begin, 8))
    if _has_bomb(seed):
        plan.lit = [cluster.ask(message(Bomb.at("b").light, rng.choice(["dies", "hangs"])))]
    events = Events(world, cluster, plan.opened, size.steps)
    for number in range(size.steps):
        events.step(number)
        _one_step(cluster, rng, plan, events.days)
        if asked and rng.random() < 0.3:
            cluster.ask(asked.pop())
        cluster.run(16 if world.hosts else 8)
    for one in asked:
        cluster.ask(one)
    cluster.settle()
    # Clocks of hosts are set by an hour.
    set_on = cluster.points["host: clock set by an hour"]
    _check(cluster, plan, hours=bool(world.leaps or world.days or set_on))
    events.check()
    letters = [error for entity, error in dead_letters(cluster) if entity == "Node"]
    program.check(cluster, expected, len(letters))
    return cluster


def _one_step(cluster: Cluster, rng: random.Random, plan: Plan, day: int) -> None:
    to = rng.choice([f"a{rng.randrange(ACCOUNTS)}", "broken"])
    transfer = Account.at(f"a{rng.randrange(ACCOUNTS)}").transfer
    cluster.ask(message(transfer, to, rng.randrange(1, 60)), reply=rng.random() < 0.5)
    alarm, name = Alarm.at(f"alarm-{rng.randrange(ALARMS)}"), f"timer-{cluster.step_no}"
    plan.armed.append((alarm.key, name))
    cluster.ask(message(alarm.arm, name, rng.choice([0.0, 0.01, 0.1])))
    if rng.random() < 0.3:
        number = cluster.ask(message(alarm.disarm, name))
        plan.disarmed[number] = (alarm.key, name)
    for caller, numbers in plan.tallied.items():
        if rng.random() < 0.6:
            numbers.append(cluster.ask(message(Tally.at("t").next), caller=caller))
    if cluster.step_no % 3 == 0:
        fly = f"f{rng.randrange(3)}"
        number = cluster.ask(message(Mayfly.at(fly).live), caller=rng.randrange(2))
        plan.lived.setdefault(fly, []).append(number)
    if rng.random() < 0.5:
        plan.looked.append(cluster.look("Tally", "t", caller=rng.randrange(2)))
    if rng.random() < 0.3:
        name = rng.randrange(6) + 6 * day  # What a name stands for is known for a day.
        number = cluster.ask(
            message(Account.at("named").deposit, 1), caller=rng.choice([0, 2]), named=_name_of(name)
        )
        plan.named.setdefault(name, []).append(number)
    if rng.random() < 0.05:
        # Its process ends; the next one repeats what it gave a name.
        cluster.points["client restarted"] += 1
        cluster.callers[2].started()


def _name_of(name: int) -> bytes:
    return bytes([name]) * 16


def dead_letters(cluster: Cluster) -> list[tuple[str, str]]:
    """(entity type, error) of each, over all shards."""
    found = []
    for machine in cluster.machines:
        for _, row in machine.disk.scan(Table.DEAD):
            letter = msgspec.msgpack.decode(row)
            found.append((letter[1], letter[7]))
    return found


def _check(cluster: Cluster, plan: Plan, *, hours: bool) -> None:
    seed = cluster.seed
    assert all(cluster.outcomes[number].kind == "done" for number in plan.opened)
    states = [cluster.state("Account", f"a{n}") for n in range(ACCOUNTS)]
    money = sum(state.balance for state in states)
    assert money == ACCOUNTS * 100, f"seed {seed}: money is {money}"
    assert cluster.state("Account", "broken") is None
    check_order(cluster)
    check_emitted(cluster)
    _check_tally(cluster, plan)
    _check_named(cluster, plan)
    _check_bomb(cluster, plan)
    _check_lived(cluster, plan, hours=hours)
    for key in {key for key, _ in plan.armed}:
        alarm: Any = cluster.state("Alarm", key)
        cancelled = [
            name
            for number, (of, name) in plan.disarmed.items()
            if of == key and msgspec.msgpack.decode(cluster.outcomes[number].body)
        ]
        assert sorted(alarm.cancelled) == sorted(cancelled), f"seed {seed}: {key}"
        expected = sorted({name for of, name in plan.armed if of == key} - set(cancelled))
        assert sorted(alarm.rung) == expected, f"seed {seed}: I10: {key}"


def _check_tally(cluster: Cluster, plan: Plan) -> None:
    """Nothing twice, each client's in order, and linearizable, with `get`s between."""
    seed, decode = cluster.seed, msgspec.msgpack.decode
    numbers = [n for of_one in plan.tallied.values() for n in of_one]
    places = {n: decode(cluster.outcomes[n].body) for n in numbers}
    assert sorted(places.values()) == list(range(1, len(numbers) + 1)), f"seed {seed}: I1: tally"
    for caller, of_one in plan.tallied.items():
        inorder = [places[n] for n in of_one if n not in cluster.callers[caller].refused]
        assert inorder == sorted(inorder), f"seed {seed}: client {caller}'s ran out of order"
    # Of a counter this is all there is to it: what ended before another began has no larger
    # value, and no equal one when the other counts.
    done = [(place, 0, n) for n, place in places.items()]
    for n in plan.looked:
        state = cluster.looks[n]
        done.append((0 if state is None else decode(state)[1], 1, n))
    newest = 0
    for _, _, n in sorted(done):
        newest = max(newest, cluster.asked_at[n])
        assert cluster.answered_at[n] >= newest, f"seed {seed}: not linearizable: {n}"


def check_emitted(cluster: Cluster) -> None:
    """At each sink: every number that a receiver took, once, in the order of its taking."""
    for sink, copies in ((0, 1), (1, 2)):
        came: dict[tuple[str, str], list[int]] = {}
        for receiver, sender, number in cluster.shore.came_out("taken", sink):
            came.setdefault((receiver, sender), []).append(number)
        for n in range(RECEIVERS):
            receiver: Any = cluster.state("Receiver", f"r{n}")
            for sender, last in receiver.last.items() if receiver else ():
                wanted = [i for i in range(1, last + 1) if sink or i != 5 for _ in range(copies)]
                found = came.pop((f"r{n}", sender), [])
                assert found == wanted, f"seed {cluster.seed}: sink {sink}: {sender} to r{n}"
        assert not came, f"seed {cluster.seed}: sink {sink}: {came}"
    for pipeline in cluster.app.pipelines[1:]:
        for partition in pipeline.source.partitions():
            _check_flute(cluster, partition)


def _check_flute(cluster: Cluster, partition: str) -> None:
    """Straight from a source: every tone once and in order; by keys twice, in order for each."""
    tones = [n for of, n in cluster.shore.came_out("flutes sink 0", 0) if of == partition]
    assert tones == list(range(BEATS)), f"seed {cluster.seed}: I1, I2: flute {partition}: {tones}"
    keyed = [n for of, n in cluster.shore.came_out("flutes sink 1", 0) if of == partition]
    for key in range(5):
        wanted = [n for n in range(key, BEATS, 5) for _ in range(2)]
        found = [n for n in keyed if n % 5 == key]
        assert found == wanted, f"seed {cluster.seed}: I1, I2: flute {partition}/{key}: {found}"


def _check_flows(cluster: Cluster) -> None:
    """What the drums reply flows on through two stages, each beat once; so do changes, each commit once."""
    partitions = cluster.app.pipelines[0].source.partitions()
    beats = sum(cluster.state("Sender", f"drum-{partition}").sent for partition in partitions)
    mirrors = [cluster.state("Mirror", f"m{n}") for n in range(MIRRORS)]
    assert sum(mirror.count for mirror in mirrors) == beats, f"seed {cluster.seed}: I1: mirrors"
    for n in range(MIRRORS):
        changes, heard = (cluster.state(name, f"m{n}").value for name in ("changes", "heard"))
        assert heard == mirrors[n].count, f"seed {cluster.seed}: I1: what m{n} replied"
        assert 0 < changes <= heard, f"seed {cluster.seed}: I1: {changes} changes of m{n}"


def _check_named(cluster: Cluster, plan: Plan) -> None:
    """What shares a name ran once, and all were told the same."""
    named = cluster.state("Account", "named")
    assert (named.balance if named else 0) == len(plan.named), f"seed {cluster.seed}: I1: named"
    for numbers in plan.named.values():
        told = {cluster.outcomes[n].body for n in numbers}
        assert len(told) == 1, f"seed {cluster.seed}: I1: one name, {len(told)} outcomes"


def _check_bomb(cluster: Cluster, plan: Plan) -> None:
    """A message that ends its worker is a dead letter, and its asker is told."""
    kinds = [cluster.outcomes[n].kind for n in plan.lit]
    assert kinds == ["failed"] * len(plan.lit), f"seed {cluster.seed}: the bomb: {kinds}"
    assert cluster.state("Bomb", "b") is None


def _check_lived(cluster: Cluster, plan: Plan, *, hours: bool) -> None:
    """One, two, three, gone: nothing of an earlier life is left, no timer either. `hours`: some
    passed, so it may have been rung after each message."""
    for fly, numbers in plan.lived.items():
        said = sorted(msgspec.msgpack.decode(cluster.outcomes[n].body) for n in numbers)
        wanted = sorted(n % 3 + 1 for n in range(len(numbers)))
        assert said == wanted, f"seed {cluster.seed}: I1: {fly}: {said}"
        state, left = cluster.state("Mayfly", fly), len(numbers) % 3
        found = (state.lived, state.rung) if state else (0, 0)
        rung = range(min(left, 1), (left if hours else min(left, 1)) + 1)
        assert found[0] == left, f"seed {cluster.seed}: {fly}: {found}"
        assert found[1] in rung, f"seed {cluster.seed}: {fly}: {found}"


def check_order(cluster: Cluster) -> None:
    """Numbers of each sender at each receiver: all, once, in order."""
    senders = [f"s{n}" for n in range(SENDERS) if cluster.state("Sender", f"s{n}")]
    for pipeline in cluster.app.pipelines[:1]:
        for partition in pipeline.source.partitions():
            # One beat has an empty key: a dead letter instead of a message.
            sent = cluster.state("Sender", f"drum-{partition}").sent
            assert sent == BEATS - 1, f"seed {cluster.seed}: I1: drum {partition} beat {sent} times"
        senders += [f"drum-{partition}" for partition in pipeline.source.partitions()]
    if cluster.app.pipelines:
        _check_flows(cluster)
    for n in range(RECEIVERS):
        receiver: Any = cluster.state("Receiver", f"r{n}")
        assert receiver is not None or not senders
        for sender in senders:
            sent = cluster.state("Sender", sender).sent
            assert receiver.last[sender] == sent, f"seed {cluster.seed}: I1, I2: {sender} to r{n}"
    for _, error in dead_letters(cluster):
        assert "out of order" not in error, f"seed {cluster.seed}: I2: {error}"
