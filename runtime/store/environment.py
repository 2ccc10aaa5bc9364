"""A store's folder: its lock, its format, its LMDB environment, where its log stands.

A store is owned by one process at a time, by `flock`: the fence that keeps a slot with one
owner (I5). The map is address space, not disk: it is as large as the quota from the start,
the file grows by itself, and no reader ever has to step aside for growth.

Idea: docs/log.md.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import lmdb
import msgspec
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged, StoreLocked
from skerry.runtime.causes import explained
from skerry.runtime.ports import Last
from skerry.runtime.store import label as labels
from skerry.runtime.store.label import Label
from skerry.runtime.store.segments import (
    NAMES,
    RECORDS_AT,
    Held,
    Log,
    Segment,
    name_of,
    sealed,
    sync_path,
    unsealed,
)
from skerry.runtime.store.tree import verify

FORMAT = 4
TREE = "data.mdb"
TABLES = (b"rows", b"slots", b"meta")
"""LMDB's tables in it."""
PRESSED = 0.8
"""Above this part of the quota intake from outside pauses, so that drains still have room."""


HEAD_TXN_OFFSET = 144
"""Where a head page of LMDB 0.9 names its transaction: after a page header of 16 bytes, four
fields of 24, two databases of 48 and the number of the last page."""

VERIFIED_ROWS = 20_000
"""Rows that are all read at each opening: about 0.1 s. Larger trees are read by `check` only."""

ROOM_BYTES = 1 << 20
"""A disk with less room than this is full."""


DAMAGE = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.PanicError)
"""What LMDB raises of pages that are not as they should be."""


class _Identity(Struct, array_like=True):
    format: int
    shard: int
    store: str = ""


class Position(Struct, frozen=True):
    """How far the tree is, and where its log goes on."""

    covered: int = 0
    """The tree has the rows of every commit up to this one, and the log begins behind it."""
    checksum: int = 0
    """That commit's."""
    newest: int = 1
    """The first commit of the log's newest file."""


_POSITION = struct.Struct("<QQQ")


class Copied(Struct, array_like=True, frozen=True):
    """A copy of a store."""

    commit: int
    """Its newest."""
    size: int
    """Bytes."""


