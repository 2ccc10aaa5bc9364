"""The coordinator of an app on several hosts: a bucket in NATS, and this host's data directory.

    acquire:  local lock -> servers that will do -> bucket -> wait for the lease ("stand by") -> renew it

The bucket has the truth. The data directory has a copy of the description, by which tools and clients
on this machine find the app, and the announcement for them.

Does network and file I/O; who counts as gone is decided in `lease.py`. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime import as_json
from skerry.runtime.app import directory
from skerry.runtime.app.coordinator import DirectoryCoordinator
from skerry.runtime.cluster import joining, lease
from skerry.runtime.cluster.bucket import Bucket, Entry, Overtaken
from skerry.runtime.cluster.engine import Away, Closed, Engine
from skerry.runtime.cluster.lease import NS, Judge, Lease
from skerry.runtime.cluster.renewing import LEASE, Renewing, boottime_ns
from skerry.runtime.description import Description, Running
from skerry.runtime.printable import Say
from skerry.runtime.store import sealed_file

LEASE_S = 10.0
"""How long a host may be silent. Longer than the servers need to elect a leader."""

LOOK_S = 0.5
"""How often a host that stands by looks at the lease, at least."""

DESCRIPTION, STANDBY = "description", "standby"
"""Keys: the app's description; what hosts write that stand by, to see that they could renew a lease."""


class Runs(Struct, frozen=True):
    """The key `running`: which process runs the app, and serves."""

    host: str
    pid: int
    nonce: str
    """That of its lease."""


