"""A store's LMDB environment: opened, checked, copied.

The map is address space, not disk: it is as large as the quota from the start, the file grows by
itself, and no reader ever has to step aside for growth.

Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import lmdb
import msgspec
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.ports import Copied, LogSnapshot
from skerry.runtime.store import label as labels
from skerry.runtime.store import lock
from skerry.runtime.store.disk import sealed, sync_path, unsealed
from skerry.runtime.store.label import Label
from skerry.runtime.store.tree import verify

FORMAT = 6
TREE = "data.mdb"
TABLES = (b"rows", b"slots", b"meta")
"""LMDB's tables in it."""

HEAD_TXN_OFFSET = 144
"""Where a head page of LMDB 0.9 names its transaction: after a page header of 16 bytes, four
fields of 24, two databases of 48 and the number of the last page."""

VERIFIED_ROWS = 20_000
"""A tree of at most so many rows is read whole at each opening, in about 0.1 s. Larger ones are
read whole by `check` only."""

DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)
"""What LMDB raises for damaged pages."""


class _Identity(Struct, array_like=True):
    format: int
    shard: int
    store: str = ""


class Position(Struct, frozen=True):
    """How far the tree is, and by what token its log opens."""

    covered: int = 0
    """The tree has the rows of every commit up to this one, and the log begins behind it."""
    checksum: int = 0
    """That commit's checksum."""
    token: bytes = b""
    """From the log, which alone can read it."""


_POSITION = struct.Struct("<QQ")


