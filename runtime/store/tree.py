"""Rows in the B-tree: each with a checksum over key and value, each slot with a fingerprint.

LMDB has no checksums. A row's own checksum finds a flipped value, and a value under the wrong
key. A flip higher up in the tree can make a row look absent, which no row can tell; so each
slot keeps the count and the xor of its rows' checksums, verified by `check`.

Knows LMDB transactions and bytes; nothing of overlays or threads. Idea: docs/log.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import xxhash

from skerry.errors import StoreDamaged
from skerry.runtime.shard.events import SLOTS, SLOTTED, Table

_CHECKSUM = struct.Struct("<Q")
_FINGERPRINT = struct.Struct("<QQ")
_checksum = xxhash.xxh3_64_intdigest

HOUSE_SLOT = SLOTS
"""Where rows that belong to the shard and not to a slot are counted."""

TABLES = {number: name for name, number in vars(Table).items() if isinstance(number, int)}


def seal(key: bytes, value: bytes) -> bytes:
    """A value as it stands in the tree."""
    return _CHECKSUM.pack(_checksum(key + value)) + value


def unseal(key: bytes, stored: bytes, path: Path) -> bytes:
    """The value of a row, verified. Raises StoreDamaged naming it."""
    value = bytes(stored[8:])
    if len(stored) < 8 or _CHECKSUM.unpack_from(stored)[0] != _checksum(key + value):
        table = TABLES.get(key[0], str(key[0])) if key else "none"
        raise StoreDamaged(
            f"A row of {path} does not match its checksum: table {table}, key {key[1:]!r}. The "
            f"disk or the file system changed it. Restore the app's last backup, or look for more "
            f"damage with `skerry check`."
        )
    return value


def slot_of_row(key: bytes) -> int:
    """The slot that a tree key belongs to."""
    return int.from_bytes(key[1:3], "big") if key[0] in SLOTTED else HOUSE_SLOT


class Fingerprints:
    """Count and xor of each slot's rows, as changed by one transaction."""

    def __init__(self, txn: Any, db: Any) -> None:
        self._txn, self._db = txn, db
        self._changed: dict[int, list[int]] = {}

    def _stored(self, slot: int) -> list[int]:
        stored = self._txn.get(slot.to_bytes(2, "big"), db=self._db)
        return list(_FINGERPRINT.unpack(stored)) if stored else [0, 0]

    def change(self, key: bytes, old: bytes | None, new: bytes | None) -> None:
        """A row was written over, written anew or deleted."""
        slot = slot_of_row(key)
        found = self._changed.get(slot)
        if found is None:
            found = self._changed[slot] = self._stored(slot)
        if old is not None:
            found[0] -= 1
            found[1] ^= _CHECKSUM.unpack_from(old)[0]
        if new is not None:
            found[0] += 1
            found[1] ^= _CHECKSUM.unpack_from(new)[0]

    def save(self) -> None:
        """Write what changed, in the same transaction."""
        for slot, (count, xor) in self._changed.items():
            self._txn.put(slot.to_bytes(2, "big"), _FINGERPRINT.pack(count, xor), db=self._db)


def verify(txn: Any, rows: Any, slots: Any, path: Path) -> Iterator[str]:
    """Every checksum and fingerprint of a store; a sentence for each that is wrong."""
    found: dict[int, tuple[int, int]] = {}
    for key, stored in txn.cursor(db=rows).iternext(keys=True, values=True):
        try:
            unseal(bytes(key), bytes(stored), path)
        except StoreDamaged as damage:
            yield str(damage)
            continue
        slot = slot_of_row(key)
        count, xor = found.get(slot, (0, 0))
        found[slot] = (count + 1, xor ^ _CHECKSUM.unpack_from(stored)[0])
    for slot in range(SLOTS + 1):
        stored = txn.get(slot.to_bytes(2, "big"), db=slots)
        expected = _FINGERPRINT.unpack(stored) if stored else (0, 0)
        if found.get(slot, (0, 0)) != expected:
            yield (
                f"Slot {slot} of {path} should hold {expected[0]} rows and holds "
                f"{found.get(slot, (0, 0))[0]}, or one of them is not the newest: rows vanished."
            )
