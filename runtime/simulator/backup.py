"""Backups of a simulated app: a cut, which every shard takes when it hears of it, and a restore.

The cut spreads by the production's packets; a cluster only begins it, and looks whether all have
taken it. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from skerry.runtime.simulator.cluster import Cluster
from skerry.runtime.simulator.machine import Machine

CUT_STEPS = 5
"""How many times longer than a packet's the way of a backup's beginning may be."""

HOLD_STEPS = 200
"""For how long no slot begins to move, if the backup does not come about."""


class Backup:
    """The newest backup of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._cut = 0
        self._epochs: dict[int, int] = {}
        self._held_until = self._version = 0

    def begin(self) -> None:
        """Begin a backup when no slot is on its way: every shard is told, each when it hears of it."""
        self._held_until = self._cluster.step_no + HOLD_STEPS
        self._epochs = {}
        self._cluster.mover.hold(lambda: self._held, self._mark)

    @property
    def _held(self) -> bool:
        return self._cluster.step_no < self._held_until and not self.whole

    def _mark(self) -> None:
        cluster = self._cluster
        self._cut, self._version = cluster.clock_ns, cluster.placement.version
        self._epochs = {m.id: m.shard.epoch for m in self._members if m.shard is not None}
        for machine in self._members:
            ahead: Callable[[int, int], int] = cluster.rng.randint
            machine.disk.ahead = ahead
            steps_max = CUT_STEPS * cluster.faults.delay_steps_max
            cluster.network.later(partial(self._tell, machine), steps_max)

    def _tell(self, machine: Machine) -> None:
        if machine.driver is not None:
            machine.driver.cut(self._cut)

    @property
    def whole(self) -> bool:
        """Whether all have taken the cut, by one placement, and none was started anew since it began."""
        same = self._version == self._cluster.placement.version
        return (
            same
            and bool(self._epochs)
            and all(
                machine.shard is not None
                and machine.disk.kept[0] == self._cut
                and self._epochs.get(machine.id) == machine.shard.epoch
                for machine in self._members
            )
        )

    @property
    def _members(self) -> list[Machine]:
        members = self._cluster.placement.members
        return [machine for machine in self._cluster.machines if machine.id in members]

    def restored(self) -> Cluster:
        """Make another cluster that goes on from what the cut holds, under a new incarnation."""
        ours, members = self._cluster, self._members
        other = Cluster(
            ours.app,
            seed=ours.seed + 1,
            placement=ours.placement,
            faults=ours.faults,
            limits=ours.limits,
            start_ns=ours.clock_ns,
            disks=[machine.disk.restored() for machine in members],
            life="restored",
        )
        other.shore.out = ours.shore.known_to(machine.disk for machine in other.machines)
        for theirs, machine in zip(other.machines, members):
            theirs.books.go_on(machine.books, len(machine.disk.kept[1]))
        other.past = list(ours.past)
        return other
