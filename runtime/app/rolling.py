"""Decides which worker is replaced next, when all are to run the program as it is now.

    every worker serves -> the first with older code is ended -> its successor serves -> the next

One worker is away at a time, so the others serve all the while. A worker that was started again
for another reason has loaded the new code already, and counts.

Pure: no process, no clock. Idea: docs/ideas/architecture.md.
"""

from __future__ import annotations

from collections.abc import Mapping

Serving = Mapping[int, float | None]
"""When the worker of each shard was started; None: it does not serve now."""

SETTLED_S = 1.0
"""How long all workers serve before a restart is over: what fails at its first steps is seen."""


class Rolling:
    """One replacement of all workers.

    Args:
        since_s: workers that were started at this time or later have the new code.
    """

    def __init__(self, since_s: float) -> None:
        self._since_s = since_s
        self._whole_s: float | None = None
        """Since when all workers serve with the new code."""

    def next(self, serving: Serving) -> int | None:
        """The shard whose worker is to end now, until it has ended; None: not yet, or no more."""
        if None in serving.values():
            return None
        return next((shard for shard in serving if not self.has_new(serving[shard])), None)

    def replaced(self, serving: Serving) -> int:
        """How many workers serve with the new code."""
        return sum(map(self.has_new, serving.values()))

    def over(self, serving: Serving, now_s: float) -> bool:
        """Whether all workers serve with the new code, and not only since a moment ago."""
        if self.replaced(serving) < len(serving):
            self._whole_s = None
            return False
        self._whole_s = now_s if self._whole_s is None else self._whole_s
        return now_s >= self._whole_s + SETTLED_S

    def has_new(self, started_s: float | None) -> bool:
        """Whether a worker that was started at this time serves with the new code."""
        return started_s is not None and started_s >= self._since_s
