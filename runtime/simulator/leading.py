"""How a simulated leader moves slots between shards that live on several hosts.

The production code decides, as in `mover.py`; what it decides goes into the description.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from skerry.runtime.app import homes
from skerry.runtime.app.scaling import Reassignment, Scaling
from skerry.runtime.simulator.host import Described, Host
from skerry.runtime.simulator.mover import AT_ONCE, Mover

if TYPE_CHECKING:
    from skerry.runtime.simulator.hosts import Hosted


class Leading(Mover):
    """What the leaders of a hosted cluster do to its slots; see `Host` for when."""

    _cluster: Hosted

    def scale(self, shards: int) -> None:
        """Have hosts want so many workers together."""
        hosts = [host for host in self._cluster.hosts if not host.left]
        for host in hosts:
            host.workers = 0
        for _ in range(shards):
            self._cluster.rng.choice(hosts).workers += 1

    def reshard(self, shards: int) -> None:
        """Change nothing while all are down: hosts do not agree on that."""
        raise AssertionError("shards of several hosts move while they run")

    def step(self) -> None:
        """Hosts lead."""

    @property
    def moves(self) -> bool:
        """Whether anything is to change its place."""
        return bool(self._owners) or self._cluster.unsettled

    def next(self, host: Host, now: Described) -> Described | None:
        """What the description should say once shards are where they should be."""
        placement, goal = now.placement, now.goal
        ours = {*placement.members, *goal}  # Others have left, and their hosts may not know yet.
        machines = [m for m in self._cluster.reached(host, now) if m.id in ours]
        for machine in machines:
            shard, driver = machine.shard, machine.driver
            if shard is None or driver is None or shard.standing().version >= placement.version:
                continue
            driver.place(("mover", machine.id), 0, placement)
        standings = {m.id: m.shard.standing() for m in machines if m.shard is not None}
        scaling: Scaling = Reassignment(placement.members, self._owners)
        if goal:
            self._owners = {}
            scaling = Scaling(goal, self._cluster.rng.choice(AT_ONCE[1:]))
        elif not self._owners and not placement.coming:
            return None
        if scaling.over(placement, standings):
            self._owners = {}
            gone = now.homes.homes.keys() - set(placement.members)
            over = replace(now, homes=homes.without(now.homes, gone), goal=())
            return None if over == now else over
        found = scaling.next(placement, standings)
        if found is None:
            return None
        self._cluster.points["placements"] += 1
        return replace(now, placement=found)
