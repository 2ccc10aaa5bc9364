"""Verifies a store that is not in use: each record's chain, each row's checksum, each slot's count.

A slot on its way may have rows at both ends: the store's own row says which are.

Reads only. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec
from msgspec import Struct

from skerry.errors import StoreDamaged, StoreLocked
from skerry.runtime.core import progress
from skerry.runtime.core.events import SLOTTED, Table
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.store.environment import Environment
from skerry.runtime.store.memtable import tree_key
from skerry.runtime.store.store import open_log
from skerry.runtime.store.tree import unseal, verify

NAMED = 8
"""How many slots a sentence names."""


class _Seen(Struct):
    """What a store holds."""

    slots: set[int] = set()
    """Slots that have rows."""
    moves: bytes | None = None
    """The row on slots that move."""


def check(path: Path, *, shard: int, placement: Placement | None = None) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with a store. `placement`: the app's, if known."""
    try:
        store = Environment(path, shard=shard, quota_bytes=1 << 40)
    except StoreDamaged as damage:
        yield str(damage)
        return
    try:
        with store.env.begin() as txn:
            seen = _Seen(moves=_moves_in_tree(store, txn))
            yield from _log(store, seen)
            yield from verify(txn, store.rows, store.slots, path, seen.slots)
            if placement is not None:
                yield from _strays(path, shard, placement, seen)
    except lmdb.Error as error:
        yield str(store.unreadable(error))
    finally:
        store.close()


def _moves_in_tree(store: Environment, txn: Any) -> bytes | None:
    key = tree_key(Table.META, progress.KEY)
    try:
        stored = txn.get(key, db=store.rows)
        return None if stored is None else unseal(key, stored, store.path)
    except StoreDamaged:
        return None  # It is named when all rows are verified.


def _log(store: Environment, seen: _Seen) -> Iterator[str]:
    """Verify the log's records and the chain between them, up to the first that is wrong."""
    try:
        log, _ = open_log(store)
        for decoded in log.replay():
            for group in decoded.states:
                seen.slots.update(slots_of(group.type, group.keys))
            for table, key, value in decoded.rows:
                if table in SLOTTED and value is not None:
                    seen.slots.add(int.from_bytes(key[:2], "big"))
                elif (table, key) == (Table.META, progress.KEY):
                    seen.moves = value
    except StoreDamaged as damage:
        yield str(damage)


def _strays(path: Path, shard: int, placement: Placement, seen: _Seen) -> Iterator[str]:
    """Name rows that are never read here, because another shard owns their slots."""
    here, own = set[int](), placement
    if seen.moves is not None:
        moves = progress.progress_of(seen.moves)
        here = moves.away
        if moves.placement.version == placement.version - 1:
            own = moves.placement  # It has not heard of the newest version yet.
    if others := {
        slot: owner
        for slot, owner in enumerate(own.slots)
        if slot in seen.slots and owner != shard and slot not in here
    }:
        slots = ", ".join(f"{slot} (shard {owner})" for slot, owner in list(others.items())[:NAMED])
        yield (
            f"{path} holds rows of {len(others)} slots that app.json gives to other shards: {slots}"
            f"{', …' if len(others) > NAMED else ''}. Description and stores are of different times, "
            f"or one of them is wrong: restore the app's last backup."
        )


def check_apart(path: Path, *, shard: int, placement: Placement | None = None) -> list[str]:
    """Run `check` in a process of its own: damaged pages may kill the process that reads them."""
    apart = [sys.executable, "-P", "-m", "skerry.runtime.store.check", str(path), str(shard)]
    told = msgspec.json.encode(placement).decode()
    done = subprocess.run(apart, input=told, capture_output=True, text=True)
    if done.returncode < 0:
        return [
            f"The store {path} is damaged so that reading it ends the process with signal "
            f"{-done.returncode}. Restore the app's last backup."
        ]
    if done.returncode:
        return [done.stderr.strip()]
    return done.stdout.splitlines()


if __name__ == "__main__":
    try:
        told = msgspec.json.decode(sys.stdin.buffer.read(), type=Placement | None)
        for sentence in check(Path(sys.argv[1]), shard=int(sys.argv[2]), placement=told):
            sys.stdout.write(f"{sentence}\n")
    except StoreLocked as locked:
        sys.exit(f"skerry: {locked}")
