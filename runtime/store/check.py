"""Verifies a store that nobody runs: every record's chain, every row's checksum, every slot's count.

Reads only. Idea: docs/log.md.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb

from skerry.errors import StoreDamaged, StoreLocked
from skerry.runtime.store.files import Environment, open_log
from skerry.runtime.store.tree import verify


def check(path: Path, *, shard: int) -> Iterator[str]:
    """A sentence for each thing that is wrong with the store; none when it is clean."""
    try:
        store = Environment(path, shard=shard, quota_bytes=1 << 40)
    except StoreDamaged as damage:
        yield str(damage)
        return
    try:
        with store.env.begin() as txn:
            yield from _log(txn, store)
            yield from verify(txn, store.rows, store.slots, path)
    except lmdb.Error as error:
        yield str(store.unreadable(error))
    finally:
        store.close()


def _log(txn: lmdb.Transaction, store: Environment) -> Iterator[str]:
    """The records: each checksum, and the chain between them, up to the first that is wrong."""
    try:
        for _ in open_log(store, store.position(txn)).replay():
            pass
    except StoreDamaged as damage:
        yield str(damage)


def check_apart(path: Path, *, shard: int) -> list[str]:
    """The same in a process of its own: pages may be so damaged that reading them kills it."""
    apart = [sys.executable, "-P", "-m", "skerry.runtime.store.check", str(path), str(shard)]
    done = subprocess.run(apart, capture_output=True, text=True)
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
        for sentence in check(Path(sys.argv[1]), shard=int(sys.argv[2])):
            sys.stdout.write(f"{sentence}\n")
    except StoreLocked as locked:
        sys.exit(f"skerry: {locked}")