class Environment:
    """The open environment of one store, whose folder is locked. Raises StoreLocked, StoreDamaged."""

    def __init__(self, path: Path, *, shard: int, quota_bytes: int) -> None:
        self.path, self.shard, self.quota_bytes = path, shard, quota_bytes
        if not (path / TREE).is_file():
            raise StoreDamaged(missing(path, shard))
        self._lock = lock.acquire(path)
        try:
            self.env = _open(path, quota_bytes)
            self._check_length()
            self._check_heads()
            # Never created here: with a damaged name the table would be a new, empty one.
            self.rows, self.slots, self.meta = (
                self.env.open_db(name, create=False) for name in TABLES
            )
            self._check()
        except BaseException as error:
            self.close()
            if not isinstance(error, lmdb.Error):
                raise
            raise StoreDamaged(
                f"LMDB cannot open {path}: {error}. Restore the app's last backup."
            ) from error

    @classmethod
    def create(cls, path: Path, label: Label, position: Position) -> None:
        """Create an empty tree beside a label and a log, synced with the folder."""
        env = lmdb.open(_bytes(path), map_size=1 << 26, max_dbs=3, mode=0o600)
        for name in TABLES:
            env.open_db(name)
        with env.begin(write=True) as txn:
            meta = env.open_db(b"meta", txn=txn)
            identity = _Identity(FORMAT, label.shard, label.store)
            txn.put(b"identity", msgspec.msgpack.encode(identity), db=meta)
            txn.put(b"position", _packed(position), db=meta)
        env.sync(True)
        env.close()
        for folder in (path, path.parent):
            sync_path(folder)

    def _check_length(self) -> None:
        """Check the file's length: reading a map past the end of its file kills the process."""
        pages, size = self.env.info()["last_pgno"] + 1, (self.path / TREE).stat().st_size
        needed = pages * self.env.stat()["psize"]
        if size < needed:
            raise StoreDamaged(
                f"{self.path / 'data.mdb'} was cut short: it has {size:,} bytes and needs {needed:,}. "
                f"Restore the app's last backup."
            )

    def _check_heads(self) -> None:
        """Check that LMDB's two head pages, which take turns, name neighbouring transactions.

        Heads have no checksum: with the newer one damaged, LMDB would go on from the older one,
        a commit back, and say nothing.
        """
        with open(self.path / TREE, "rb") as file:
            first, second = (self._head(file, number) for number in (0, 1))
        if abs(first - second) != 1 and max(first, second) > 1:
            raise StoreDamaged(
                f"The head pages of {self.path / 'data.mdb'} name the transactions {first} and "
                f"{second}, which are no neighbours: one of them is damaged. Restore the app's last "
                f"backup."
            )

    def _head(self, file: BinaryIO, number: int) -> int:
        file.seek(number * self.env.stat()["psize"] + HEAD_TXN_OFFSET)
        return int.from_bytes(file.read(8), "little")

    def verify_small(self) -> None:
        """Read a small tree whole. A damaged page may hide rows, which no row can tell.

        Raises StoreDamaged.
        """
        with self.env.begin() as txn:
            if txn.stat(self.rows)["entries"] <= VERIFIED_ROWS:
                for damage in verify(txn, self.rows, self.slots, self.path):
                    raise StoreDamaged(damage)

    def _check(self) -> None:
        with self.env.begin() as txn:
            stored = txn.get(b"identity", db=self.meta)
        try:
            identity = msgspec.msgpack.decode(stored or b"", type=_Identity)
        except msgspec.MsgspecError as error:
            raise StoreDamaged(
                f"{self.path} is an LMDB file, but not a store of skerry."
            ) from error
        if identity.format != FORMAT:
            raise StoreDamaged(
                f"The store {self.path} has format {identity.format}; this skerry reads format "
                f"{FORMAT}. Install the release that wrote it, or a newer one."
            )
        if identity.shard != self.shard:
            raise StoreDamaged(
                f"The store {self.path} belongs to shard {identity.shard}, not {self.shard}: "
                f"folders were swapped. Put them back."
            )
        self.label = self._labelled(identity)

    def _labelled(self, identity: _Identity) -> Label:
        label = labels.read(self.path)
        if (label.store, label.shard) != (identity.store, identity.shard):
            raise StoreDamaged(
                f"{self.path / labels.NAME} is the label of another store than the tree beside it: "
                f"files were swapped. Put them back, or restore the app's last backup."
            )
        return label

    def position(self) -> Position:
        """Return the position that the tree names. Raises StoreDamaged."""
        with self.env.begin() as txn:
            stored = bytes(txn.get(b"position", b"", db=self.meta))
        try:
            packed = unsealed(stored)
            covered, checksum = _POSITION.unpack_from(packed)
            return Position(covered, checksum, packed[_POSITION.size :])
        except (ValueError, struct.error) as error:
            raise StoreDamaged(
                f"What {self.path} says of where its log is, is damaged: {error}. Restore the app's "
                f"last backup."
            ) from error

    def note(self, txn: lmdb.Transaction, position: Position) -> None:
        """Store a new position, with the transaction's commit."""
        txn.put(b"position", _packed(position), db=self.meta)

    def copy(self, txn: lmdb.Transaction, log: LogSnapshot, folder: Path) -> Copied:
        """Copy the rows that a transaction sees, and the log of that moment, as a store of their
        own: synced, without free pages.

        Ends both. Any thread may call this. Raises SkerryError: the folder can't be written;
        StoreDamaged: the store can't be read.
        """
        try:
            # Not its parents: a backup that was given up meanwhile has removed them.
            folder.mkdir(mode=0o700)
            size = log.copy(folder)
            self.env.copy(_bytes(folder), compact=True, txn=txn)
            file = folder / TREE
            file.chmod(0o600)
            sync_path(file)
            labels.write(folder, self.label)  # With the folder.
            return Copied(log.no, size + file.stat().st_size)
        except DAMAGE as error:
            raise self.unreadable(error) from error
        except (lmdb.Error, OSError) as error:
            # The store is read through its map, and says itself what is wrong with its log: so
            # what the system refuses is to write the copy.
            raise SkerryError(
                f"{self.path} could not be copied to {folder}: {error}. The store itself is not "
                f"touched. Make room there, or choose another folder."
            ) from error
        finally:
            txn.abort()
            log.close()

    def tree_bytes(self) -> int:
        """Return what the tree's rows take, free pages left out."""
        with self.env.begin() as txn:
            stat = txn.stat(self.rows)
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    def unreadable(self, error: lmdb.Error) -> StoreDamaged:
        """Return what LMDB says of damaged pages as an error of ours."""
        return StoreDamaged(
            f"LMDB can't read {self.path} to its end: {error}. Restore the app's last backup; "
            f"`skerry check` lists all damage."
        )

    def close(self) -> None:
        """Close the environment and unlock the folder."""
        if hasattr(self, "env"):  # Not when opening it is what failed.
            self.env.close()
        lock.release(self._lock)


def _bytes(path: Path) -> Any:
    """Return a path as bytes, which LMDB takes and does not type: not every path is text."""
    return os.fsencode(path)


def _open(path: Path, quota_bytes: int) -> lmdb.Environment:
    """Open with as much address space as the quota, or less where the system limits it."""
    size = quota_bytes
    while True:
        try:
            return lmdb.open(
                _bytes(path),
                map_size=size,
                max_dbs=3,
                mode=0o600,
                readahead=False,
                max_readers=16,
            )
        except lmdb.MemoryError:
            size //= 2
            if size < 1 << 26:
                raise


def missing(path: Path, shard: int) -> str:
    """Return the sentence for a member's store that is missing."""
    return (
        f"The store {path} is missing, but the app has a shard {shard} there. Mount the disk that "
        f"holds it, or restore the app's last backup: all shards together."
    )


def _packed(position: Position) -> bytes:
    """Return a position's bytes, sealed: a flipped bit in them would leave out commits."""
    return sealed(_POSITION.pack(position.covered, position.checksum) + position.token)
