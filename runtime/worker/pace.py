"""How much a batch takes in: as much as runs while nobody waits too long for it.

A large batch is cheap: its commit, its frames and what it wakes are paid once, and an entity
that is hit often is written once. But all that comes meanwhile waits for its end. So the
bounds follow the time that batches take: down at once when one took too long, up when one was
full and quick. When clients wait, less is too long, and what the clock says counts; least of all
where they are few beside a stream, which is what they wait for. Else it is the batch's own time
(`stopwatch`): it is not too large because cores are few.

Pure: times come in, numbers go out. Idea: docs/speed.md.
"""

from __future__ import annotations

BATCH_S = 0.015
"""How long a batch may take while only sources and peers are at work."""

ASKED_BATCH_S = 0.004
"""The same while clients ask."""

BESIDE_BATCH_S = 0.002
"""The same while clients ask beside much else: they wait for a batch before theirs and one behind."""

BESIDE = 16
"""So many turns for each request are much else."""

BESIDE_S = 0.5
"""For so long after clients asked beside much else they are expected to ask again."""

TURNS_MIN = 128
"""Below, a batch costs more around its turns than in them, unless turns are slow. Also the first
batch: how long a handler takes is not known before."""

ITEMS_MAX = 16_384
"""Items of sources in a batch: what may become of one is not known before its turns have run."""


class Pace:
    """The bounds of the next batch."""

    def __init__(self, turns_max: int) -> None:
        self._most = turns_max
        self.turns = TURNS_MIN
        """Messages of peers, or of entities of this shard."""
        self.items = self.turns
        """Items of sources."""
        self._beside_s = 0.0
        """For so long clients are expected to ask beside much else."""

    def took(
        self, clock_s: float, own_s: float, *, turns: int, items: int, asked: int, crowded: bool
    ) -> None:
        """A batch took so long, with so many turns and items.

        Args:
            clock_s: by the clock.
            own_s: the same without what it waited for a core.
            asked: requests of clients among its turns.
            crowded: more of them than it had room for: they wait for many batches to end, and so
                for these to be cheap.
        """
        self._beside_s = 0.0 if crowded else self._beside_s - clock_s
        waits = asked and not crowded
        if waits and turns > BESIDE * asked:
            self._beside_s = BESIDE_S
        if self._beside_s > 0:
            part = clock_s / BESIDE_BATCH_S
        elif waits:
            part = clock_s / ASKED_BATCH_S
        else:
            part = own_s / BATCH_S
        if part > 1:
            least = TURNS_MIN if own_s <= BATCH_S else 1
            self.turns = max(least, int(self.turns / min(part, 2)))
            self.items = max(least, int(self.items / min(part, 2)))
            return
        grown = min(1 / max(part, 0.5), 2)
        if turns >= self.turns:
            self.turns = min(self._most, int(self.turns * grown) + 1)
        if items >= self.items:
            self.items = min(ITEMS_MAX, int(self.items * grown) + 1)
