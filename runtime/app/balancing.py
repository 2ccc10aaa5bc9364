"""Decides which slots move from the busiest shard to the idlest, as their load asks for.

    looks: each shard's load -> uneven for some looks in a row -> a few slots move -> what was
    measured before is forgotten -> looks ...

Three rules keep slots from going to and fro. Nothing moves before the busiest shard is well above
the mean, and no longer when the two are nearly even. A slot that would only carry the hot spot
across stays. And a slot that has moved rests.

Time is counted in looks, which come at even intervals while something happens. Pure: the
supervisor and the simulator decide by the same code. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from skerry.runtime.config import HALF_LIFE
from skerry.runtime.core.demand import Load
from skerry.runtime.core.placement import Placement

LOOKS = 3
"""Looks in a row that must find the load uneven."""

FORGET = 2 * HALF_LIFE
"""Looks after a move until loads tell of the new placement."""

REST = 60
"""Looks for which a slot stays where it has come to."""

AHEAD = 1.25
"""The load is uneven when the busiest shard has so many times the mean,"""

BUSY = 0.3
"""and takes this part of a core: below, nobody gains by a move."""

EVEN = 0.8
"""A slot moves only if the idlest shard then has this part at most of what the busiest has before."""

WORTH = 1 / 2000
"""A slot moves only if it has this part of its shard's load."""

SLOTS_MAX = 32
"""How many slots move at once."""

BYTES_MAX = 64 << 20
"""About how many bytes move at once, and on average in so many looks:"""

BYTES_LOOKS = 12


class Transfer(Struct, frozen=True):
    """Slots that go from one shard to another, and why."""

    slots: list[int]
    giver: int
    taker: int
    giver_busy: float
    taker_busy: float


class Balancing:
    """The looks of one run."""

    def __init__(self) -> None:
        self._look = 0
        self._uneven = 0
        """Looks in a row that have found the load uneven."""
        self._wait_until = 0
        self._rest_until: dict[int, int] = {}
        """When a slot may move again."""

    def look(self, placement: Placement, loads: Mapping[int, Load]) -> Transfer | None:
        """Take in the loads of this moment; return what should move now."""
        self._look += 1
        busy = {shard: loads[shard].busy for shard in placement.members if shard in loads}
        if self._look < self._wait_until or len(busy) < len(placement.members):
            self._uneven = 0
            return None
        giver = max(busy, key=lambda shard: busy[shard])
        mean = sum(busy.values()) / len(busy)
        if busy[giver] < max(BUSY, AHEAD * mean):
            self._uneven = 0
            return None
        self._uneven += 1
        if self._uneven < LOOKS:
            return None
        taker = min(busy, key=lambda shard: busy[shard])
        slots = self._chosen(placement, loads[giver], giver, busy[taker])
        if not slots:
            return None
        self.moved(slots, size=0)
        return Transfer(slots, giver, taker, busy[giver], busy[taker])

    def _chosen(self, placement: Placement, load: Load, giver: int, idle: float) -> list[int]:
        """Return the slots that the busiest shard gives away, the heaviest that fit first."""
        left, chosen = load.busy, list[int]()
        most = max(1, min(SLOTS_MAX, BYTES_MAX // max(1, load.slot_bytes)))
        for slot in sorted(load.slots, key=lambda slot: (-load.slots[slot], slot)):
            part = load.slots[slot]
            if part < WORTH * load.busy or len(chosen) == most:
                break
            stays = placement.slots[slot] != giver or self._rest_until.get(slot, 0) > self._look
            if stays or idle + part > EVEN * left:
                continue
            left, idle = left - part, idle + part
            chosen.append(slot)
        return chosen

    def moved(self, slots: list[int], size: int) -> None:
        """Note that slots move, or have moved with so many bytes: what follows has to wait."""
        pause = max(FORGET, -(-size * BYTES_LOOKS // BYTES_MAX))
        self._wait_until = max(self._wait_until, self._look + pause)
        self._uneven = 0
        resting = {slot: until for slot, until in self._rest_until.items() if until > self._look}
        self._rest_until = resting | dict.fromkeys(slots, self._look + REST)
