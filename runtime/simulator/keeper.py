"""The simulated supervisor: decides by the production code when workers start, and when all is over.

It sees what a supervisor sees: that a worker ended, and how; the beat that it wrote; answers to
its questions, late, or never. When it ends itself, all its workers end with it, and its
successor knows nothing of what it knew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from skerry.runtime.app.watch import Beat, GiveUp, Restart, Rounds, Watch
from skerry.runtime.simulator.callers import SECONDS_PER_STEP

ROUND_STEPS = 20
"""How often a round of questions is begun."""

PATIENCE_STEPS = 200
"""A round that some worker did not answer by then is begun anew."""


class Keeper:
    """What one supervisor knows."""

    def __init__(self, shards: Sequence[int], ask: Callable[[int, int], None]) -> None:
        self._shards, self._ask = shards, ask
        self.started()

    def started(self) -> None:
        """A new supervisor."""
        self.watches = {shard: Watch() for shard in self._shards}
        self._rounds = Rounds()
        self._round = 0
        self._asked_at = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self.over = False
        """Whether it was found that all is over."""

    def members(self, shards: Sequence[int]) -> None:
        """Keep these shards from now on."""
        self._shards = shards
        self._answers = {}
        self._rounds.interrupted()
        self.watches = {shard: self.watches.get(shard) or Watch() for shard in shards}

    def ended(self, shard: int, step: int, beat: Beat | None, *, by_itself: bool) -> int:
        """The step at which the next worker of this shard may start. Raises GaveUp."""
        self._answers = {}
        self._rounds.interrupted()
        watch, now_s = self.watches[shard], step * SECONDS_PER_STEP
        # Nobody is killed from outside within a turn here.
        verdict = (
            watch.crashed(now_s, beat, "ended its process")
            if by_itself
            else watch.killed(now_s, None, "")
        )
        match verdict:
            case Restart(at_s):
                return int(at_s / SECONDS_PER_STEP)
            case GiveUp(crashes):
                raise GaveUp(f"shard {shard} crashed {crashes} times")

    def look(self, shard: int, step: int, beat: Beat, hang_s: float) -> bool:
        """Whether a worker must be killed since a handler does not return."""
        watch = self.watches[shard]
        if watch.look(step * SECONDS_PER_STEP, beat, hang_s, lambda: False) != "kill":
            return False
        watch.hung(beat, "did not return")
        return True

    def answered(self, shard: int, round: int, answer: dict[str, Any]) -> None:
        """A worker says whether it is quiet."""
        if round == self._round:
            self._answers[shard] = answer

    def step(self, step: int) -> None:
        """Judge the round that has ended, begin the next."""
        waited = step - self._asked_at
        if waited < ROUND_STEPS:
            return
        if len(self._answers) == len(self._shards):
            self.over = self._rounds.over(self._answers)
        elif self._round and waited < PATIENCE_STEPS:
            return
        self._round += 1
        self._asked_at, self._answers = step, {}
        for shard in self._shards:
            self._ask(shard, self._round)


class GaveUp(Exception):
    """A worker crashed so often that its supervisor ended the app."""
