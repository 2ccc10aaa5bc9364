"""The record of a batch: what it holds, its chain of checksums, its replay.

A record is the list of row changes of one batch, whole post-states and never deltas,
so that replaying a tail over newer rows is harmless. It names the checksum of the
record before it: a record that is missing, swapped or old breaks the chain.

    | checksum 8 | magic 4 | format 4 | no 8 | epoch 8 | time_ns 8 | previous 8 | body |

The body is msgpack: `[[[type, [keys], [states]], ...], [[table, key, value], ...]]`.
Pure: bytes in, bytes out. Idea: docs/log.md.
"""

from __future__ import annotations

import struct

import msgspec
import xxhash

from skerry.runtime.shard.events import CommitNo, Row, StateGroup
from skerry.runtime.shard.placement import slot_of

_HEADER = struct.Struct("<4sIQQQQ")
_CHECKSUM = struct.Struct("<Q")
_MAGIC = b"SKRY"
_FORMAT = 1
_BODY_AT = _CHECKSUM.size + _HEADER.size

_encoder = msgspec.msgpack.Encoder()


class _Body(msgspec.Struct, array_like=True, gc=False):
    states: list[tuple[str, list[str], list[bytes | None]]]
    rows: list[tuple[int, bytes, bytes | None]]


_decoder = msgspec.msgpack.Decoder(_Body)
_checksum = xxhash.xxh3_64_intdigest
_type_ids: dict[str, bytes] = {}


class Decoded(msgspec.Struct, frozen=True):
    """A record read back, its checksum verified."""

    no: CommitNo
    epoch: int
    time_ns: int
    previous: int
    checksum: int
    states: list[StateGroup]
    rows: list[Row]


def encode(
    no: int, epoch: int, time_ns: int, previous: int, states: list[StateGroup], rows: list[Row]
) -> bytes:
    """The bytes of a record. `previous` is the checksum of the one before, 0 for the first."""
    body = _encoder.encode(_Body([(g.type, g.keys, g.values) for g in states], rows))
    sealed = _HEADER.pack(_MAGIC, _FORMAT, no, epoch, time_ns, previous) + body
    return _CHECKSUM.pack(_checksum(sealed)) + sealed


def checksum_of(record: bytes) -> int:
    """The checksum that a record carries (not verified)."""
    return int(_CHECKSUM.unpack_from(record)[0])


def decode(record: bytes) -> Decoded:
    """A record, verified. Raises ValueError saying what is wrong with it."""
    if len(record) < _BODY_AT:
        raise ValueError(f"it has {len(record)} bytes, a record has at least {_BODY_AT}")
    stored = checksum_of(record)
    if stored != _checksum(memoryview(record)[_CHECKSUM.size :]):
        raise ValueError("its checksum does not match its bytes")
    magic, version, no, epoch, time_ns, previous = _HEADER.unpack_from(record, _CHECKSUM.size)
    if magic != _MAGIC or version != _FORMAT:
        raise ValueError(
            f"it has format {magic!r} {version}, this skerry reads {_MAGIC!r} {_FORMAT}"
        )
    body = _decoder.decode(memoryview(record)[_BODY_AT:])
    states = [StateGroup(*group) for group in body.states]
    return Decoded(CommitNo(no), epoch, time_ns, previous, stored, states, list(body.rows))


def type_id(type_name: str) -> bytes:
    """The 8 bytes that stand for an entity type in the keys of rows."""
    found = _type_ids.get(type_name)
    if found is None:
        found = _type_ids[type_name] = xxhash.xxh3_64_digest(type_name.encode())
    return found


def slot_prefix(slot: int) -> bytes:
    """What the keys of all slotted rows of a slot begin with."""
    return slot.to_bytes(2, "big")


def state_key(type_name: str, key: str) -> bytes:
    """The key of a state's row: slot, type id, key."""
    return slot_prefix(slot_of(type_name, key)) + type_id(type_name) + key.encode()
