"""Leads an app to another number of shards, or slots to other owners, by versions of the placement.

    every member has finished version v  ->  v+1, which moves a few slots  ->  …  ->  members leave

A version is made when every member is up and has finished the one before (protocol: one version at
a time). So no slot waits for a shard that is down, and no shard is ever two versions behind.

Pure: the supervisor and the simulator lead by the same code. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skerry.runtime.app import placer
from skerry.runtime.core.demand import Standing
from skerry.runtime.core.placement import Placement


class Scaling:
    """One change of the number of shards.

    Args:
        goal: the members at its end. Those that are new are up before it begins.
        slots_max: how many slots move at once.
    """

    def __init__(self, goal: Sequence[int], slots_max: int) -> None:
        self.goal, self.slots_max = sorted(goal), slots_max

    def over(self, placement: Placement, standings: Mapping[int, Standing]) -> bool:
        """Whether the slots are where they should be, and every member knows."""
        finished = self.finished(placement, standings)
        return finished and self._towards(placement) is None

    def next(self, placement: Placement, standings: Mapping[int, Standing]) -> Placement | None:
        """The next version; None: not yet, or there is none.

        Args:
            standings: of the shards that are up.
        """
        if not self.finished(placement, standings):
            return None
        found = self._towards(placement)
        if found is None:
            return None
        leave = set(placement.members) - set(found.members)
        return found if _apart(leave, standings) else None

    def _towards(self, placement: Placement) -> Placement | None:
        return placer.towards(placement, self.goal, self.slots_max)

    def finished(self, placement: Placement, standings: Mapping[int, Standing]) -> bool:
        """Whether every member, and each that will be one, is up and has finished this version."""
        return all(
            shard in standings
            and standings[shard].version == placement.version
            and standings[shard].settled
            for shard in {*placement.members, *self.goal}
        )


class Reassignment(Scaling):
    """Slots that get other owners among the members, all at once.

    Args:
        owners: by slot. None of them: what a version has named to move moves, and nothing else.
    """

    def __init__(self, members: Sequence[int], owners: Mapping[int, int]) -> None:
        super().__init__(members, len(owners))
        self._owners = owners

    def _towards(self, placement: Placement) -> Placement | None:
        return placer.reassigned(placement, self._owners)


def _apart(leave: set[int], standings: Mapping[int, Standing]) -> bool:
    """Whether nothing is on its way between shards that leave and others."""
    return not any(
        standing.unacked if shard in leave else leave.intersection(standing.unacked)
        for shard, standing in standings.items()
    )
