"""The store of a shard: its rows, its log, and the thread that joins them.

    append -> memtable (read at once) and committer -> log (durable) -> checkpoint -> tree

The worker's thread seals commits and puts them into the memtable, where reads see them at once. The
committer's thread makes them durable while the next batch runs. Checkpoints carry rows from the
memtable to the tree, so that the log can be trimmed.

One folder, one process, one writer thread. Idea: docs/ideas/log.md. Asserts I6.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
from msgspec import Struct

from skerry.errors import SkerryError
from skerry.runtime.causes import explained
from skerry.runtime.core.events import Commit
from skerry.runtime.ports import Copied, Last, Log, LogSnapshot
from skerry.runtime.store import label as labels
from skerry.runtime.store.checkpointer import Checkpointer
from skerry.runtime.store.committer import Committer
from skerry.runtime.store.environment import TREE, Environment, Position
from skerry.runtime.store.label import NOBODYS, Label
from skerry.runtime.store.quota import Quota
from skerry.runtime.store.rows import Rows
from skerry.runtime.store.segments import Segments, has_records

ENTRY_BYTES = 220
"""What an entry of the memtable costs in memory, about, with its key and value."""

KEPT_S = 60.0
"""How long rows are kept for a backup that does not ask for them."""


class Snapshot(Struct, frozen=True):
    """The rows of one moment, for a backup."""

    no: int
    transaction: Any
    log: LogSnapshot
    until_s: float
    """A reading transaction keeps all pages that are freed since; nobody holds one for ever."""


class LmdbStore(Rows):
    """The store of one shard; see `ports.Store` for its promises."""

    def __init__(
        self,
        environment: Environment,
        log: Log,
        position: Position,
        *,
        sync: str,
        memtable_bytes: int,
        log_bytes: int,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(environment)
        self._log = log
        self._quota = Quota(
            environment.path, environment.quota_bytes, tree_bytes=environment.tree_bytes()
        )
        self._recover()
        self.last: Last = log.last
        self._committer = Committer(log, self._quota, sync=sync, wake=wake)
        self._checkpointer = Checkpointer(
            environment,
            self,
            log,
            self._quota,
            self._committer,
            position,
            entries_max=max(1000, memtable_bytes // ENTRY_BYTES),
            # A log that filled the quota would leave no room to carry its rows down.
            log_bytes_max=min(log_bytes, environment.quota_bytes // 8),
        )
        self._kept: Snapshot | None = None
        self._committer.start()

    @classmethod
    def create(cls, path: Path, *, shard: int, label: Label = NOBODYS) -> None:
        """Create an empty store, synced with its folder. Only adding a member calls this.

        The label is first, so that a store whose creation was cut short says what it is; the log
        is next: a tree always has one. Raises SkerryError: the system refuses, or something is
        there already.
        """
        try:
            path.mkdir(mode=0o700, parents=True)
            label = labels.named(label, shard)
            labels.write(path, label)
            token = Segments.create(path, shard=shard)
            Environment.create(path, label, Position(token=token))
        except (lmdb.Error, OSError) as error:
            raise SkerryError(
                f"The store {path} can't be made. {explained(error)} Nothing is lost: it is new."
            ) from error

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        shard: int,
        sync: str = "commit",
        quota_bytes: int = 1 << 40,
        memtable_bytes: int = 64 << 20,
        log_bytes: int = 64 << 20,
        wake: Callable[[], None] = lambda: None,
        replicate: Callable[[Segments], Log] = lambda segments: segments,
    ) -> LmdbStore:
        """Open and recover a store.

        `replicate`: puts another log in front of the segments, which has more than they do.

        Raises StoreDamaged, also for a folder that is no store, or another's; StoreLocked.
        """
        environment = Environment(path, shard=shard, quota_bytes=quota_bytes)
        try:
            environment.verify_small()
            segments, position = open_log(environment)
            return cls(
                environment,
                replicate(segments),
                position,
                sync=sync,
                memtable_bytes=memtable_bytes,
                log_bytes=log_bytes,
                wake=wake,
            )
        except BaseException as error:
            environment.close()
            if isinstance(error, lmdb.Error):
                raise environment.unreadable(error) from error
            raise

    def _recover(self) -> None:
        """Replay the log's records over the tree. Handlers are never run again."""
        for decoded in self._log.replay():
            self.memtable.add(decoded.states, decoded.rows)
        self._log.resume()

    # ── writing ──

    def append(self, commit: Commit) -> None:
        """Make a commit visible to reads now, and durable later."""
        self._committer.append(commit.no, commit.record)
        self.memtable.add(commit.states, commit.rows, commit.live)
        states = sum(len(group.keys) + len(group.gone) for group in commit.states)
        self._checkpointer.advance(states + len(commit.rows), len(commit.record))

    def durable(self) -> int:
        """Return the newest durable commit. Raises what ended the committer."""
        durable = self._committer.durable()
        if self._kept is not None and time.monotonic() > self._kept.until_s:
            self.let_go()
        self._checkpointer.renew_reader()
        return durable

    @property
    def backlog(self) -> tuple[int, int]:
        """Commits and bytes that are not durable yet."""
        return self._committer.backlog

    @property
    def nearly_full(self) -> bool:
        """Whether intake from outside should pause: most of the disk quota is used."""
        return self._quota.nearly_full(self._log.size_bytes)

    @property
    def used_bytes(self) -> int:
        """How much of the quota is used."""
        return self._quota.tree_bytes + self._log.size_bytes

    def close(self) -> None:
        """Wait until all is durable, and let go. Raises what ended the committer."""
        error = self._committer.stop()
        self.let_go()
        self.release()
        try:
            self._log.close()
        finally:
            self._files.close()
        if error is not None:
            raise error

    # ── backups ──

    def keep(self, no: int) -> None:
        """Keep the rows as they are durable now, for backup `no`, in place of any kept before.

        They may be a few commits ahead of what `durable` has said, never behind it.
        """
        self.let_go()
        self._kept = Snapshot(no, *self._hold(), time.monotonic() + KEPT_S)

    def _hold(self) -> tuple[Any, LogSnapshot]:
        with self._checkpointer.moving:
            # The tree first: the log, which is looked at after it, has every row that it has.
            return self._env.begin(), self._log.hold()

    def copy_kept(self, no: int, folder: Path) -> Callable[[], Copied]:
        """Return what copies the rows kept for backup `no`, on any thread.

        Raises SkerryError: nothing is kept for it any more.
        """
        kept = self._kept
        if kept is None or kept.no != no:  # What is kept for a newer backup stays its own.
            raise SkerryError(
                f"The store {self._files.path} keeps nothing for this backup any more. Begin another."
            )
        self._kept = None
        return lambda: self._files.copy(kept.transaction, kept.log, folder)

    def copy_now(self, folder: Path) -> Callable[[], Copied]:
        """Return what copies the rows as they are durable now into a new folder, on any thread."""
        transaction, log = self._hold()
        return lambda: self._files.copy(transaction, log, folder)

    def let_go(self) -> None:
        """Keep nothing any more, unless it is being copied."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.transaction.abort()
            kept.log.close()


def open_log(environment: Environment) -> tuple[Segments, Position]:
    """Open the log of a store, at the position that its tree names. Raises StoreDamaged."""
    position = environment.position()
    before = position.covered, position.checksum
    path, shard = environment.path, environment.shard
    return Segments(path, shard=shard, token=position.token, before=before), position


def has_commits(path: Path) -> bool:
    """Tell whether a folder holds a store with commits, or files that are no store of ours."""
    found = has_records(path)
    return (path / TREE).is_file() if found is None else found