class Environment:
    """An open store. Raises StoreLocked, StoreDamaged."""

    def __init__(self, path: Path, *, shard: int, quota_bytes: int) -> None:
        self.path, self.shard, self.quota_bytes = path, shard, quota_bytes
        if not (path / TREE).is_file():
            raise StoreDamaged(missing(path, shard))
        self._lock = _locked(path)
        try:
            self.env = _open(path, quota_bytes)
            self._check_length()
            self._check_heads()
            # Never made here: a damaged name would be an empty table, and all rows be gone.
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
    def create(cls, path: Path, *, shard: int, label: Label) -> None:
        """A new, empty store, synced with its folder.

        The label is first, so that one whose making was cut short says what it is; the log is
        next: a tree has always one. Raises SkerryError: the system refuses, or something is there.
        """
        try:
            cls._create(path, shard, label)
        except (lmdb.Error, OSError) as error:
            raise SkerryError(
                f"The store {path} can't be made. {explained(error)} Nothing is lost: it is new."
            ) from error

    @classmethod
    def _create(cls, path: Path, shard: int, label: Label) -> None:
        path.mkdir(mode=0o700, parents=True)
        label = msgspec.structs.replace(label, shard=shard, store=os.urandom(16).hex())
        labels.write(path, label)
        Segment.create(path, shard=shard, before=Last())
        env = lmdb.open(_bytes(path), map_size=1 << 26, max_dbs=3, mode=0o600)
        for name in TABLES:
            env.open_db(name)
        with env.begin(write=True) as txn:
            meta = env.open_db(b"meta", txn=txn)
            identity = _Identity(FORMAT, shard, label.store)
            txn.put(b"identity", msgspec.msgpack.encode(identity), db=meta)
            txn.put(b"position", _packed(Position()), db=meta)
        env.sync(True)
        env.close()
        for folder in (path, path.parent):
            sync_path(folder)

    def _check_length(self) -> None:
        """A map reads behind the end of its file only once: then the process is killed."""
        pages, size = self.env.info()["last_pgno"] + 1, (self.path / TREE).stat().st_size
        needed = pages * self.env.stat()["psize"]
        if size < needed:
            raise StoreDamaged(
                f"{self.path / 'data.mdb'} was cut short: it has {size:,} bytes and needs {needed:,}. "
                f"Restore the app's last backup."
            )

    def _check_heads(self) -> None:
        """LMDB's two head pages take turns, so their transactions are neighbours.

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
        """Read a small tree whole: a page that was damaged may hide rows, which no row can tell."""
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

    def position(self, txn: lmdb.Transaction) -> Position:
        """As this transaction sees it. Raises StoreDamaged."""
        stored = bytes(txn.get(b"position", b"", db=self.meta))
        try:
            return Position(*_POSITION.unpack(unsealed(stored)))
        except (ValueError, struct.error) as error:
            raise StoreDamaged(
                f"What {self.path} says of where its log is, is damaged: {error}. Restore the app's "
                f"last backup."
            ) from error

    def note(self, txn: lmdb.Transaction, position: Position) -> None:
        """It is so when the transaction is committed."""
        txn.put(b"position", _packed(position), db=self.meta)

    def copy(self, txn: lmdb.Transaction, log: Held, folder: Path) -> Copied:
        """The rows that a transaction sees and the log of that moment, as a store of their own:
        synced, without free pages.

        Ends both. May run on any thread. Raises SkerryError: the folder can't be written;
        StoreDamaged: the store can't be read.
        """
        try:
            # Not its parents: who gave up meanwhile has removed them.
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
        """What the tree's rows take (free pages do not count)."""
        with self.env.begin() as txn:
            stat = txn.stat(self.rows)
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(pages * stat["psize"])

    def unreadable(self, error: lmdb.Error) -> StoreDamaged:
        """What LMDB says of damaged pages, as ours."""
        return StoreDamaged(
            f"LMDB can't read {self.path} to its end: {error}. Restore the app's last backup; "
            f"`skerry check` lists all damage."
        )

    def disk_is_full(self, error: Exception) -> bool:
        """Whether that is why this was raised. LMDB calls a write that was cut short an I/O error."""
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        # A disk that is gone has no room either, but that is not the cause.
        with suppress(OSError):
            room = os.statvfs(self.path)
            return room.f_bavail * room.f_frsize < ROOM_BYTES
        return False

    def close(self) -> None:
        """Close and let go of the lock."""
        if hasattr(self, "env"):  # Not when opening it is what failed.
            self.env.close()
        _locks.discard(self._lock)
        os.close(self._lock)


def open_log(store: Environment, position: Position) -> Log:
    """The log of a store. Raises StoreDamaged."""
    before = position.covered, position.checksum
    return Log(store.path, shard=store.shard, newest=position.newest, before=before)


def _bytes(path: Path) -> Any:
    """A path as LMDB takes it, though it is typed otherwise: not every one is a text."""
    return os.fsencode(path)


def _open(path: Path, quota_bytes: int) -> lmdb.Environment:
    """As much address space as the quota; less where a limit on it is set."""
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
    """What is said of a member that is not there."""
    return (
        f"The store {path} is missing, but the app has a shard {shard} there. Mount the disk that "
        f"holds it, or restore the app's last backup: all shards together."
    )


def has_commits(path: Path) -> bool:
    """Whether there is a store with records, or a file that is no store of ours."""
    logs = list(path.glob(NAMES))
    if any(log.name != name_of(1) or log.stat().st_size > RECORDS_AT for log in logs):
        return True
    return not logs and (path / TREE).is_file()


def _packed(position: Position) -> bytes:
    """Sealed: a flipped bit here would leave out commits."""
    return sealed(_POSITION.pack(position.covered, position.checksum, position.newest))


def _locked(path: Path) -> int:
    """The folder's lock, ours from now on. Not inherited by children of user code."""
    fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.read(fd, 20).decode(errors="replace").strip()
        os.close(fd)
        raise StoreLocked(path, int(owner) if owner.isdecimal() else 0) from error
    _let_go_in_children()
    _locks.add(fd)
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


_locks: set[int] = set()
"""The descriptors of the locks that this process holds."""


def _let_go() -> None:
    """A forked child of user code must not keep its parent's locks."""
    while _locks:
        os.close(_locks.pop())


@cache
def _let_go_in_children() -> None:
    """Once for this process: a hook can't be taken back."""
    os.register_at_fork(after_in_child=_let_go)
