"""Renews the lease that this process holds, on a thread of its own.

Nothing else runs there, so that no turn, commit or copy delays a renewal. While the servers do not
answer it goes on trying: nobody else can take the lease meanwhile, and if nobody does, it holds
again. Once somebody else has it, or has removed it, it is lost for good.

Does network I/O; the rules are in `lease.py`. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from skerry.runtime.cluster.bucket import ASK_S, PAUSE_S, Bucket, Change, Overtaken
from skerry.runtime.cluster.engine import Away, Closed
from skerry.runtime.cluster.lease import NS, Lease, decoded, holds_until

LEASE, RUNNING = "lease", "running"
"""Keys: who holds the lease; which host runs the app, and since when."""


def boottime_ns() -> int:
    """Return the time since the machine was booted, which goes on while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Renewing:
    """A lease that this process has just taken.

    Args:
        revision: that of the key.
        asked_ns: before it was asked for.
    """

    def __init__(self, bucket: Bucket, lease: Lease, revision: int, asked_ns: int) -> None:
        self._bucket, self.lease = bucket, lease
        self._revision, self._asked_ns = revision, asked_ns
        self.until_ns = holds_until(asked_ns, lease.lease_s)
        self._running: bytes | None = None
        self._told: bytes | None = None
        self._ask_s = min(ASK_S, lease.lease_s / 6)
        self._bell = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def holds(self) -> bool:
        """Tell whether the last renewal is recent enough that nobody else can have the lease."""
        return boottime_ns() < self.until_ns

    def tell(self, running: bytes | None) -> None:
        """Keep this in the bucket as what runs, soon; None: nothing does."""
        self._running = running
        self._bell.set()

    def release(self) -> None:
        """Renew no more, and give the lease back so that nobody has to wait for its end."""
        self._running, self._ended = None, True
        self._bell.set()
        self._thread.join()
        if not self.until_ns:
            return  # It was lost.
        self.until_ns = 0
        try:
            self._tell()
            found = self._bucket.look(LEASE, self._ask_s)
            lease = decoded(found.value or b"")
            if lease is not None and lease.nonce == self.lease.nonce:
                self._bucket.change(LEASE, None, found.revision).attempt(self._ask_s)
        except (Away, Overtaken):
            pass  # It runs out by itself.

    # ── the thread ──

    def _renew(self) -> None:
        change: Change | None = None
        asked_ns = 0
        while not self._wait(retry=change is not None):
            if change is None and boottime_ns() >= self._due_ns:
                asked_ns = boottime_ns()
                change = self._bucket.change(LEASE, self.lease.encoded(), self._revision)
            try:
                if change is not None:
                    self._revision = change.attempt(self._ask_s)
                    self._asked_ns, change = asked_ns, None
                    self.until_ns = holds_until(asked_ns, self.lease.lease_s)
            except (Overtaken, Closed):
                self.until_ns = 0
                return
            except Away:
                continue
            # Right behind a renewal, so that the next one never waits for this.
            with suppress(Away, Overtaken):
                self._tell()

    @property
    def _due_ns(self) -> int:
        return self._asked_ns + int(self.lease.lease_s * NS / 3)

    def _wait(self, *, retry: bool) -> bool:
        """Wait until there is something to do; tell whether it is to end."""
        wait_s = PAUSE_S if retry else max(0, self._due_ns - boottime_ns()) / NS
        if self._bell.wait(wait_s):
            self._bell.clear()
        return self._ended

    def _tell(self) -> None:
        """Write what runs, unless it stands there. Raises Away, Overtaken."""
        wanted = self._running
        if wanted == self._told:
            return
        found = self._bucket.look(RUNNING, self._ask_s)
        if found.value != wanted:
            self._bucket.change(RUNNING, wanted, found.revision).attempt(self._ask_s)
        self._told = wanted
