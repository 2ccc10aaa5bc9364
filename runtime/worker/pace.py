"""The size of the next batch: as large as its time budget allows.

A large batch is cheap: its commit, its frames and its wake-ups are paid once, and an entity that is
hit often is written once. But whatever arrives meanwhile waits for the batch to end. So the bounds
follow the time that batches take: down at once when one took too long, up when one was full and
quick.

The budget depends on who waits. Without clients, a batch is judged by its own time (`stopwatch`):
that others keep it from its core does not make it too large. With clients, it is judged by the
clock, and its budget is shorter; it is shortest under mixed load, where a few clients wait behind
the batches of a stream.

Pure: times come in, numbers go out. Idea: docs/ideas/speed.md.
"""

from __future__ import annotations

BATCH_S = 0.015
"""How long a batch may take while only sources and peers have work."""

ASKED_BATCH_S = 0.004
"""How long a batch may take while clients wait."""

MIXED_BATCH_S = 0.002
"""How long a batch may take under mixed load, where a request waits for the batch before its own, too."""

MIXED_TURNS = 16
"""Above this ratio of turns to client requests the load counts as mixed."""

MIXED_S = 0.5
"""How long mixed load is assumed to continue after its last client request."""

TURNS_MIN = 128
"""The least bound, and that of the first batch, when nothing is known of the handlers yet. A smaller
batch costs more around its turns than in them, unless turns are slow."""

ITEMS_MAX = 16_384
"""Items of sources in a batch at most, since it is not known beforehand how many turns an item causes."""


class Pace:
    """The bounds of the next batch."""

    def __init__(self, turns_max: int) -> None:
        self._turns_max = turns_max
        self.turns = TURNS_MIN
        """Messages of peers, or of entities of this shard, at most."""
        self.items = self.turns
        """Items of sources at most."""
        self._mixed_s = 0.0
        """How long mixed load is still assumed."""

    def took(
        self, clock_s: float, own_s: float, *, turns: int, items: int, asked: int, crowded: bool
    ) -> None:
        """Adapt the bounds to a batch that has run.

        Args:
            clock_s: the batch's time by the clock.
            own_s: the batch's time without waiting for a core.
            turns: turns that ran.
            items: items of sources that were taken in.
            asked: client requests among the turns.
            crowded: whether there were more requests than room. They wait for many batches then,
                so large, cheap ones serve them best.
        """
        self._mixed_s = 0.0 if crowded else self._mixed_s - clock_s
        waits = asked and not crowded
        if waits and turns > MIXED_TURNS * asked:
            self._mixed_s = MIXED_S
        if self._mixed_s > 0:
            spent = clock_s / MIXED_BATCH_S
        elif waits:
            spent = clock_s / ASKED_BATCH_S
        else:
            spent = own_s / BATCH_S
        if spent > 1:
            least = TURNS_MIN if own_s <= BATCH_S else 1
            self.turns = max(least, int(self.turns / min(spent, 2)))
            self.items = max(least, int(self.items / min(spent, 2)))
            return
        grown = min(1 / max(spent, 0.5), 2)
        if turns >= self.turns:
            self.turns = min(self._turns_max, int(self.turns * grown) + 1)
        if items >= self.items:
            self.items = min(ITEMS_MAX, int(self.items * grown) + 1)
