"""Changes the number of simulated shards: while they run, or between two runs of the app.

The production code decides. What a shard is told it hears late; it is asked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from skerry.runtime.app import placer
from skerry.runtime.app.reshard import deal
from skerry.runtime.app.scaling import Scaling
from skerry.runtime.core.placement import Placement
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.keeper import Keeper
from skerry.runtime.simulator.machine import Machine

if TYPE_CHECKING:
    from skerry.runtime.simulator.cluster import Cluster

DOWN_STEPS_MAX = 50
"""The longest that a machine is down when nothing else keeps it from starting."""

AT_ONCE = (1, 20, 300)
"""How many slots move at once."""


class Mover:
    """Leads the shards of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._next_id = 0
        """Above the id of every shard that was ever made."""
        self.goal: list[int] | None = None
        """The members that the slots are on their way to; None: nothing moves."""
        self._held: Callable[[], bool] = bool
        """Whether no version may be made."""
        self._settled: Callable[[], None] | None = None
        """What is done when nothing is on its way."""

    def scale(self, shards: int) -> None:
        """Go on with this many shards: new ones come, the newest leave."""
        cluster = self._cluster
        kept = (self.goal or cluster.placement.members)[:shards]
        first = max(self._next_id, cluster.placement.next_id)
        new = list(range(first, first + shards - len(kept)))
        self._next_id = first + len(new)
        self.goal = [*kept, *new]
        cluster.points["scaled"] += 1
        cluster.machines += [Machine(id, cluster) for id in new]
        self._retire()
        for id in new:
            cluster.start(cluster.machine(id))

    def reshard(self, shards: int) -> None:
        """Deal the slots of shards that are down out to new ones."""
        cluster, self.goal = self._cluster, None
        first = max(self._next_id, cluster.placement.next_id)
        cluster.placement = placer.after(cluster.placement, range(first, first + shards))
        disks = _dealt({m.id: m.disk for m in cluster.machines}, cluster.placement)
        cluster.past += [machine.books for machine in cluster.machines]
        cluster.machines = [Machine(id, cluster) for id in disks]
        for machine in cluster.machines:
            machine.disk = disks[machine.id]
            machine.down_until = cluster.step_no + cluster.rng.randrange(1, DOWN_STEPS_MAX)
        cluster.keeper = Keeper(cluster.placement.members, cluster.lines.ask_if_quiet)
        cluster.lines.rerouted(cluster.placement.members)

    def hold(self, held: Callable[[], bool], settled: Callable[[], None]) -> None:
        """Make no version while it is held; say once when every member has finished the newest."""
        self._held, self._settled = held, settled

    def _rewire(self) -> None:
        shards = [machine.id for machine in self._cluster.machines]
        self._cluster.keeper.members(shards)
        self._cluster.lines.doors(shards)

    def step(self) -> None:
        """Tell shards of the newest version; make the next one when all have finished it."""
        cluster, placement = self._cluster, self._cluster.placement
        for machine in cluster.machines:
            shard, driver = machine.shard, machine.driver
            if shard is None or driver is None or shard.standing().version >= placement.version:
                continue
            if cluster.rng.random() < cluster.faults.sync:
                driver.place(("mover", machine.id), 0, placement)
        if self.goal is None and self._settled is None:
            return
        shards = {m.id: m.shard for m in cluster.machines if m.shard is not None}
        standings = {id: shard.standing() for id, shard in shards.items()}
        scaling = Scaling(self.goal or placement.members, cluster.rng.choice(AT_ONCE))
        if self._settled is not None and scaling.finished(placement, standings):
            settled, self._settled = self._settled, None
            settled()
        if self.goal is None or self._held():
            return
        if scaling.over(placement, standings):
            self.goal = None
        elif (found := scaling.next(placement, standings)) is not None:
            cluster.placement = found
            cluster.points["placements"] += 1
            self._retire()

    def _retire(self) -> None:
        """Let go of the shards that are no members, and will be none."""
        cluster, goal = self._cluster, self.goal or ()
        stay = {*cluster.placement.members, *goal}
        for machine in [m for m in cluster.machines if m.id not in stay]:
            cluster.points["retired"] += 1
            cluster.past.append(machine.books)
            machine.disk.close()
            machine.end()
            cluster.machines.remove(machine)
        self._rewire()


def _dealt(old: dict[int, MemoryStore], placement: Placement) -> dict[int, MemoryStore]:
    """Deal what lies on these disks out to the shards of another placement."""
    new = {id: MemoryStore() for id in placement.members}
    for disk in new.values():
        disk.prompt = True  # Dealing waits for disks, and no step passes meanwhile.
    deal(old, placement, new)
    for disk in new.values():
        disk.prompt = False
        disk.crash()
    return new