class ClusterCoordinator:
    """Implements `ports.Coordinator` by a bucket in NATS.

    Args:
        host: this host's name, for persons.
        data: this host's data directory.
        say: told who runs the app whenever that changes, and what is waited for.
        stop: whether `acquire` is to give up.
        address: where this host is reached by others.
    """

    def __init__(
        self,
        engine: Engine,
        app: str,
        host: str,
        data: Path,
        *,
        say: Say,
        stop: Callable[[], bool] = lambda: False,
        address: str = "",
        lease_s: float = LEASE_S,
    ) -> None:
        self._engine, self._app, self._data = engine, app, data
        self._say, self._stop = say, stop
        self._local = DirectoryCoordinator(data)
        self._ours = Lease(
            host=host,
            nonce=os.urandom(8).hex(),
            pid=os.getpid(),
            address=address,
            lease_s=lease_s,
        )
        self._bucket: Bucket | None = None
        self._renewing: Renewing | None = None
        self._newest = Entry(None, 0, "")
        """The newest description that was seen."""
        self.replicas = 0
        """How many servers keep what the app writes; known once the lease is held."""

    # ── the lease ──

    def acquire(self) -> None:
        """Wait for the lease, and take it.

        Raises StoreLocked: another process uses this data directory; Interrupted: told to stop;
        SkerryError: the servers, or the app's bucket there, won't do.
        """
        self._local.acquire()
        try:
            self.replicas = joining.reach(self._engine, self._say, self._stop)
            self._bucket = joining.bucket(
                self._engine, self._app, self.replicas, self._say, self._stop
            )
            self._renewing = self._stand_by(self._bucket)
        except BaseException:
            self._local.release()
            raise

    def _stand_by(self, bucket: Bucket) -> Renewing:
        """Take the lease once nobody has it."""
        ours = self._ours
        look_s = min(LOOK_S, ours.lease_s / 10)
        judge, told = Judge(int(2 * look_s * NS)), ""
        while True:
            holder = ""
            try:
                bucket.set(STANDBY, ours.host.encode())
                asked_ns = boottime_ns()
                found = bucket.look(LEASE)
                if (held := self._held(found)) is not None:
                    judge.saw(found.revision, asked_ns=asked_ns, answered_ns=boottime_ns())
                if held is None or judge.gone(held.lease_s):
                    asked_ns = boottime_ns()
                    revision = bucket.change(LEASE, ours.encoded(), found.revision).attempt()
                    return Renewing(bucket, ours, revision, asked_ns)
                holder = held.nonce
                line = (
                    f"standing by: {held.holder} runs {self._app}. This host takes over when that "
                    f"one has not been heard of for {held.lease_s:g} s."
                )
            except Overtaken:
                continue
            except Closed:
                raise
            except Away as away:
                judge.missed()
                holder, line = "?", f"standing by: {away}"
            if holder != told:
                self._say(line)
                told = holder
            joining.pause(look_s, self._stop)

    def _held(self, found: Entry) -> Lease | None:
        """Return the lease that another process holds, or has let run out; None: there is none."""
        if found.value is None:
            return None
        held = lease.decoded(found.value)
        if held is None:  # Written by hand: whoever it is, they renew it or not.
            return Lease(host="?", nonce="?", pid=0, address="", lease_s=self._ours.lease_s)
        return None if held.nonce == self._ours.nonce else held

    def holds(self) -> bool:
        """Tell whether the lease is ours for sure, and our data directory too."""
        assert self._renewing is not None, "the lease was taken"
        return self._renewing.holds() and self._local.holds()

    @property
    def lost(self) -> bool:
        """Whether another host has the lease, or somebody has removed it or our data directory."""
        return not self.until_ns or not self._local.holds()

    @property
    def until_ns(self) -> int:
        """Up to when the lease is ours for sure, by CLOCK_BOOTTIME; 0: it was lost."""
        assert self._renewing is not None, "the lease was taken"
        return self._renewing.until_ns

    def release(self) -> None:
        """Give the lease back, so that the next host need not wait for its end."""
        assert self._renewing is not None, "the lease was taken"
        self._renewing.release()
        self._renewing = None
        self._local.release()

    # ── the description ──

    def read(self) -> Description | None:
        """Read the description; None: the app was never started.

        Raises StoreDamaged; SkerryError: the data directory is another app's; Away.
        """
        newest, mine = self._read(), self._mine()
        if newest.value is None:
            if mine is not None:
                raise SkerryError(
                    f"{self._data} holds the app {mine.app!r}, which NATS at "
                    f"{', '.join(self._engine.servers)} does not know: it was not made there. Choose "
                    f"another folder with --data, or other servers with --cluster."
                )
            return None
        app = self._decoded(newest.value)
        if mine is not None and (mine.app, mine.directory) != (app.app, app.directory):
            raise SkerryError(
                f"{self._data} holds another app than {app.app!r} in NATS, or an earlier life of it. "
                f"Choose another folder with --data."
            )
        if mine is not None and _age(mine) > _age(app):
            raise StoreDamaged(
                f"The description of {app.app!r} in NATS is of start {app.generation}, version "
                f"{app.placement.version}; {self._data} has seen start {mine.generation}, version "
                f"{mine.placement.version}. NATS has lost what it acknowledged. Bring back the "
                f"servers that have it, or restore the app's last backup. Nothing was changed."
            )
        if mine != app:
            self._copy(app)
        return app

    def _read(self) -> Entry:
        """Read the newest description. Raises StoreDamaged, Away."""
        bucket = self._opened()
        found = bucket.get(DESCRIPTION)
        if found.revision < self._newest.revision:
            return self._newest  # From a server that lags behind.
        if found.value is None and (left := self._left()):
            raise StoreDamaged(
                f"The bucket {bucket.name} in NATS has no description of the app {self._app!r}, but "
                f"{left}. Restore the app's last backup; if it is to begin anew, remove what is left "
                f"with `nats stream rm`. Nothing was changed."
            )
        self._newest = found
        return found

    def _left(self) -> str:
        """Say what shows that there was a description; empty: nothing does. Raises Away."""
        if self._newest.value is not None:
            return "it had one before"
        logs = joining.logs(self._engine, self._app)
        return f"its logs are there: {', '.join(logs)}" if logs else ""

    def replace(self, new: Description, *, generation: int) -> None:
        """Replace the description of this generation, durably.

        Raises SkerryError: another one is there by now; StoreDamaged. Nothing was changed then.
        Away: whether it was replaced is unknown.
        """
        bucket, before = self._opened(), self._read()
        there = self._decoded(before.value).generation if before.value is not None else 0
        if there != generation:
            raise SkerryError(self._changed(generation, f"it describes start {there}"))
        value = sealed_file.encoded(new, indent=1)
        try:
            revision = bucket.change(DESCRIPTION, value, before.revision).finish()
        except Overtaken:
            raise SkerryError(self._changed(generation, "it describes another one now")) from None
        self._newest = Entry(value, revision, "")
        self._copy(new)

    def _mine(self) -> Description | None:
        """Return this host's copy; None: there is none that can be read."""
        try:
            return directory.load(self._data)
        except StoreDamaged as damage:
            self._say(f"{damage} It is a copy, and is made anew from the cluster.")
            return None

    def _copy(self, app: Description) -> None:
        """Keep a copy in the data directory. The app does not depend on it, and goes on without."""
        try:
            directory.save(self._data, app)
        except SkerryError as error:
            self._say(f"{error} Tools on this machine read an older description until then.")

    def _changed(self, generation: int, instead: str) -> str:
        return (
            f"The description of {self._app!r} in NATS was changed by somebody else: start "
            f"{generation} has been, and {instead}. Nothing was written."
        )

    def _decoded(self, value: bytes) -> Description:
        bucket = self._opened()
        return directory.decoded(
            value,
            f"The key {DESCRIPTION} of the bucket {bucket.name} in NATS",
            "Restore the app's last backup.",
        )

    def _opened(self) -> Bucket:
        assert self._bucket is not None, "the lease was taken"
        return self._bucket

    # ── the announcement ──

    def announce(self, running: Running) -> None:
        """Tell clients on this machine where the shards are reached, and others which host it is."""
        assert self._renewing is not None, "the lease was taken"
        self._local.announce(running)
        told = Runs(host=self._ours.host, pid=running.pid, nonce=self._ours.nonce)
        self._renewing.tell(as_json.encode(told))

    def withdraw(self) -> None:
        """Take the announcement back: nobody runs the app here."""
        self._local.withdraw()
        if self._renewing is not None:
            self._renewing.tell(None)

    def last_running(self) -> Running | None:
        """Read the last announcement of this machine that was not withdrawn; None: there is none."""
        return self._local.last_running()


def _age(app: Description) -> tuple[int, int]:
    return app.generation, app.placement.version
