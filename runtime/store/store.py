"""A shard's commits, made durable: append, sync on a thread, recover, checkpoint.

The worker's thread seals commits and puts them into the overlay, where reads see them at
once. The committer thread writes all records that wait to the log in one synced write (group
commit), while the next batch runs. Rows reach the B-tree later, by sweeps: in slices, behind a
sync of the records that they are from, so that no row in the tree is newer than the log.

One fact shapes the code: a call into LMDB or the system on a thread costs a switch interval
while the other thread is busy. So the committer makes few calls, and while a slice's rows are
put, the worker's thread waits.

One folder, one process, one writer thread. Idea: docs/log.md. Asserts I6.
"""

from __future__ import annotations

import errno
import heapq
import queue
import resource
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lmdb
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged, StoreFull
from skerry.runtime.causes import explained, is_limit
from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import slot_prefix, type_id
from skerry.runtime.core.events import SLOTS, Commit, Table
from skerry.runtime.ports import Last
from skerry.runtime.store import checkpoint
from skerry.runtime.store.checkpoint import Slices, SortedRun
from skerry.runtime.store.environment import PRESSED, Copied, Environment, Position, open_log
from skerry.runtime.store.label import NOBODYS, Label
from skerry.runtime.store.memtable import ABSENT, K, Memtable, states_in, tree_key
from skerry.runtime.store.segments import Held
from skerry.runtime.store.tree import unseal

T = TypeVar("T")

SLICE_ROWS = 1024
"""Rows that a sweep carries per commit, at the least: about 2 ms."""

SWEEP_PACE = 2
"""Rows that it carries for each one that a commit adds: so it ends before half as many came."""

READER_BEHIND_ROWS = 16 * SLICE_ROWS
"""How far the reader may be behind: no page that a sweep freed since is used again."""

ENTRY_BYTES = 220
"""What an overlay entry costs in memory, about, with its key and value."""

KEPT_S = 60.0
"""How long rows are kept for a backup that does not ask for them."""

GROUP_S = 0.010
"""With `--sync 10ms`: the shortest time between two syncs."""


class Job(Struct):
    """What the committer does: a record, or a slice of a sweep, or a sweep's beginning or end."""

    record: bytes = b""
    carried: list[SortedRun] | None = None
    begins: bool = False
    """A sweep does."""
    ends: bool = False
    """All that the sweep carries has been given."""


class Kept(Struct, frozen=True):
    """The rows of one moment."""

    no: int
    transaction: Any
    log: Held
    until_s: float
    """A reader keeps all pages that are freed since; nobody's reader is dropped after a while."""


