"""Stored bytes, split without decoding their values: an array of states, a state's schema id.

Every reader of a store must step over rows that an earlier release let nest deeper than this
one decodes: a row that one reader cannot hold must not keep others from theirs.

Pure: bytes in, bytes out.
"""

from __future__ import annotations

import msgspec
from msgspec import DecodeError, Raw, ValidationError

_split = msgspec.msgpack.Decoder(list[Raw]).decode

# Heads of msgpack values, by their first byte, where that does not say all by itself.
_marked = {0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9}
"""Length of an unsigned number in bytes."""
_fixed = dict.fromkeys((0xC0, 0xC2, 0xC3), 1) | _marked | {0xCA: 5, 0xCB: 9}
_fixed |= {0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9}
_fixed |= {0xD4: 3, 0xD5: 4, 0xD6: 6, 0xD7: 10, 0xD8: 18}
"""Length of a value of a fixed length: nil, truth, numbers, small extensions."""
_texts = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_texts |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}
"""Bytes, extensions and texts: the width of their length, and what lies between it and them."""
_collections = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Arrays and maps: the width of their count, and how many values it counts at a time."""


def split(array: bytes | Raw) -> list[Raw]:
    """Split a msgpack array into its elements, still encoded."""
    try:
        return _split(array)
    except RecursionError:
        return split_deep(array)


def split_deep(array: bytes | memoryview | Raw) -> list[Raw]:
    """Split an array whose elements may nest deeper than the interpreter lets a decoder go.

    A loop where msgspec recurses. It is slower by far, and serves the rare row that needs it.
    """
    data = memoryview(array)
    at, count = _step(data, 0)
    if not (data[0] & 0xF0 == 0x90 or data[0] in (0xDC, 0xDD)):
        raise ValidationError("Expected `array`")
    elements = []
    for _ in range(count):
        start, values = at, 1
        while values:
            at, more = _step(data, at)
            values += more - 1
        elements.append(Raw(data[start:at]))
    if at != len(data):
        raise DecodeError(f"trailing characters (byte {at})")
    return elements


def _step(data: memoryview, at: int) -> tuple[int, int]:
    """Step over a value, or over the head of an array or a map.

    Returns the end of what was stepped over, and how many values of a collection follow.
    """
    first = data[at] if at < len(data) else 0
    values = 0
    if first < 0x80 or first >= 0xE0:
        end = at + 1
    elif first < 0xA0:
        end, values = at + 1, (first & 0x0F) * (2 if first < 0x90 else 1)
    elif first < 0xC0:
        end = at + 1 + (first & 0x1F)
    elif first in _fixed:
        end = at + _fixed[first]
    elif first in _texts:
        width, between = _texts[first]
        end = at + 1 + width + between + _number(data, at + 1, width)
    elif first in _collections:
        width, each = _collections[first]
        end, values = at + 1 + width, each * _number(data, at + 1, width)
    else:
        raise DecodeError(f"invalid opcode (byte {at})")
    if end > len(data):
        raise DecodeError("Input data was truncated")
    return end, values


def _number(data: memoryview, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")


def schema_id_of(state: bytes) -> int:
    """Read the schema id of a stored state without decoding its fields."""
    at = 1 if state[0] & 0xF0 == 0x90 else 3 if state[0] == 0xDC else 5
    return int(msgspec.msgpack.decode(state[at : at + _marked.get(state[at], 1)]))
