"""Stored bytes, split without decoding their values: an array of states, a state's schema id.

Every reader of a store must step over rows that an earlier release let nest deeper than this
one decodes: a row that one reader cannot hold must not keep others from theirs.

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
"""How deep a stored row may nest and still be stepped over. Rows of this release stay far below;
a release without a limit stored whatever its interpreter could encode."""

_split = msgspec.msgpack.Decoder(list[Raw]).decode
_marked = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
"""Length of an unsigned msgpack number in bytes, by its first byte."""


def split(array: bytes | Raw) -> list[Raw]:
    """Split a msgpack array into its elements, still encoded."""
    return patiently(_split, array)


def patiently(decode: Callable[[Any], T], data: Any) -> T:
    """Decode stored bytes, even when they nest deeper than the interpreter's recursion limit."""
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
    """Read the schema id of a stored state without decoding its fields."""
    at = 1 if state[0] & 0xF0 == 0x90 else 3 if state[0] == 0xDC else 5
    return int(msgspec.msgpack.decode(state[at : at + _marked.get(state[at], 1)]))
