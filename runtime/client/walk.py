"""A walk over slots, each read once, wherever they are by then.

    slots left -> the owner of the first is asked for all that it owns -> it says which it has read

Slots move between shards while a walk is under way. So what is left is kept by slot and not by
shard, and a slot that moves in the middle of a page goes on at its new owner, behind the last key.

Data and its rules. Idea: docs/ideas/clients.md, "Order and reads".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from skerry.runtime.core.events import SLOTS
from skerry.runtime.gateway import protocol


class Walk:
    """What is left to be read.

    Args:
        nothing: what comes before every key: "" or b"".
        slot_of: the slot of a key.
    """

    def __init__(
        self, nothing: Any, slot_of: Callable[[Any], int], slots: Iterable[int] = range(SLOTS)
    ) -> None:
        self._nothing, self._slot_of = nothing, slot_of
        self._left = set(slots)
        self.after: Any = nothing
        """The newest key that was read, if more of its slot is left."""

    @property
    def over(self) -> bool:
        """Whether all was read."""
        return not self._left

    def next(self, owners: Sequence[int]) -> tuple[int, bytes]:
        """Return the shard to ask, and for which slots. `owners`: of each slot."""
        first = self._slot_of(self.after) if self.after else min(self._left)
        shard = owners[first]
        slots = (slot for slot in self._left if slot >= first and owners[slot] == shard)
        return shard, protocol.as_bits(slots)

    def took(self, read: bytes, last: Any = None) -> None:
        """Take note of the slots that an answer has read to their end, and of the last key in it."""
        self._left -= protocol.slots_in(read)
        goes_on = last is not None and self._slot_of(last) in self._left
        self.after = last if goes_on else self._nothing
