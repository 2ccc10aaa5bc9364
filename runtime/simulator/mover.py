"""Changes the number of simulated shards, and who owns which slots, while they run or in between.

The production code decides. What a shard is told it hears late; it is asked at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from skerry.runtime.app import placer
from skerry.runtime.app.balancing import FORGET, LOOKS, Balancing
from skerry.runtime.app.reshard import deal
from skerry.runtime.app.scaling import Reassignment, Scaling
from skerry.runtime.core.demand import Load
from skerry.runtime.core.placement import Placement
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.keeper import Keeper
from skerry.runtime.simulator.machine import Machine

if TYPE_CHECKING:
    from skerry.runtime.simulator.cluster import Cluster

DOWN_STEPS_MAX = 50
"""The longest that a machine is down when nothing else keeps it from starting."""

BY_LOAD = 0.5
"""How often slots move as the production code decides, which moves few; else at random."""

AT_ONCE = (1, 20, 300)
"""How many slots move at once."""


class Mover:
    """Leads the shards of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._next_id = 0
        """Above the id of every shard that was ever made."""
        self.goal: list[int] | None = None
        """The members that the slots are on their way to; None: they stay as they are."""
        self._owners: dict[int, int] = {}
        """Slots that are to have other owners among them; a change of the members takes their place."""
        self._balancing = Balancing()
        self._held: Callable[[], bool] = bool
        """Whether no version may be made."""
        self._settled: Callable[[], None] | None = None
        """What is done when nothing is on its way."""

    def scale(self, shards: int) -> None:
        """Go on with this many shards: new ones come, the newest leave."""
        cluster = self._cluster
        self._owners = {}
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
        cluster, self.goal, self._owners = self._cluster, None, {}
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

    def weigh(self) -> None:
        """Give slots other owners: as loads ask for it that are drawn here, or at random."""
        cluster, rng = self._cluster, self._cluster.rng
        slots, members = cluster.placement.slots, cluster.placement.members
        if self.moves or len(members) < 2:
            return
        if rng.random() < BY_LOAD:
            giver, part = rng.choice(members), rng.choice((0.01, 0.1))
            heavy = [
                slot for slot, owner in enumerate(slots) if owner == giver and rng.random() < part
            ]
            loads = {shard: Load(0.1) for shard in members}
            loads[giver] = Load(1.0, dict.fromkeys(heavy, 1.0 / max(1, len(heavy))))
            looks = (self._balancing.look(cluster.placement, loads) for _ in range(FORGET + LOOKS))
            for found in filter(None, looks):
                self._owners = dict.fromkeys(found.slots, found.taker)
                cluster.points["moved by load"] += 1
                break
        else:
            # In no version a shard both gives and takes: `reshard.py` relies on it.
            takers = rng.sample(members, rng.randrange(1, len(members)))
            some = rng.sample(range(len(slots)), rng.choice(AT_ONCE))
            self._owners = {slot: rng.choice(takers) for slot in some if slots[slot] not in takers}

    @property
    def moves(self) -> bool:
        """Whether slots are to move."""
        return self.goal is not None or bool(self._owners)

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
        if not self.moves and self._settled is None:
            return
        shards = {m.id: m.shard for m in cluster.machines if m.shard is not None}
        standings = {id: shard.standing() for id, shard in shards.items()}
        scaling: Scaling = Reassignment(placement.members, self._owners)
        if self.goal is not None:
            scaling = Scaling(self.goal, cluster.rng.choice(AT_ONCE))
        if self._settled is not None and scaling.finished(placement, standings):
            settled, self._settled = self._settled, None
            settled()
        if not self.moves or self._held():
            return
        if scaling.over(placement, standings):
            self.goal, self._owners = None, {}
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