class LmdbStore:
    """The store of one shard; see `runtime/ports.py` for its promises."""

    def __init__(
        self,
        environment: Environment,
        *,
        sync: str,
        overlay_bytes: int,
        log_bytes: int,
        wake: Callable[[], None],
    ) -> None:
        self._files = environment
        self._env = environment.env
        self._sync, self._wake = sync, wake
        self._entries_max = max(1000, overlay_bytes // ENTRY_BYTES)
        # A tail of the log that filled the quota would leave no room to sweep it down.
        self._log_bytes_max = min(log_bytes, environment.quota_bytes // 8)
        self._memtable = Memtable()
        self._reader = self._env.begin()
        self._position = environment.position(self._reader)
        self._log = open_log(environment, self._position)
        self._turning = threading.Lock()
        """The log's files and the tree's position change together; never per commit."""
        self._log_bytes = 0
        self.last = self._recover()
        self._appended = self._durable = self._written = self.last.no
        self._backlog_bytes = 0
        self._sizes: dict[int, int] = {}
        self._reader_behind = 0
        self._tree_bytes = environment.tree_bytes()
        self._sweep: Slices | None = None
        self._error: Exception | None = None
        self._kept: Kept | None = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._put_done = threading.Event()
        self._swept = threading.Event()
        """The tree has all that the sweep carried; reads by the old reader do not see it yet."""
        self._thread = threading.Thread(target=self._commit_all, name="committer", daemon=True)
        self._thread.start()

    # ── opening ──

    @classmethod
    def create(cls, path: Path, *, shard: int, label: Label = NOBODYS) -> None:
        """A new, empty store, synced. Only who adds a member calls this."""
        Environment.create(path, shard=shard, label=label)

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        shard: int,
        sync: str = "commit",
        quota_bytes: int = 1 << 40,
        overlay_bytes: int = 64 << 20,
        log_bytes: int = 64 << 20,
        wake: Callable[[], None] = lambda: None,
    ) -> LmdbStore:
        """Open and recover. Raises StoreDamaged, StoreLocked, and what a foreign folder deserves."""
        environment = Environment(path, shard=shard, quota_bytes=quota_bytes)
        try:
            environment.verify_small()
            return cls(
                environment,
                sync=sync,
                overlay_bytes=overlay_bytes,
                log_bytes=log_bytes,
                wake=wake,
            )
        except BaseException as error:
            environment.close()
            if isinstance(error, lmdb.Error):
                raise environment.unreadable(error) from error
            raise

    def _recover(self) -> Last:
        """Replay the tail of the log over the tree; handlers are never run again."""
        for decoded in self._log.replay():
            self._memtable.add(decoded.states, decoded.rows)
        self._log.resume()
        self._log_bytes = self._log.bytes
        return self._log.last

    # ── reading ──

    def state(self, type: str, key: str) -> bytes | None:
        """The newest sealed state of an entity."""
        entry = self._memtable.state(type, key)
        if entry is not ABSENT:
            return None if entry is None else bytes(entry)
        return self._tree(tree_key(Table.STATE, records.state_key(type, key)))

    def states_at(self, type: str, keys: Sequence[str], slots: Sequence[int]) -> list[bytes | None]:
        """The same for many entities, each with its slot."""
        entries = self._memtable.states_at(type, keys)
        unknown = [place for place, entry in enumerate(entries) if entry is ABSENT]
        row_keys = records.state_keys(
            type, map(keys.__getitem__, unknown), map(slots.__getitem__, unknown)
        )
        tree_keys = list(map(tree_key(Table.STATE, b"").__add__, row_keys))
        try:
            # Sorted, so that neighbours are found on the page that was just read.
            stored = dict(self._reader.cursor(db=self._files.rows).getmulti(sorted(tree_keys)))
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error
        for place, key in zip(unknown, tree_keys):
            row = stored.get(key)
            entries[place] = None if row is None else unseal(key, row, self._files.path)
        return [entry if entry is None else bytes(entry) for entry in entries]

    def read(self, table: int, key: bytes) -> bytes | None:
        """The newest sealed row of a table."""
        entry = self._memtable.row(table, key)
        return entry if entry is not ABSENT else self._tree(tree_key(table, key))

    def _tree(self, key: bytes) -> bytes | None:
        try:
            stored = self._reader.get(key, db=self._files.rows)
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error
        return None if stored is None else unseal(key, stored, self._files.path)

    def _tree_rows(self, prefix: bytes, after: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Rows of the tree by prefix, in a transaction of their own: a scan may last long."""
        with self._env.begin() as txn:
            yield from self._rows_at(txn.cursor(db=self._files.rows), prefix, after)

    def _rows_at(self, cursor: Any, prefix: bytes, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        try:
            if not cursor.set_range(max(prefix, after)):
                return
            for key, stored in cursor.iternext(keys=True, values=True):
                if not key.startswith(prefix):
                    return
                if key > after:
                    yield bytes(key), unseal(bytes(key), stored, self._files.path)
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error

    def _is_at(self, cursor: Any, prefix: bytes) -> bool:
        """Whether the tree has rows with this prefix."""
        try:
            return bool(cursor.set_range(prefix) and cursor.key().startswith(prefix))
        except lmdb.Error as error:
            raise self._files.unreadable(error) from error

    def scan(
        self, table: int, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a table, tree and overlay merged."""
        low = tree_key(table, after) if after else b""
        tree = ((key[1:], 1, value) for key, value in self._tree_rows(tree_key(table, prefix), low))
        newer = ((key, 0, value) for key, value in self._memtable.rows_in(table, prefix, after))
        yield from _newest(newer, tree)

    def states(self, type: str, prefix: str = "", after: str = "") -> Iterator[tuple[str, bytes]]:
        """States of a type, slot by slot."""
        low = tree_key(Table.STATE, records.state_key(type, after)) if after else b""
        first = int.from_bytes(low[1:3], "big")
        begins = type_id(type) + prefix.encode()
        # The overlay first: what it has let go of by now, the tree as we see it has.
        layers = self._memtable.of_type(type)
        with self._env.begin() as txn:
            cursor = txn.cursor(db=self._files.rows)
            for slot in range(first, SLOTS):
                begin = tree_key(Table.STATE, slot_prefix(slot) + begins)
                above = any(slot in states.slots for states in layers)
                if not above and not self._is_at(cursor, begin):
                    continue  # Of a type with few entities, most.
                tree = (
                    (records.key_of_state(key[1:]), 1, value)
                    for key, value in self._rows_at(cursor, begin, low)
                )
                behind = after if slot == first else ""
                newer = (
                    (key, 0, None if value is None else bytes(value))
                    for key, value in states_in(layers, slot, prefix, behind)
                )
                yield from _newest(newer, tree)

    # ── writing: the worker's thread ──

    def append(self, commit: Commit) -> None:
        """Visible to reads now, durable later."""
        assert commit.no == self._appended + 1, f"I6: commit {commit.no} after {self._appended}"
        self._appended = commit.no
        self._memtable.add(commit.states, commit.rows, commit.live)
        size = len(commit.record)
        self._log_bytes += size
        self._sizes[commit.no] = size
        self._backlog_bytes += size
        self._jobs.put(Job(record=commit.record))
        self._advance(sum(len(g.keys) + len(g.gone) for g in commit.states) + len(commit.rows))

    @property
    def backlog(self) -> tuple[int, int]:
        """Records and bytes that are not durable yet."""
        return self._appended - self._durable, self._backlog_bytes

    @property
    def pressed(self) -> bool:
        """Whether intake from outside should pause: most of the disk quota is used."""
        return self._tree_bytes + self._log.bytes > PRESSED * self._files.quota_bytes

    def durable(self) -> int:
        """The newest durable commit. Raises what the disk raised."""
        if self._error is not None:
            raise self._error
        written = self._written
        while self._durable < written:
            self._durable += 1
            self._backlog_bytes -= self._sizes.pop(self._durable, 0)
        if self._kept is not None and time.monotonic() > self._kept.until_s:
            self.let_go()
        if self._reader_behind > READER_BEHIND_ROWS or self._swept.is_set():
            self._renew_reader()
        return self._durable

    def keep(self, no: int) -> None:
        """Keep the rows as they are durable now, for backup `no`; what was kept before is let go.

        They may be a few commits ahead of what `durable` has told, never behind it.
        """
        self.let_go()
        with self._turning:
            # The tree first: it has no row that the log, looked at after it, does not have.
            transaction = self._env.begin()
            held = self._log.hold()
        self._kept = Kept(no, transaction, held, time.monotonic() + KEPT_S)

    def let_go(self) -> None:
        """Nothing is kept any more, unless it is being copied."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.transaction.abort()
            kept.log.close()

    def copy_kept(self, no: int, folder: Path) -> Callable[[], Copied]:
        """What copies the rows kept for backup `no`, on any thread. Raises SkerryError: none are."""
        kept = self._kept
        if kept is None or kept.no != no:  # What a newer backup keeps stays its own.
            raise SkerryError(
                f"The store {self._files.path} keeps nothing for this backup any more. Begin another."
            )
        self._kept = None
        return lambda: self._files.copy(kept.transaction, kept.log, folder)

    def close(self) -> None:
        """Wait until all is durable, and let go."""
        self._jobs.put(None)
        self._thread.join()
        error = self._error
        self.let_go()
        self._reader.abort()
        try:
            self._log.close()
        finally:
            self._files.close()
        if error is not None:
            raise error

    # ── sweeping: the worker's thread ──

    def _advance(self, added: int) -> None:
        """Begin a sweep when it is time; carry on with it as fast as commits add rows."""
        if self._sweep is None:
            self._begin_sweep()
        elif self._carry(max(SLICE_ROWS, SWEEP_PACE * added)):
            # As large as it may become: what is sealed waits for what is carried.
            while self._sweep is not None and len(self._memtable) > self._entries_max:
                if not self._carry(SLICE_ROWS):
                    return

    def _begin_sweep(self) -> None:
        # So that what comes while it is carried still fits.
        large = len(self._memtable.active) > self._entries_max * SWEEP_PACE // (SWEEP_PACE + 1)
        # Near the quota what is deleted must make room: it does so when the tree hears of it.
        due = self._log_bytes >= self._log_bytes_max or self.pressed
        if not large and (len(self._memtable.frozen) or not due):
            return
        if len(self._memtable.frozen):
            # Carried down and not synced yet: what is sealed meanwhile may not grow for ever.
            if not self._waited(self._swept):
                return
            self._renew_reader()
        self._sweep, self._log_bytes = Slices(self._memtable.freeze()), 0
        self._jobs.put(Job(begins=True))

    def _carry(self, rows: int) -> bool:
        """Hand rows of the sweep to the committer. False: it has failed."""
        assert self._sweep is not None, "there is a sweep to carry on with"
        carried = self._sweep.take(rows)
        if carried is None:
            self._jobs.put(Job(ends=True))
            self._sweep = None
        elif carried:
            # While the rows are put, this thread waits: each call would cost the committer
            # a switch interval otherwise, twenty times the put itself.
            self._put_done.clear()
            self._reader_behind += sum(len(rows.keys) for rows in carried)
            self._jobs.put(Job(carried=carried))
            return self._waited(self._put_done)
        return True

    def _waited(self, event: threading.Event) -> bool:
        """Wait for the committer. False: it has failed."""
        while not event.wait(1.0):
            if self._error is not None:
                return False
        return True

    def _renew_reader(self) -> None:
        """See the tree as it is now; only then forget what it has got of the overlay."""
        swept = self._swept.is_set()
        self._reader.abort()
        self._reader = self._env.begin()
        self._reader_behind = 0
        if swept:
            self._swept.clear()
            self._memtable.drop_frozen()

    # ── committing: the committer's thread ──

    def _commit_all(self) -> None:
        try:
            while (jobs := self._next_jobs())[-1] is not None:
                self._commit(jobs)
            if jobs[:-1]:
                self._commit(jobs[:-1])
        except lmdb.MapFullError:
            self._error = self._full()
        except StoreFull as full:
            self._error = full
        except Exception as error:  # Whatever the disk says ends this process: see docs/log.md.
            self._error = self._refused(error)
        finally:
            self._put_done.set()
            self._wake()

    def _full(self) -> StoreFull:
        return StoreFull(
            f"The store {self._files.path} has reached its quota of "
            f"{self._files.quota_bytes >> 20} MiB. Nothing acknowledged is lost. Free space by "
            f"`skerry dead drop`, or start again with a larger --quota."
        )

    def _refused(self, error: Exception) -> Exception:
        path = self._files.path
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            return OSError(
                error.errno,
                f"No more files can be opened for a commit of {path}: this process may have {limit:,} "
                f"open, and has. The disk is sound, and nothing acknowledged is lost. Start the app "
                f"with a larger `ulimit -n`, or close what its handlers open",
            )
        if self._files.disk_is_full(error):
            return StoreFull(
                f"The disk that holds {path} is full. Nothing acknowledged is lost. Make room and "
                f"start again."
            )
        if is_limit(error):
            return StoreFull(
                f"A commit of {path} was refused. {explained(error)} Nothing acknowledged is lost; "
                f"start again with a higher limit."
            )
        return StoreDamaged(
            f"The disk refused a commit of {path}: {type(error).__name__}: {error}. This worker "
            f"stops, since a sync that is tried again may claim success."
        )

    def _next_jobs(self) -> list[Any]:
        """All records that wait, or those before another job, and that; at least one job."""
        jobs: list[Any] = [self._jobs.get()]
        if self._sync == "10ms" and jobs[0] is not None and jobs[0].record:
            time.sleep(GROUP_S)
        while not self._jobs.empty() and jobs[-1] is not None and jobs[-1].record:
            jobs.append(self._jobs.get())
        return jobs

    def _commit(self, jobs: list[Job]) -> None:
        """One synced write of the log; what else there is stands last."""
        records, last = [job.record for job in jobs if job.record], jobs[-1]
        if last.carried is not None:
            self._write_slice(last.carried, records)
        else:
            self._write(records)
        if last.begins:
            self._turn()
        if last.ends:
            self._cover()

    def _write(self, records: list[bytes]) -> None:
        """Records, durable and told."""
        if records:
            if self._tree_bytes + self._log.bytes > self._files.quota_bytes:
                raise self._full()
            self._log.append(records, sync=self._sync != "off")
            self._written = self._log.last.no
            self._wake()

    def _write_slice(self, carried: list[SortedRun], records: list[bytes]) -> None:
        """Rows into the tree; what they are from was synced when their sweep began.

        The records beside them are told before the tree's commit, which is slower."""
        with self._env.begin(write=True) as txn:
            checkpoint.write(txn, self._files, carried)
            # From here the syncs run without the interpreter; the worker's thread goes on.
            self._put_done.set()
            self._write(records)
        self._tree_bytes = self._files.tree_bytes()

    def _turn(self) -> None:
        """A sweep begins: the log goes on in a new file, so that the old one can go behind it.

        All that the sweep will carry is synced here, so no row in the tree is newer than the log."""
        segment, at = self._log.begin_segment(), self._position
        with self._turning:
            self._note(Position(at.covered, at.checksum, segment.before.no + 1))
            self._log.turn(segment)

    def _cover(self) -> None:
        """A sweep ends: the tree has all that the log's older files hold."""
        covered = self._log.turned_behind
        with self._turning:
            self._note(Position(covered.no, covered.checksum, covered.no + 1))
            self._log.drop()
        self._swept.set()
        self._wake()

    def _note(self, position: Position) -> None:
        with self._env.begin(write=True) as txn:
            self._files.note(txn, position)
        self._position = position


def _newest(
    newer: Iterator[tuple[K, int, bytes | None]], tree: Iterator[tuple[K, int, bytes]]
) -> Iterator[tuple[K, bytes]]:
    """Merge two sorted runs; of one key the newer entry counts, and a deletion hides the row."""
    previous = None
    for key, _, value in heapq.merge(newer, tree):
        if key != previous and value is not None:
            yield key, value
        previous = key
