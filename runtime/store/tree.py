"""Rows in the B-tree: each with a checksum over key and value, each slot with a fingerprint.

LMDB has no checksums. A row's own checksum finds a flipped value, and a value under the wrong
key. A flip higher up in the tree can make a row look absent, which no row can tell; so each
slot keeps the count and the sum of its rows' checksums, verified by `check`. (A sum promises as
much as the usual xor, and many at once are added up in C.)

Knows LMDB transactions and bytes, and nothing of memtables or threads. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add
from pathlib import Path
from typing import Any

import xxhash

from skerry.errors import StoreDamaged
from skerry.runtime.core.events import SLOTS, SLOTTED, Table

_FINGERPRINT = struct.Struct("<QQ")
_SIZE = 4
"""Bytes of a row's checksum: one of four billion damaged rows would look sound."""
_WRAP = 1 << 64
_digest = xxhash.xxh32_digest

SHARD_SLOT = SLOTS
"""Counts the rows that belong to the shard and to no slot."""

TABLES = {number: name for name, number in vars(Table).items() if isinstance(number, int)}

_CHANGED = (
    "The disk or the file system changed it. Restore the app's last backup, or look for more "
    "damage with `skerry check`."
)


def sealed(keys: Sequence[bytes], values: Sequence[bytes]) -> list[bytes]:
    """Return rows' values as the tree holds them: each behind its checksum."""
    return list(map(add, map(_digest, map(add, keys, values)), values))


def unseal(key: bytes, stored: bytes, path: Path) -> bytes:
    """Return the value of a row, verified. Raises StoreDamaged naming the row."""
    value = bytes(stored[_SIZE:])
    if len(stored) < _SIZE or stored[:_SIZE] != _digest(key + value):
        table = TABLES.get(key[0], str(key[0])) if key else "none"
        raise StoreDamaged(
            f"A row of {path} does not match its checksum: table {table}, key {key[1:]!r}. {_CHANGED}"
        )
    return value


def slot_of_row(key: bytes) -> int:
    """Return the slot that a key of the tree belongs to."""
    return int.from_bytes(key[1:3], "big") if key[0] in SLOTTED else SHARD_SLOT


def note(txn: Any, slots: Any, slot: int, old: list[bytes], new: list[bytes], path: Path) -> None:
    """Update a slot's fingerprint: in this transaction, new rows replace old ones.

    Raises StoreDamaged: the fingerprint is damaged.
    """
    count, total = _fingerprint(txn, slots, slot, path)
    count += len(new) - len(old)
    total = (total + sum(checksums(new)) - sum(checksums(old))) % _WRAP
    txn.put(slot.to_bytes(2, "big"), _FINGERPRINT.pack(count, total), db=slots)


def checksums(stored: Iterable[bytes]) -> tuple[int, ...]:
    """Return the checksums that rows carry, as numbers."""
    heads = b"".join([row[:_SIZE] for row in stored])
    return struct.unpack(f">{len(heads) // _SIZE}I", heads)


def _fingerprint(txn: Any, slots: Any, slot: int, path: Path) -> tuple[int, int]:
    found = txn.get(slot.to_bytes(2, "big"), _FINGERPRINT.pack(0, 0), db=slots)
    if len(found) != _FINGERPRINT.size:
        raise StoreDamaged(
            f"The fingerprint of slot {slot} of {path} has {len(found)} bytes, not "
            f"{_FINGERPRINT.size}. {_CHANGED}"
        )
    return _FINGERPRINT.unpack(found)


def verify(
    txn: Any,
    rows: Any,
    slots: Any,
    path: Path,
    met: Callable[[bytes, bytes], None] = lambda key, value: None,
) -> Iterator[str]:
    """Verify every checksum and fingerprint of a store; yield a sentence for each that is wrong.

    `met` is told the key and the value of each row that is sound.
    """
    found: dict[int, tuple[int, int]] = {}
    for key, stored in txn.cursor(db=rows).iternext(keys=True, values=True):
        try:
            value = unseal(bytes(key), bytes(stored), path)
        except StoreDamaged as damage:
            yield str(damage)
            continue
        met(bytes(key), value)
        slot = slot_of_row(key)
        count, total = found.get(slot, (0, 0))
        found[slot] = count + 1, (total + checksums((bytes(stored),))[0]) % _WRAP
    for slot in range(SLOTS + 1):
        try:
            expected = _fingerprint(txn, slots, slot, path)
        except StoreDamaged as damage:
            yield str(damage)
            continue
        if found.get(slot, (0, 0)) != expected:
            yield (
                f"Slot {slot} of {path} should hold {expected[0]} rows and holds "
                f"{found.get(slot, (0, 0))[0]}, or one of them is not the newest: rows vanished."
            )
