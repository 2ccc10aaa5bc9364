"""Keys of a layer of the overlay in the order of the tree, without a sort of the layer for each look.

A layer's dict keeps its keys in the order in which they came, and lets none go. So what has come
since the last look is its end: only that is dealt to slots, and of a slot that is looked at only
what is new to it is sorted in. Nobody who writes does anything for it.

Memory only. Idea: docs/log.md.
"""

from __future__ import annotations

import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, KeysView, Sequence
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar

K = TypeVar("K", str, bytes)


class Order(Generic[K]):
    """The keys of one dict, by slot."""

    __slots__ = ("_dealt", "_keys", "_new", "_seen", "_slots_of", "_unsorted")

    def __init__(
        self, keys: dict[K, Any], slots_of: Callable[[Sequence[K]], Iterable[int]]
    ) -> None:
        self._keys: dict[K, Any] = keys
        self._slots_of: Callable[[Sequence[K]], Iterable[int]] = slots_of
        self._seen = 0
        self._new: list[K] = []
        """Keys that were seen and not dealt yet."""
        self._dealt: dict[int, list[K]] = {}
        self._unsorted: set[int] = set()

    def learn(self, most: int = sys.maxsize) -> int:
        """Deal so many of the keys that came since. How many are left."""
        came = len(self._keys) - self._seen
        self._new += islice(reversed(self._keys), came)
        self._seen += came
        piece = self._new[-most:]
        del self._new[-most:]
        dealt, slots = self._dealt, list(self._slots_of(piece))
        for slot, key in zip(slots, piece):
            of_slot = dealt.get(slot)
            if of_slot is None:
                dealt[slot] = [key]
            else:
                of_slot.append(key)
        self._unsorted.update(slots)
        return len(self._new)

    @property
    def slots(self) -> KeysView[int]:
        """Those that have keys."""
        return self._dealt.keys()

    def keys(self, slot: int, prefix: K, after: K) -> Iterator[K]:
        """Those of a slot that begin with `prefix` and stand behind `after`, in order."""
        of_slot = self._dealt.get(slot)
        if of_slot is None:
            return iter(())
        if slot in self._unsorted:
            self._unsorted.discard(slot)
            of_slot.sort()
        first = max(bisect_left(of_slot, prefix), bisect_right(of_slot, after) if after else 0)
        return takewhile(lambda key: key.startswith(prefix), of_slot[first:])


def slots_of_rows(keys: Sequence[bytes]) -> Iterator[int]:
    """What rows of a table are dealt by: their first two bytes, which are the slot where they have
    one."""
    return (int.from_bytes(key[:2], "big") for key in keys)
