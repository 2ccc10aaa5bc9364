"""The commit record of a batch: its bytes, its chain of checksums, and the keys of rows.

A record lists the row changes of one batch as whole values, never as deltas, so replaying a
tail of the log over newer rows is harmless. Each record names the checksum of the record
before it: a record that is missing, swapped or old breaks the chain.

    | checksum 8 | magic 4 | format 4 | no 8 | epoch 8 | time_ns 8 | previous 8 | body |

The body is msgpack: `[[[type, [keys], [states], [gone keys]], ...], [[table, key, value], ...]]`.
Pure: bytes in, bytes out. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import msgspec
import xxhash
from msgspec import Raw

from skerry.errors import SkerryError
from skerry.runtime.core.events import SLOTS, Commit, CommitNo, Live, Row, StateGroup
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.stored import split_deep

_HEADER = struct.Struct("<4sIQQQQ")
_CHECKSUM = struct.Struct("<Q")
_MAGIC = b"SKRY"
_FORMAT = 2
_BODY_AT = _CHECKSUM.size + _HEADER.size

_encoder = msgspec.msgpack.Encoder()


class _Body(msgspec.Struct, array_like=True, gc=False):
    states: list[StateGroup]
    rows: list[tuple[int, bytes, bytes | None]]


_decoder = msgspec.msgpack.Decoder(_Body)
_rows = msgspec.msgpack.Decoder(list[tuple[int, bytes, bytes | None]]).decode
_checksum = xxhash.xxh3_64_intdigest
_type_ids: dict[str, bytes] = {}
_state_heads: dict[str, list[bytes]] = {}


class Decoded(msgspec.Struct, frozen=True):
    """A record that was read back, with its checksum verified."""

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
    """Encode a record. `previous` is the checksum of the record before it, 0 for the first."""
    body = _encoder.encode(_Body(states, rows))
    sealed = _HEADER.pack(_MAGIC, _FORMAT, no, epoch, time_ns, previous) + body
    return _CHECKSUM.pack(_checksum(sealed)) + sealed


class Chain:
    """The records of one life of a shard, each with the checksum of the one before it."""

    def __init__(self, epoch: int, no: int, checksum: int) -> None:
        self._epoch, self.no, self._checksum = epoch, no, checksum

    def seal(
        self,
        time_ns: int,
        states: list[StateGroup],
        rows: list[Row],
        live: Sequence[Sequence[Live]] = (),
    ) -> Commit:
        """Return the next commit."""
        self.no += 1
        record = encode(self.no, self._epoch, time_ns, self._checksum, states, rows)
        self._checksum = checksum_of(record)
        return Commit(CommitNo(self.no), record, states, rows, live)


def checksum_of(record: bytes) -> int:
    """Read the checksum of a record, without verifying it."""
    return int(_CHECKSUM.unpack_from(record)[0])


def head_of(record: bytes) -> tuple[int, int, int, int]:
    """Read (number, checksum, epoch, time) of a record, without verifying them."""
    _, _, no, epoch, time_ns, _ = _HEADER.unpack_from(record, _CHECKSUM.size)
    return no, checksum_of(record), epoch, time_ns


def previous_of(record: bytes) -> int:
    """Read the checksum of the record before it, without verifying this one."""
    return int(_HEADER.unpack_from(record, _CHECKSUM.size)[-1])


def decode(record: bytes) -> Decoded:
    """Decode and verify a record. Raises ValueError, which says what is wrong."""
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
    body = _body(memoryview(record)[_BODY_AT:])
    return Decoded(CommitNo(no), epoch, time_ns, previous, stored, body.states, body.rows)


def _body(encoded: memoryview) -> _Body:
    try:
        return _decoder.decode(encoded)
    except RecursionError:  # A state nests deeper than the interpreter lets a decoder go.
        groups, rows = split_deep(encoded)
        return _Body([_group(group) for group in split_deep(groups)], _rows(rows))


def _group(group: Raw) -> StateGroup:
    type, keys, states, *gone = split_deep(group)
    decode = msgspec.msgpack.decode
    return StateGroup(decode(type), decode(keys), states, *map(decode, gone))


TYPE_ID_BYTES = 4


def type_id(type_name: str) -> bytes:
    """The 4 bytes that stand for an entity type in row keys."""
    found = _type_ids.get(type_name)
    if found is None:
        found = _type_ids[type_name] = xxhash.xxh32_digest(type_name.encode())
    return found


def check_type_ids(type_names: Iterable[str]) -> None:
    """Refuse types that share an id. Raises SkerryError."""
    names: dict[bytes, str] = {}
    for name in type_names:
        other = names.setdefault(type_id(name), name)
        if other != name:
            raise SkerryError(
                f"The entity types {other!r} and {name!r} have one id in the store. Rename one: "
                f'class …(Entity, was="{name}") keeps what is stored of a type that ran before.'
            )


def key_of_state(row_key: bytes) -> str:
    """The key of the entity whose state has this row key."""
    return row_key[2 + TYPE_ID_BYTES :].decode()


def slot_prefix(slot: int) -> bytes:
    """The prefix of the keys of all rows of a slot."""
    return slot.to_bytes(2, "big")


def slot_in(row_key: bytes) -> int:
    """The slot of the row with this key, whose table belongs to slots."""
    return int.from_bytes(row_key[:2], "big")


def slot_of_letter(id: bytes) -> int:
    """The slot of a dead letter; some slot for what is no id, since callers may say anything."""
    return slot_in(id) % SLOTS


def state_key(type_name: str, key: str) -> bytes:
    """The key of a state's row: slot, type id, key."""
    return _heads(type_name)[slot_of(type_name, key)] + key.encode()


def state_keys(type_name: str, keys: Iterable[str], slots: Iterable[int]) -> list[bytes]:
    """Row keys of many states of a type, each key with its slot."""
    heads = _heads(type_name)
    return [heads[slot] + key.encode() for slot, key in zip(slots, keys)]


def _heads(type_name: str) -> list[bytes]:
    """The prefixes of the keys of a type's states, by slot."""
    found = _state_heads.get(type_name)
    if found is None:
        id = type_id(type_name)
        found = _state_heads[type_name] = [slot_prefix(slot) + id for slot in range(SLOTS)]
    return found
