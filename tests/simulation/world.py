"""What happens to an app beside faults: its workers change, hours pass, others ask for other things.

Which of it happens to a seed is drawn, by a generator of its own: a seed without any runs as it
did before there was a world. What happens is counted in the cluster's `points`, and checked here.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from msgspec.structs import replace

from skerry.runtime.simulator.cluster import Cluster
from tests.simulation import releases
from tests.simulation.releases import Foreign

HOUR_NS = 3600 * 10**9
HOURS_MAX = 11
"""An outcome is surely known for half a day: see `retention.LIFETIME_NS`."""


class World(NamedTuple):
    """How often it happens in a run."""

    reshards: int = 0
    """Changes of the number of workers."""
    leaps: int = 0
    """Times that some hours pass at once, while all is under way."""
    days: int = 0
    """Times that a day passes while nobody asks."""
    scans: float = 0
    """Scans beside writes, per step of the workload."""
    retries: float = 0
    """The same of retries of all dead letters."""
    releases: float = 0
    """The same of requests of clients of another release."""
    astray: float = 0
    """Messages to a door that another one hears as well."""
    torn: float = 0
    """Openings that end in another kill: what a torn write left stands right behind them."""
    scales: int = 0
    """Changes of the number of workers while the app runs."""
    weighs: int = 0
    """Times that slots move by load."""
    hosts: int = 0
    """Hosts that the shards live on; 0: one machine each, which is always there."""


NONE = World()


def drawn(seed: int, *, moves: bool = False, hosts: bool = False) -> World:
    """The world of a seed: most of them have a little of it.

    `moves`: whether workers come and go in it at any rate, while the app runs.
    `hosts`: whether the shards live on hosts of a cluster.
    """
    rng = random.Random(f"world {seed}")

    def sometimes(value: Any, chance: float = 0.25) -> Any:
        return value if rng.random() < chance else 0

    world = World(
        reshards=sometimes(rng.randint(1, 3)),
        leaps=sometimes(rng.randint(1, 3), 0.15),
        days=sometimes(1, 0.08),
        scans=sometimes(0.2),
        retries=sometimes(0.1),
        releases=sometimes(0.2),
        astray=sometimes(0.05),
        torn=sometimes(0.5),
    )
    world = world._replace(scales=sometimes(rng.randint(1, 4), 1 if moves else 0.4))
    world = world._replace(weighs=sometimes(rng.randint(1, 6), 0.3))
    if hosts:  # Which change no placement while all are down.
        world = world._replace(hosts=rng.randint(2, 4), reshards=0, torn=0)
    return world


class Events:
    """What the world does to a cluster, and what must come of it."""

    def __init__(self, world: World, cluster: Cluster, opened: list[int], steps: int) -> None:
        self._world, self._cluster, self._opened = world, cluster, opened
        self._rng = random.Random(f"events {cluster.seed}")
        self._plan: dict[int, list[str]] = {}
        for name, times in [
            ("reshard", world.reshards),
            ("scale", world.scales),
            ("weigh", world.weighs),
            ("leap", world.leaps),
            ("day", world.days),
        ]:
            for _ in range(times):
                self._plan.setdefault(self._rng.randrange(max(1, steps)), []).append(name)
        self._scans: dict[int, str] = {}
        self._asked: dict[int, Foreign] = {}
        for caller in cluster.callers[:2] if world.releases else ():
            caller.believed = releases.BELIEVED
        self.days = 0
        """How many have passed."""
        if world.astray:
            cluster.lines.astray = lambda: self._rng.random() < world.astray
        if world.torn:
            cluster.dies_opening = lambda: self._rng.random() < world.torn
            # A slower disk, and more kills: more of what a kill takes was one write.
            faults = cluster.faults
            cluster.faults = replace(faults, sync=faults.sync / 5, crash=faults.crash * 4)
        self._faults = cluster.faults

    def step(self, number: int) -> None:
        """What happens in this step of the workload."""
        world, cluster, rng = self._world, self._cluster, self._rng
        for name in self._plan.get(number, ()):
            getattr(self, f"_{name}")()
        if rng.random() < world.scans and all(n in cluster.outcomes for n in self._opened):
            name = rng.choice(["Account", "Mayfly", "Alarm"])
            self._scans[cluster.scan(name, limit=rng.randint(1, 3), caller=1)] = name
            cluster.points["scans beside writes"] += 1
        if rng.random() < world.retries:
            cluster.points["dead letters retried in bulk"] += len(cluster.dead())
            cluster.retry_all()
        if rng.random() < world.releases:
            foreign = releases.drawn(rng)
            asked = cluster.ask(foreign.message(), caller=rng.randrange(2))
            self._asked[asked] = foreign
            cluster.points["requests of another release"] += 1

    def _reshard(self) -> None:
        self._cluster.reshard(self._rng.randint(1, 4))

    def _scale(self) -> None:
        self._cluster.scale(self._rng.randint(1, 4))

    def _weigh(self) -> None:
        self._cluster.weigh()

    def _leap(self) -> None:
        hours = HOURS_MAX * self._rng.random() / self._world.leaps
        self._cluster.clock_ns += int(hours * HOUR_NS)
        self._cluster.points["hours passed"] += 1

    def _day(self) -> None:
        self._cluster.settle()
        self._cluster.faults = self._faults
        self._cluster.clock_ns += 25 * HOUR_NS
        self._cluster.points["a day passed"] += 1
        self.days += 1

    def check(self) -> None:
        """Once all is quiet. Raises AssertionError."""
        cluster, seed = self._cluster, self._cluster.seed
        for number, name in self._scans.items():
            keys = cluster.scans[number]
            assert len(keys) == len(set(keys)), f"seed {seed}: a scan saw a key twice: {keys}"
            stood = {f"a{n}" for n in range(len(self._opened))} if name == "Account" else set()
            assert stood <= set(keys), f"seed {seed}: a scan did not see {stood - set(keys)}"
        kinds = {number: cluster.outcomes[number].kind for number in self._asked}
        wanted = {number: foreign.kind for number, foreign in self._asked.items()}
        assert kinds == wanted, f"seed {seed}: requests of another release"
        account = cluster.state("Account", releases.KEY)
        deposited = sum(foreign.deposits for foreign in self._asked.values())
        assert (account.balance if account else 0) == deposited, f"seed {seed}: I1: foreign"
