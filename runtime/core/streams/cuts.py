"""Cuts for backups: which is the newest, and which another may name.

Every packet says its sender's newest cut, so that what left behind a cut is handled behind it.
What left a shard before its cut was durable, so it is kept; what comes from behind the cut is
handled after, so it is not. What is durable and has not left yet leaves behind the cut, and
stands in the copy's outbox without an ack. So of each stream the copies hold what fits.

Pure. Source: Chandy and Lamport, "Distributed snapshots", 1985. Idea: docs/ideas/backup.md.
"""

from __future__ import annotations

from skerry.runtime.core.events import Effect, Keep

CUT_AHEAD_NS = 366 * 24 * 3600 * 10**9
CUTS_AHEAD_MAX = 1 << 20
"""Cuts have the time as their number, or one more than the newest: how far another may be ahead. No
cut can follow the largest number of all."""


class Cuts:
    """The newest cut of a shard."""

    def __init__(self) -> None:
        self.newest = 0
        """Every packet says it."""
        self.now_ns = 0
        """The shard's time, by which the number of a cut is judged."""

    def follows(self, no: int) -> bool:
        """Whether a backup may have this number: a clock's, or one behind the newest."""
        return no <= max(self.now_ns + CUT_AHEAD_NS, self.newest + CUTS_AHEAD_MAX)

    def check(self, no: int) -> None:
        """Raise ValueError when no backup can have this number."""
        if not self.follows(no):
            raise ValueError(
                f"no backup can have the number {no}: the newest has {self.newest}, and this one is "
                f"too far ahead of it and of the clock"
            )

    def take(self, no: int) -> list[Effect]:
        """Take a cut, unless it was taken: before anything is handled that left behind it."""
        if no <= self.newest:
            return []
        self.newest = no
        return [Keep(no)]
