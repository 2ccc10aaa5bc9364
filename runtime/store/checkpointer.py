"""When a checkpoint begins, how fast it goes, and its steps on the committer's thread.

    begin: sync the log, roll it -> slices: rows into the tree -> end: trim the log

A checkpoint begins when the memtable or the log is large. Its rows go down in slices, each after
a sync of the records that the rows are from, so no row in the tree is newer than the log. A
checkpoint carries rows faster than commits add them, so it ends before commits have added half as
many rows as it carries.

While a slice's rows are put into the tree, the worker's thread waits. Otherwise each call into LMDB
would cost the committer a switch interval, twenty times the put itself.

Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import threading

from skerry.runtime.ports import Log
from skerry.runtime.store import checkpoint
from skerry.runtime.store.checkpoint import Slices, SortedRun
from skerry.runtime.store.committer import Committer, Write
from skerry.runtime.store.environment import Environment, Position
from skerry.runtime.store.quota import Quota
from skerry.runtime.store.rows import Rows

SLICE_ROWS = 1024
"""Rows that a checkpoint carries per commit, at the least: about 2 ms."""

PACE = 2
"""Rows that it carries for each one that a commit adds."""

READER_BEHIND_ROWS = 16 * SLICE_ROWS
"""How many rows the reading transaction may be behind. No page freed since it began is reused."""


class Checkpointer:
    """The checkpoints of one store, one at a time."""

    def __init__(
        self,
        environment: Environment,
        rows: Rows,
        log: Log,
        quota: Quota,
        committer: Committer,
        position: Position,
        *,
        entries_max: int,
        log_bytes_max: int,
    ) -> None:
        self._files, self._rows, self._log, self._quota = environment, rows, log, quota
        self._memtable, self._committer = rows.memtable, committer
        self._entries_max, self._log_bytes_max = entries_max, log_bytes_max
        self._position = position
        self.moving = threading.Lock()
        """Held while the log's files and the tree's position change together."""
        self._log_bytes = log.size_bytes
        """What was appended since the last checkpoint began."""
        self._slices: Slices | None = None
        self._reader_behind = 0
        self._put_done = threading.Event()
        self._covered = threading.Event()
        """The tree has all that the checkpoint carried; the reading transaction is older."""

    # ── the worker's thread ──

    def advance(self, rows: int, size: int) -> None:
        """Begin a checkpoint when it is time, and carry on with it as fast as commits add rows.

        A commit has added so many rows to the memtable, and bytes to the log.
        """
        self._log_bytes += size
        if self._slices is None:
            self._begin()
        elif self._carry(max(SLICE_ROWS, PACE * rows)):
            # The memtable is as large as it may become: commits wait for the checkpoint.
            while self._slices is not None and len(self._memtable) > self._entries_max:
                if not self._carry(SLICE_ROWS):
                    return

    def renew_reader(self) -> None:
        """See the tree as it is now, when that is due."""
        if self._reader_behind > READER_BEHIND_ROWS or self._covered.is_set():
            self._renew_reader()

    def _begin(self) -> None:
        # What comes while it is carried must still fit.
        large = len(self._memtable.active) > self._entries_max * PACE // (PACE + 1)
        # Near the quota, deleted rows must make room: they do once the tree has deleted them.
        due = self._log_bytes >= self._log_bytes_max or self._quota.nearly_full(
            self._log.size_bytes
        )
        if not large and (len(self._memtable.frozen) or not due):
            return
        if len(self._memtable.frozen):
            # The last checkpoint is carried and not covered yet: commits may not pile up for ever.
            if not self._committer.wait(self._covered):
                return
            self._renew_reader()
        self._slices, self._log_bytes = Slices(self._memtable.freeze()), 0
        self._committer.submit(self._roll)

    def _carry(self, rows: int) -> bool:
        """Hand rows of the checkpoint to the committer. False: it has failed."""
        assert self._slices is not None, "there is a checkpoint to carry on with"
        runs = self._slices.take(rows)
        if runs is None:
            self._committer.submit(self._cover)
            self._slices = None
        elif runs:
            self._put_done.clear()
            self._reader_behind += sum(len(run.keys) for run in runs)
            self._committer.submit(lambda write: self._put(runs, write))
            return self._committer.wait(self._put_done)
        return True

    def _renew_reader(self) -> None:
        """See the tree as it is now; only then drop what it has got of the memtable."""
        covered = self._covered.is_set()
        self._rows.renew()
        self._reader_behind = 0
        if covered:
            self._covered.clear()
            self._memtable.drop_frozen()

    # ── the committer's thread ──

    def _roll(self, write: Write) -> None:
        """Begin: sync all that will be carried, and let the log go on where it can be trimmed."""
        write()
        token, at = self._log.prepare_roll(), self._position
        with self.moving:
            self._note(Position(at.covered, at.checksum, token))
            self._log.roll()

    def _put(self, runs: list[SortedRun], write: Write) -> None:
        """Put a slice's rows into the tree. The records that wait beside them are written and
        reported before the tree's commit, which is slower."""
        with self._files.env.begin(write=True) as txn:
            checkpoint.write(txn, self._files, runs)
            # From here on the syncs run without the interpreter, and the worker's thread goes on.
            self._put_done.set()
            write()
        self._quota.tree_bytes = self._files.tree_bytes()

    def _cover(self, write: Write) -> None:
        """End: the tree has all that the log holds before its boundary."""
        write()
        covered = self._log.boundary
        with self.moving:
            self._note(Position(covered.no, covered.checksum, self._position.token))
            self._log.trim()
        self._covered.set()
        self._committer.wake()

    def _note(self, position: Position) -> None:
        with self._files.env.begin(write=True) as txn:
            self._files.note(txn, position)
        self._position = position
