"""Changes the number of workers, and owners of slots, while the app serves.

    goal durable -> new stores -> new workers -> versions of the placement, one by one -> old ones go

A few slots also move as the load of the workers asks for it (`balancing.py`), in the same way but
for the goal: what a version has named to move, every start finishes.

The goal stands in the description, so a supervisor that was killed in between is succeeded by one
that goes on. Which version comes next is decided in `scaling.py`. A version is durable before any
worker is told of it, and each worker answers when it has finished it.

Works on the app's files, and by its supervisor's hands on processes. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app import placer
from skerry.runtime.app.balancing import Balancing, Transfer
from skerry.runtime.app.homes import Homes, without
from skerry.runtime.app.members import Members
from skerry.runtime.app.questions import Questions
from skerry.runtime.app.register import Register
from skerry.runtime.app.scaling import Reassignment, Scaling
from skerry.runtime.config import check_workers
from skerry.runtime.core.demand import Load, Standing
from skerry.runtime.printable import Say

SLOTS_AT_ONCE = 16
"""How many slots move in one version: while they do, their entities wait."""

ASK_AGAIN_S = 0.05
"""How often workers that have finished a version are asked whether their last frames are acked."""

HOLD_S = 5.0
"""For how long no version is made after somebody has asked for that, if nobody asks again."""


class Summary(Struct):
    """How far a change of the number of workers is."""

    workers: int
    """How many there will be."""
    slots: int = 0
    """Slots that have moved."""
    left: int = 0
    """Slots that will move."""
    size: int = 0
    """Bytes of their rows."""
    pause_s: float = 0.0
    """The longest time for which the entities of a slot have waited."""
    seconds: float = 0.0
    waits: str = ""
    """What it waits for, beside the workers."""
    done: bool = False


class Held(Struct):
    """An answer to who wants no slot to move for a while."""

    version: int
    """Of the placement."""
    settled: bool
    """Whether every member has finished this version: nothing is on its way."""


class Hands(Protocol):
    """What a supervisor does for a change."""

    def house(self) -> None:
        """Keep a worker of each shard that lives here, and of no other; tell clients and workers which
        shards there are."""
        ...


class Scaler:
    """The changes of one run."""

    def __init__(
        self,
        register: Register,
        stores: Members,
        questions: Questions,
        hands: Hands,
        say: Say,
    ) -> None:
        self._register, self._stores = register, stores
        self._description = description = register.app
        self._kept = set(description.placement.members)
        """The shards that have a store, as far as this run has made or found them."""
        self._questions, self._hands, self._say = questions, hands, say
        self._scaling: Scaling | None = None
        self._ask_s = self._began_s = self._held_until_s = 0.0
        self._began_version = 0
        self.summary = Summary(len(description.placement.members), done=True)
        self._counted = self.summary
        """Of the change that is under way, or was."""
        self._balancing = Balancing()
        self._transfer: Transfer | None = None
        """What the load has asked for last; and how far that is."""
        self._transferred = Summary(0)

    @property
    def busy(self) -> bool:
        """Whether slots are to move."""
        return self._scaling is not None

    def start(self, workers: int | None) -> None:
        """Begin with the run: finish what an earlier one has begun, or change to so many workers."""
        goal = self._description.goal or self._description.placement.members
        if workers is not None and workers != len(goal):
            goal = self._goal(workers)
            self._aim(goal)
        left = placer.distance(self._description.placement.slots, goal)
        self.summary = Summary(len(goal), left=left if self._description.goal else 0)
        if self._description.goal:
            self._lead(Scaling(goal, SLOTS_AT_ONCE), self.summary)
        else:  # Slots may be dealt out by load, and stay so.
            self._lead(Reassignment(goal, {}), self.summary)

    def scale(self, workers: int) -> None:
        """Begin to change to this many workers. Raises SkerryError: it can't."""
        self.check_idle("Scale")
        if workers == len(self._description.placement.members):
            self.summary = Summary(workers, done=True)
            return
        placement, goal = self._description.placement, self._goal(workers)
        left = placer.distance(placement.slots, goal)
        if lacks := self._stores.lacking_room(placement.members, left):
            raise SkerryError(f"Nothing was changed: {lacks}. Make room, and scale again.")
        self._aim(goal)
        self.summary = Summary(workers, left=left)
        self._lead(Scaling(goal, SLOTS_AT_ONCE), self.summary)

    def settle(self, homes: Homes, goal: list[int]) -> None:
        """Begin to change to these shards, on hosts of a cluster. Raises SkerryError."""
        left = placer.distance(self._description.placement.slots, goal)
        self._aim(goal, homes=homes.homes, guests=homes.guests)
        self.summary = Summary(len(goal), left=left)
        self._lead(Scaling(goal, SLOTS_AT_ONCE), self.summary)

    def weigh(self, loads: Mapping[int, Load]) -> None:
        """Begin to move a few slots, if these loads ask for it. A change by a person takes their place."""
        if self.busy or self.held:
            return
        placement = self._description.placement
        found = self._balancing.look(placement, loads)
        if found is not None:
            summary = Summary(len(placement.members), left=len(found.slots))
            self._transfer, self._transferred = found, summary
            owners = dict.fromkeys(found.slots, found.taker)
            self._lead(Reassignment(placement.members, owners), self._transferred)

    def check_idle(self, wish: str) -> None:
        """Raises SkerryError: a change is under way, so what somebody wishes has to wait."""
        if self._description.goal:
            raise SkerryError(
                f"The app is changing to {len(self._description.goal)} workers. {wish} "
                f"again when it has: `skerry status --json` has under `moves` what is on its way."
            )

    def _goal(self, workers: int) -> list[int]:
        """Choose this many shards. Raises SkerryError: too few or too many."""
        try:
            check_workers(workers)
        except ValueError as error:
            raise SkerryError(f"Nothing was changed: {error}.") from None
        members = self._description.placement.members
        new = self._stores.free_ids(self._description, workers - len(members))
        return [*members[:workers], *new]

    def _aim(self, goal: list[int], **more: Any) -> None:
        """Make the goal durable, which may replace another. Raises SkerryError."""
        placement = self._description.placement
        next_id = max([placement.next_id, *(id + 1 for id in goal)])
        self._register.put(placement=replace(placement, next_id=next_id), goal=goal, **more)

    @property
    def held(self) -> bool:
        """Whether a backup is made now."""
        return time.monotonic() < self._held_until_s

    def hold(self) -> Held:
        """Make no version for `HOLD_S`, so that a backup is of one version of the placement."""
        self._held_until_s = time.monotonic() + HOLD_S
        scaling, placement = self._scaling, self._description.placement
        standings = self._questions.standings(placement.version)
        settled = scaling is None or scaling.finished(placement, standings)
        return Held(placement.version, settled)

    def status(self) -> dict[str, Any]:
        """Say how a change is going, and what the load has asked for last."""
        return {"scaling": self.summary, "rebalancing": self._rebalancing()}

    def _rebalancing(self) -> dict[str, Any]:
        last: dict[str, Any] | None = None
        if self._transfer is not None:
            transfer, summary = self._transfer, self._transferred
            last = {
                "giver": transfer.giver,
                "taker": transfer.taker,
                "giver_busy": round(transfer.giver_busy, 3),
                "taker_busy": round(transfer.taker_busy, 3),
                "slots": summary.slots,
                "bytes": summary.size,
                "pause_s": summary.pause_s,
                "done": summary.done,
            }
        return {"on": self._questions.weighs, "last": last}

    def _lead(self, scaling: Scaling, summary: Summary) -> None:
        new = [s for s in scaling.goal if s not in self._description.placement.members]
        for shard in new:  # What fails is tried anew as a whole.
            self._stores.recruit(self._description, shard)
        self._counted.done = True  # What it has begun, if anything, this one finishes.
        self._scaling, self._counted = scaling, summary
        self._ask_s, self._began_s = 0.0, time.monotonic()
        self._began_version = self._description.placement.version
        self._hands.house()
        self._kept.update(self._description.placement.members, new)

    # ── steps ──

    def step(self) -> None:
        """Go on, if every worker has come as far as it was told to. Raises SkerryError: a version could
        not be written."""
        scaling, description = self._scaling, self._description
        if scaling is None:
            return
        try:
            self._register.finish()
            self._retire()
        except Unavailable as error:  # Whoever keeps the description: it may be there or not.
            self._wait(f"for who keeps the description: {error}")
            return
        self._tell()
        if self.held:
            self._wait("for a backup")
            return
        standings = self._questions.standings(description.placement.version)
        if scaling.over(description.placement, standings):
            self._count(standings.values())
            self._end(scaling)
            return
        found = scaling.next(description.placement, standings)
        if found is None:
            return
        lacks = self._stores.lacking_room(description.placement.members, len(found.coming))
        self._wait(f"for room on the disk: {lacks}" if lacks else "")
        if lacks:
            return
        self._count(standings.values())
        came = [s for s in found.members if s not in description.placement.members]
        gone = {*description.placement.members} - {*found.members}
        homes = without(Homes(description.homes, description.guests), gone)
        try:
            self._register.put(placement=found, homes=homes.homes, guests=homes.guests)
        except Unavailable as error:
            self._wait(f"for who keeps the description: {error}")
            return
        for shard in came:
            self._stores.enrolled(description, shard)
        with contextlib.suppress(Unavailable):  # The next step tries it again.
            self._retire()
        self._ask_s = 0.0
        self._tell()

    def _wait(self, what: str) -> None:
        """Note what is waited for, and say it once."""
        if what and what != self._counted.waits:
            self._say(f"No slot begins to move: waiting {what}.")
        self._counted.waits = what

    def _tell(self) -> None:
        """Tell every worker of the newest version, and those again that have finished it already."""
        now_s = time.monotonic()
        if now_s >= self._ask_s:
            self._ask_s = now_s + ASK_AGAIN_S
            self._questions.place(self._description.placement)

    def _count(self, standings: Iterable[Standing]) -> None:
        summary = self._counted
        # What workers tell of an older version is of a change before this one.
        own = self._description.placement.version > self._began_version
        for standing in standings if own else ():
            summary.slots += standing.slots
            summary.left = max(0, summary.left - standing.slots)
            summary.size += standing.size
            summary.pause_s = max(summary.pause_s, standing.pause_ns / 1e9)
        summary.seconds = time.monotonic() - self._began_s

    def _retire(self) -> None:
        """Let go of shards that are no members any more: they have no slot, and nothing is on its way.

        Raises Unavailable.
        """
        description = self._description
        left = self._kept - {*description.placement.members, *description.goal}
        if left:
            self._hands.house()
        for shard in left:
            self._stores.retire(description, shard)
            self._kept.remove(shard)

    def _end(self, scaling: Scaling) -> None:
        self._scaling, summary, transfer = None, self._counted, self._transfer
        moved = f"{summary.slots} slots moved, {summary.size:,} bytes, "
        moved += f"longest pause {summary.pause_s:.3f} s"
        if self._description.goal:
            # If it fails, the next start finds that nothing is left to do.
            with contextlib.suppress(SkerryError):
                self._register.put(goal=[])
            self._say(f"{len(scaling.goal)} workers: {moved}")
        elif summary is self._transferred and transfer is not None:
            self._balancing.moved(transfer.slots, summary.size)
            self._say(
                f"worker {transfer.giver} was {transfer.giver_busy:.0%} busy, worker "
                f"{transfer.taker} {transfer.taker_busy:.0%}: {moved}, to worker {transfer.taker}"
            )
        summary.done = True
