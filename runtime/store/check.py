"""Verifies a store that nobody runs: every record's chain, every row's checksum, every slot's count.

Reads only. Idea: docs/log.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import lmdb

from skerry.errors import StoreDamaged
from skerry.runtime.shard import commit as records
from skerry.runtime.store.files import Environment
from skerry.runtime.store.tree import verify


def check(path: Path, *, shard: int) -> Iterator[str]:
    """A sentence for each thing that is wrong with the store; none when it is clean."""
    try:
        store = Environment(path, shard=shard, sync=True, quota_bytes=1 << 40)
    except StoreDamaged as damage:
        yield str(damage)
        return
    try:
        with store.env.begin() as txn:
            yield from _log(txn, store)
            yield from verify(txn, store.rows, store.slots, path)
    except lmdb.Error as error:
        yield f"LMDB can't read {path} to its end: {error}. Restore the app's last backup."
    finally:
        store.close()


def _log(txn: lmdb.Transaction, store: Environment) -> Iterator[str]:
    """The records: each checksum, and the chain between them."""
    before: tuple[int, int] | None = None
    for key, record in txn.cursor(db=store.log).iternext(keys=True, values=True):
        no = int.from_bytes(key, "big")
        try:
            decoded = records.decode(bytes(record))
        except ValueError as error:
            yield f"Commit {no} in the log of {store.path} is damaged: {error}."
            before = None
            continue
        if before is not None and (before[0] + 1, before[1]) != (no, decoded.previous):
            yield f"Commit {no} in the log of {store.path} does not follow commit {before[0]}."
        before = (no, decoded.checksum)
