"""The thread that makes commits durable, over any log.

    worker's thread        append 12 | append 13 | append 14 |
    committer's thread               | write 12  | write 13, 14 ...

All records that wait are appended to the log in one synced write (group commit), while the next
batch runs. A step of a checkpoint waits in the same queue, so it sees exactly the records that
were appended before it.

One fact shapes the code: a call into the system from a thread costs a switch interval while the
other thread is busy. So the committer makes few of them.

Idea: docs/ideas/log.md. Asserts I6.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from functools import partial

from skerry.runtime.ports import Log
from skerry.runtime.store.quota import Quota

GROUP_S = 0.010
"""With `--sync 10ms`: the shortest time between two syncs."""

FAILED_S = 0.1
"""How often a thread that waits for the committer looks whether it has failed."""

Write = Callable[[], None]
"""Appends the records that wait to the log, and reports them as durable."""

Step = Callable[[Write], None]
"""Work on the committer's thread. It calls its argument exactly once."""

Job = bytes | Step | None
"""A record, a step, or the end."""


class Committer:
    """The queue of what waits for the disk, and the thread that takes from it."""

    def __init__(self, log: Log, quota: Quota, *, sync: str, wake: Callable[[], None]) -> None:
        self._log, self._quota = log, quota
        self._sync, self.wake = sync, wake
        self._appended = self._durable = self._written = log.last.no
        self._sizes: dict[int, int] = {}
        """The bytes of each record that is not durable yet."""
        self._backlog_bytes = 0
        self._error: Exception | None = None
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # ── the worker's thread ──

    def append(self, no: int, record: bytes) -> None:
        """Make the record of commit `no` durable, in order."""
        assert no == self._appended + 1, f"I6: commit {no} after {self._appended}"
        self._appended = no
        self._sizes[no] = len(record)
        self._backlog_bytes += len(record)
        self._jobs.put(record)

    def submit(self, step: Step) -> None:
        """Take a step when all records that were appended before it are written."""
        self._jobs.put(step)

    def wait(self, event: threading.Event) -> bool:
        """Wait for an event that a step sets. False: the committer has failed."""
        while not event.wait(FAILED_S):
            if self._error is not None:
                return False
        return True

    def durable(self) -> int:
        """Return the newest durable commit. Raises what ended the committer."""
        if self._error is not None:
            raise self._error
        written = self._written
        while self._durable < written:
            self._durable += 1
            self._backlog_bytes -= self._sizes.pop(self._durable)
        return self._durable

    @property
    def backlog(self) -> tuple[int, int]:
        """Records and bytes that are not durable yet, as of the last call of `durable`."""
        return self._appended - self._durable, self._backlog_bytes

    def stop(self) -> Exception | None:
        """Wait until all is durable, and end the thread; return what ended it before."""
        self._jobs.put(None)
        self._thread.join()
        return self._error

    # ── the committer's thread ──

    def _run(self) -> None:
        try:
            while (jobs := self._next_jobs())[-1] is not None:
                self._commit(jobs)
            if jobs[:-1]:
                self._commit(jobs[:-1])
        except Exception as error:  # Whatever the disk says ends this process: docs/ideas/log.md.
            self._error = self._quota.explain(error)
        finally:
            self.wake()

    def _next_jobs(self) -> list[Job]:
        """Return all records that wait, or those before another job and that; at least one job."""
        jobs = [self._jobs.get()]
        if self._sync == "10ms" and isinstance(jobs[0], bytes):
            time.sleep(GROUP_S)
        while not self._jobs.empty() and isinstance(jobs[-1], bytes):
            jobs.append(self._jobs.get())
        return jobs

    def _commit(self, jobs: list[Job]) -> None:
        """Write records, and take the step behind them, if there is one."""
        records = [job for job in jobs if isinstance(job, bytes)]
        write = partial(self._write, records)
        last = jobs[-1]
        if callable(last):
            last(write)
        else:
            write()

    def _write(self, records: list[bytes]) -> None:
        if records:
            self._quota.check(self._log.size_bytes)
            self._log.append(records, sync=self._sync != "off")
            self._written = self._log.last.no
            self.wake()
