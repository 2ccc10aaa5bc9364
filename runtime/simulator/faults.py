"""What goes wrong in the simulated world, beside packets: processes, disks, clocks, lines.

A process is killed at a point of its round: whatever its driver does there never returns.
The same generator draws it all, so the same seed gives the same run.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from skerry.runtime.simulator.stranger import Stranger

if TYPE_CHECKING:
    from skerry.runtime.simulator.cluster import Cluster

BEFORE, RUN, APPENDED, SYNCED, TOLD, HALF = POINTS = (
    "before its batch",
    "batch run, not appended",
    "appended, not synced",
    "synced, not told",
    "told, nothing sent",
    "half of it sent",
)
"""Where in a round a process can be killed."""

FOREVER = 1 << 62

CLOCK_OFF_NS = 2 * 10**9
"""How far a clock may be set."""


class Killed(BaseException):
    """The process of a shard ends here."""


class Died(BaseException):
    """Raised by a handler that takes its process with it."""


class Hung(BaseException):
    """Raised by a handler that does not return."""


class Fate:
    """Where in its round a process is killed; empty: nowhere."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.at = ""

    def meet(self, point: str) -> None:
        """Come to a point of the round. Raises Killed."""
        if self.at == point:
            raise Killed

    def leaves(self) -> None:
        """Come to where something leaves the process. Raises Killed."""
        if self.at == TOLD or (self.at == HALF and self._rng.random() < 0.5):
            raise Killed


class Misfortune:
    """Draws what goes wrong in each step."""

    def __init__(self, cluster: Cluster, stranger: Stranger) -> None:
        self._cluster, self._stranger = cluster, stranger

    def strike(self) -> None:
        """Let go wrong what this step has drawn."""
        cluster = self._cluster
        faults, chance = cluster.faults, cluster.rng.random
        if chance() < faults.blackout:
            self._blackout()
        if self._stranger.rng.random() < faults.stranger:
            self._meet_a_stranger()
        for caller in cluster.callers:
            if chance() < faults.cut:
                cluster.points["client's line broken"] += 1
                caller.broken(cluster.rng.choice(cluster.machines).id)
        until = cluster.step_no + cluster.rng.randint(1, faults.hold_steps_max)
        for id in [machine.id for machine in cluster.machines]:
            self._strike(id, until)

    def _blackout(self) -> None:
        cluster = self._cluster
        if cluster.rng.random() < 0.5:
            cluster.points["supervisor killed"] += 1
            cluster.keeper.started()
        else:
            cluster.points["all at once"] += 1
        cluster.crash_all()

    def _strike(self, id: int, until: int) -> None:
        """Let go wrong what goes wrong with one machine, until this step."""
        cluster, machine = self._cluster, self._cluster.machine(id)
        faults, chance, rng = cluster.faults, cluster.rng.random, cluster.rng
        if chance() < faults.crash and machine.shard is not None:
            machine.dies_at = rng.choice(POINTS)
            cluster.points[machine.dies_at] += 1
        if chance() < faults.hang and machine.hangs_until != FOREVER:
            self._note(id, "hung", "hangs", until)
            machine.hangs_until = until
        if chance() < faults.clock:
            self._note(id, "clock set", "clock set")
            machine.clock_off_ns = rng.randint(-CLOCK_OFF_NS, CLOCK_OFF_NS)
        if chance() < faults.disk_slow:
            self._note(id, "disk slow", "disk slow", until)
            machine.slow_until = until
        if chance() < faults.disk_full:
            self._note(id, "disk full", "disk full", until)
            machine.full_until = until
        if chance() < faults.disk_fails:
            # No worker goes on after that, and none is started until a person has looked.
            cluster.points["disk failed"] += 1
            cluster.crash_all()
        if chance() < faults.cut and len(cluster.machines) > 1:
            other = rng.choice(cluster.machines).id
            self._note(id, "pipe cut", f"pipe cut to {other}", until)
            cluster.network.cut(id, other, until)

    def _note(self, id: int, point: str, kind: str, until: int | None = None) -> None:
        self._cluster.points[point] += 1
        self._cluster.diary.note(id, kind, "" if until is None else f"until step {until}")

    def _meet_a_stranger(self) -> None:
        """A packet arrives that no shard of the app has sent."""
        machine = self._stranger.rng.choice(self._cluster.machines)
        if machine.driver is not None:
            what, raw = self._stranger.packet(machine.id)
            self._cluster.points[f"a stranger: {what}"] += 1
            machine.driver.arrived(raw)
