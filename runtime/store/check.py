"""Verifies a store that is not in use: each record's chain, each row's checksum, each slot's count.

Reads only. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import lmdb
import msgspec

from skerry.errors import StoreDamaged, StoreLocked
from skerry.runtime.core.events import SLOTTED
from skerry.runtime.core.ownership import slots_of
from skerry.runtime.store.environment import Environment
from skerry.runtime.store.store import open_log
from skerry.runtime.store.tree import verify

NAMED = 8
"""How many slots a sentence names."""


def check(path: Path, *, shard: int, owners: Sequence[int] = ()) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with a store.

    `owners` has the owner of each slot, if known.
    """
    try:
        store = Environment(path, shard=shard, quota_bytes=1 << 40)
    except StoreDamaged as damage:
        yield str(damage)
        return
    try:
        with store.env.begin() as txn:
            seen: set[int] = set()
            yield from _log(store, seen)
            yield from verify(txn, store.rows, store.slots, path, seen)
            yield from _strays(path, shard, owners, seen)
    except lmdb.Error as error:
        yield str(store.unreadable(error))
    finally:
        store.close()


def _log(store: Environment, seen: set[int]) -> Iterator[str]:
    """Verify the log's records and the chain between them, up to the first that is wrong."""
    try:
        log, _ = open_log(store)
        for decoded in log.replay():
            for group in decoded.states:
                seen.update(slots_of(group.type, group.keys))
            kept = (
                key for table, key, value in decoded.rows if table in SLOTTED and value is not None
            )
            seen.update(int.from_bytes(key[:2], "big") for key in kept)
    except StoreDamaged as damage:
        yield str(damage)


def _strays(path: Path, shard: int, owners: Sequence[int], seen: set[int]) -> Iterator[str]:
    """Name rows that are never read here, because another shard owns their slots."""
    if others := {
        slot: owner for slot, owner in enumerate(owners) if slot in seen and owner != shard
    }:
        slots = ", ".join(f"{slot} (shard {owner})" for slot, owner in list(others.items())[:NAMED])
        yield (
            f"{path} holds rows of {len(others)} slots that app.json gives to other shards: {slots}"
            f"{', …' if len(others) > NAMED else ''}. Description and stores are of different times, "
            f"or one of them is wrong: restore the app's last backup."
        )


def check_apart(path: Path, *, shard: int, owners: Sequence[int] = ()) -> list[str]:
    """Run `check` in a process of its own: damaged pages may kill the process that reads them."""
    apart = [sys.executable, "-P", "-m", "skerry.runtime.store.check", str(path), str(shard)]
    told = msgspec.json.encode(owners).decode()
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
        told = msgspec.json.decode(sys.stdin.buffer.read(), type=list[int])
        for sentence in check(Path(sys.argv[1]), shard=int(sys.argv[2]), owners=told):
            sys.stdout.write(f"{sentence}\n")
    except StoreLocked as locked:
        sys.exit(f"skerry: {locked}")
