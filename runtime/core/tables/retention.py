"""How long outcomes are kept that nobody confirms, and how old ones are found.

A shard looks through one slot a minute, so that nobody waits for it.

Pure, but for a scan of the store.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.ports import Committed

LIFETIME_NS = 24 * 3600 * 10**9
"""How long the store keeps an outcome at least."""

LOOK_NS = 60 * 10**9
"""How often a shard looks through a slot, the next one each time."""


class _Dated(Struct, array_like=True, frozen=True):
    """The first fields of each row that expires."""

    what: Raw
    time_ns: int


_dated = msgspec.msgpack.Decoder(_Dated)


def too_old(first_ns: int, now_ns: int) -> bool:
    """Whether a request first tried at `first_ns` may have been answered and forgotten: then it must
    not run. Half of the lifetime is for clocks that differ."""
    return first_ns < now_ns - LIFETIME_NS // 2


def looked_through(
    store: Committed, table: int, slot: int, now_ns: int
) -> Iterator[tuple[bytes, bool]]:
    """Yield the key of each row of a slot, and whether the row has expired."""
    old_ns = now_ns - LIFETIME_NS
    for key, value in store.scan(table, slot_prefix(slot)):
        yield bytes(key), _dated.decode(value).time_ns < old_ns
