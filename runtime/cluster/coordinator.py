"""The coordinator of an app on several hosts: a bucket in NATS, and this host's data directory.

    acquire:  local lock -> servers that will do -> bucket -> this host's lease, renewed from then on

The bucket has the truth. The data directory has a copy of the description, by which tools and clients
on this machine find the app, and the announcement for them.

Does network and file I/O; who counts as gone is decided in `lease.py`. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from skerry.runtime import as_json
from skerry.runtime.app.coordinator import DirectoryCoordinator
from skerry.runtime.cluster import joining, keys, lease, names
from skerry.runtime.cluster.bucket import Bucket, Entry, Overtaken
from skerry.runtime.cluster.described import Described
from skerry.runtime.cluster.engine import Away, Closed, Engine
from skerry.runtime.cluster.keys import Keys
from skerry.runtime.cluster.lease import NS, Judge, Lease
from skerry.runtime.cluster.presence import LOOK_S, Presence, boottime_ns
from skerry.runtime.description import Description, Running, boot_id
from skerry.runtime.printable import Say
from skerry.runtime.transport.curve import Pair

LEASE_S = 10.0
"""How long a host may be silent. Longer than the servers need to elect a leader."""

JOINING = "joining"
"""Key: what hosts write that wait for their lease, to see that it could be renewed."""


class ClusterCoordinator:
    """Implements `ports.Coordinator` by a bucket in NATS.

    Args:
        host: this host's name.
        data: this host's data directory.
        say: told what is waited for, whenever that changes.
        stop: whether `acquire` is to give up.
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
        lease_s: float = LEASE_S,
    ) -> None:
        self._engine, self._app, self._data = engine, app, data
        self._say, self._stop = say, stop
        self._local = DirectoryCoordinator(data)
        self.host = host
        self._ours = Lease(
            host=host,
            nonce=os.urandom(8).hex(),
            pid=os.getpid(),
            lease_s=lease_s,
        )
        self._bucket: Bucket | None = None
        self._presence: Presence | None = None
        self._described: Described | None = None
        self.replicas = 0
        """How many servers keep what the app writes; known once the lease is held."""

    # ── the lease ──

    def acquire(self) -> None:
        """Take the lease of this host, which another process may hold for a while.

        Raises StoreLocked: another process uses this data directory; Interrupted: told to stop;
        SkerryError: the servers, or the app's bucket there, won't do.
        """
        self._local.acquire()
        try:
            self._ours = replace(self._ours, place=f"{boot_id()} {self._local.lock_id}")
            self.replicas = joining.reach(self._engine, self._say, self._stop)
            self._bucket = joining.bucket(
                self._engine, self._app, self.replicas, self._say, self._stop
            )
            self.keys = self._agreed_keys(self._bucket)
            self._presence = self._join(self._bucket)
            self._described = Described(
                self._engine, self._bucket, self._presence, self._app, self._data, self._say
            )
        except BaseException:
            self._local.release()
            raise

    def _join(self, bucket: Bucket) -> Presence:
        """Take this host's lease once no other process has it."""
        ours, key = self._ours, names.host_of(self.host)
        look_s = min(LOOK_S, ours.lease_s / 10)
        judge, told = Judge(int(2 * look_s * NS)), ""
        while True:
            holder = ""
            try:
                bucket.set(JOINING, ours.host.encode())
                asked_ns = boottime_ns()
                found = bucket.look(key)
                if (held := self._held(found)) is not None:
                    judge.saw(found.revision, asked_ns=asked_ns, answered_ns=boottime_ns())
                if held is None or judge.gone(held.lease_s):
                    asked_ns = boottime_ns()
                    revision = bucket.change(key, ours.encoded(), found.revision).attempt()
                    return Presence(bucket, ours, revision, asked_ns)
                holder = held.nonce
                line = (
                    f"waiting: {held.holder} runs {self._app} under this host's name. It is replaced "
                    f"when it has not been heard of for {held.lease_s:g} s; if it is another machine, "
                    f"give this one a name of its own with --host."
                )
            except Overtaken:
                continue
            except Closed:
                raise
            except Away as away:
                judge.missed()
                holder, line = "?", f"waiting: {away}"
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
            return Lease(host="?", nonce="?", pid=0, lease_s=self._ours.lease_s)
        # One that had the lock that we have now has ended.
        over = held.ended or held.nonce == self._ours.nonce or held.place == self._ours.place
        return None if over else held

    def _agreed_keys(self, bucket: Bucket) -> Keys:
        """Return the app's keys, which the first host makes. Raises Away, StoreDamaged."""
        while (found := bucket.get(keys.KEY)).value is None:
            new = Keys(self._local.secret, *Pair.new())
            with suppress(Overtaken):
                bucket.change(keys.KEY, as_json.encode(new), found.revision).finish()
        return keys.decoded(found.value, bucket.name)

    def holds(self) -> bool:
        """Tell whether the lease is ours for sure, and our data directory too."""
        return self._present.holds() and self._local.holds()

    @property
    def lost(self) -> bool:
        """Whether this host was evicted or replaced, or its data directory is not ours any more."""
        return not self.until_ns or not self._local.holds()

    @property
    def until_ns(self) -> int:
        """Up to when the lease is ours for sure, by CLOCK_BOOTTIME; 0: it was lost."""
        return self._present.until_ns

    def release(self) -> None:
        """Let the lease run out; the next process of this host need not wait for that."""
        self._present.release()
        self._presence = None
        self._local.release()

    def leave(self) -> None:
        """Give the lease back for good, before `release`: this host has no shard."""
        self._present.leave()

    # ── hosts ──

    @property
    def hosts(self) -> Mapping[str, Lease]:
        """The hosts that are present, by name."""
        return self._present.hosts

    @property
    def ahead_s(self) -> Mapping[str, float]:
        """How far the clocks of other hosts are ahead of this one's; 0.0: about the same."""
        return self._present.ahead_s

    @property
    def silent_s(self) -> float:
        """How long NATS has not answered this host; 0: it does."""
        return self._present.silent_s

    @property
    def nonce(self) -> str:
        """What tells this process from others of the same host."""
        return self._ours.nonce

    def is_absent(self, host: str) -> bool:
        """Tell whether a host has no lease, for sure: its key is written to say so. Blocks for a moment,
        and not at all while the servers are away."""
        assert self._bucket is not None, "the lease was taken"
        if self.silent_s:
            return False
        bucket, key = self._bucket, names.host_of(host)
        try:
            found = bucket.look(key)
            if found.value is None:
                bucket.change(key, None, found.revision).attempt()
        except (Away, Overtaken):
            return False
        return found.value is None

    @property
    def leads(self) -> bool:
        """Whether this host alone may change the description."""
        return self._present.leads

    @property
    def leader(self) -> lease.Leader | None:
        """Which process leads, as of the last look; None: none."""
        return self._present.leader

    @property
    def secret(self) -> str:
        """What callers and listeners prove themselves by."""
        return self.keys.secret

    def tell(self, **fields: object) -> None:
        """Tell the other hosts something of this one, by the fields of its lease."""
        self._present.tell(**fields)

    # ── the description ──

    def read(self) -> Description | None:
        """Read the description, which `replace` replaces from then on; None: the app was never started.

        Raises StoreDamaged; SkerryError: the data directory is another app's; Away.
        """
        return self._known.read()

    def newest(self) -> Description | None:
        """Return the newest description that this host has heard of, without asking; None: none yet."""
        return self._known.newest()

    def replace(self, new: Description, *, generation: int) -> None:
        """Replace the description of this generation, durably; see `Described.replace`."""
        self._known.replace(new, generation=generation)

    @property
    def _known(self) -> Described:
        assert self._described is not None, "the lease was taken"
        return self._described

    @property
    def _present(self) -> Presence:
        assert self._presence is not None, "the lease was taken"
        return self._presence

    # ── the announcement ──

    def announce(self, running: Running) -> None:
        """Tell clients on this machine where the shards are reached."""
        self._local.announce(running)

    def withdraw(self) -> None:
        """Take the announcement back: nobody runs the app here."""
        self._local.withdraw()

    def last_running(self) -> Running | None:
        """Read the last announcement of this machine that was not withdrawn; None: there is none."""
        return self._local.last_running()
