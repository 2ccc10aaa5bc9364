"""Verifies a store that is not in use: each record's chain, each row's checksum, each slot's count.

A slot on its way may have rows at both ends: the store's own row says which are.

Reads only. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec

from skerry.errors import StoreDamaged, StoreLocked
from skerry.runtime.core import progress
from skerry.runtime.core.commit import state_key
from skerry.runtime.core.events import SLOTS, Table
from skerry.runtime.core.placement import Placement
from skerry.runtime.store.environment import Environment
from skerry.runtime.store.memtable import tree_key
from skerry.runtime.store.store import open_log
from skerry.runtime.store.tree import slot_of_row, verify

MOVES = tree_key(Table.META, progress.KEY)

NAMED = 8
"""How many slots a sentence names."""


def check(path: Path, *, shard: int, placement: Placement | None = None) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with a store. `placement`: the app's, if known."""
    try:
        store = Environment(path, shard=shard, quota_bytes=1 << 40)
    except StoreDamaged as damage:
        yield str(damage)
        return
    try:
        with store.env.begin() as txn:
            strays = _Strays(shard, placement)
            yield from verify(txn, store.rows, store.slots, path, strays.put)
            yield from _log(store, strays)
            yield from strays.named(path)
    except lmdb.Error as error:
        yield str(store.unreadable(error))
    finally:
        store.close()


class _Strays:
    """Rows that are never read here, because another shard owns their slots.

    Those of slots that are on their way are none: the store's own row says which these are.
    """

    def __init__(self, shard: int, placement: Placement | None) -> None:
        self._shard, self._placement = shard, placement
        self._found: dict[bytes, int] = {}
        """The keys of rows in slots of others, each with its slot, as the newest commit leaves them."""
        self._moves: bytes | None = None

    def put(self, key: bytes, value: bytes | None) -> None:
        """Note a row, or its deletion. `key` is that of the row in the tree."""
        if key == MOVES:
            self._moves = value
        slot = slot_of_row(key)
        if self._placement is None or slot >= SLOTS or self._placement.slots[slot] == self._shard:
            return
        if value is None:
            self._found.pop(key, None)
        else:
            self._found[key] = slot

    def named(self, path: Path) -> Iterator[str]:
        """Yield a sentence that names their slots, if there are any."""
        here, own = set[int](), self._placement
        if self._moves is not None and own is not None:
            try:
                moves = progress.progress_of(self._moves)
            except msgspec.MsgspecError:
                return  # It is named when all rows are verified.
            here = moves.away
            if moves.placement.version == own.version - 1:
                own = moves.placement  # It has not heard of the newest version yet.
        others = {
            slot: own.slots[slot]
            for slot in sorted({*self._found.values()} - here)
            if own is not None and own.slots[slot] != self._shard
        }
        if others:
            slots = ", ".join(
                f"{slot} (shard {owner})" for slot, owner in list(others.items())[:NAMED]
            )
            yield (
                f"{path} holds rows of {len(others)} slots that app.json gives to other shards: {slots}"
                f"{', …' if len(others) > NAMED else ''}. Description and stores are of different "
                f"times, or one of them is wrong: restore the app's last backup."
            )


def _log(store: Environment, strays: _Strays) -> Iterator[str]:
    """Verify the log's records and the chain between them, up to the first that is wrong."""
    try:
        log, _ = open_log(store)
        for decoded in log.replay():
            for group in decoded.states:
                for key, state in group.each():
                    strays.put(tree_key(Table.STATE, state_key(group.type, key)), state)
            for table, row_key, value in decoded.rows:
                strays.put(tree_key(table, row_key), value)
    except StoreDamaged as damage:
        yield str(damage)


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
