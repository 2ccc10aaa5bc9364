"""Stored bytes, taken apart without a look inside: states in their array, a state's schema.

Rows are read back by whoever opens the store, however deep an earlier release let them nest:
what one reader can't hold must not keep the others from their own.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

T = TypeVar("T")

NESTING_MAX = 20_000
"""How deep rows of a store may nest for us to step over them. Those of ours stay far below; a
release that had no limit took what its interpreter could encode."""

_split = msgspec.msgpack.Decoder(list[Raw]).decode
_marked = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
"""The length of an unsigned number in msgpack, by its first byte."""


def split(array: bytes | Raw) -> list[Raw]:
    """The elements of a msgpack array, as they stand there."""
    return patiently(_split, array)


def patiently(decode: Callable[[Any], T], data: Any) -> T:
    """Decode stored bytes, also those that nest deeper than the interpreter's limit allows."""
    try:
        return decode(data)
    except RecursionError:
        limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, NESTING_MAX))
    try:
        return decode(data)
    finally:
        sys.setrecursionlimit(limit)


def schema_id_of(state: bytes) -> int:
    """The schema that a stored state names, without a look at its fields."""
    at = 1 if state[0] & 0xF0 == 0x90 else 3 if state[0] == 0xDC else 5
    return int(msgspec.msgpack.decode(state[at : at + _marked.get(state[at], 1)]))
