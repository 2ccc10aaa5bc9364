"""A host's presence in a cluster: its lease is renewed, and the other hosts are looked at.

    renewed -> look at the keys of all hosts -> evict those that are gone
    who leads -> take a place that is vacant
    the description

All of this is done on a thread of its own, so that no turn, commit or copy delays a renewal, and
the supervisor never waits for the servers to know who is there. While the servers do not answer it
goes on trying: nobody else can change the key meanwhile, and if nobody does, it holds again. Once
somebody else has changed or deleted it, it is lost for good.

Does network I/O; the rules are in `lease.py`. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from msgspec.structs import replace

from skerry.runtime import as_json
from skerry.runtime.cluster import names
from skerry.runtime.cluster.bucket import ASK_S, PAUSE_S, Bucket, Change, Entry, Overtaken
from skerry.runtime.cluster.engine import Away, Closed
from skerry.runtime.cluster.lease import (
    NS,
    Judge,
    Leader,
    Lease,
    ahead_s,
    decoded,
    holds_until,
    leader_of,
    vacant,
)

LEADER, DESCRIPTION = "leader", "description"
"""Keys: who leads; the app's description."""

RENEW_PART, RENEW_S = 5, 2.0
"""How often a lease is renewed: after this part of its time, and after so long at most."""

LOOK_S = 0.5
"""How often the leader and the description are looked at, at least."""


SILENT_S = 2.0
"""Servers that have not answered for so long are said to be away: longer than a look takes."""


def boottime_ns() -> int:
    """Return the time since the machine was booted, which goes on while it sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Presence:
    """A lease that this process has just taken.

    Args:
        revision: that of the host's key.
        asked_ns: before it was asked for.

    Attributes:
        until_ns: up to when the lease is ours for sure; 0: it was lost.
        hosts: the hosts that have a lease, by name, as of the last look.
        leader: which process leads, as of the last look.
        leads: whether this process leads, as far as it knows.
        description: the newest description that was seen.
        ahead_s: how far the clocks of other hosts are ahead of ours, 0.0 for about the same.
    """

    def __init__(self, bucket: Bucket, lease: Lease, revision: int, asked_ns: int) -> None:
        self._bucket, self._key = bucket, names.host_of(lease.host)
        self.lease = lease
        self._revision, self._asked_ns = revision, asked_ns
        self._period_ns = int(min(lease.lease_s / RENEW_PART, RENEW_S) * NS)
        self._look_s = min(LOOK_S, lease.lease_s / 10)
        self._ask_s = min(ASK_S, lease.lease_s / 6)
        self.until_ns = holds_until(asked_ns, lease.lease_s)
        self.hosts: dict[str, Lease] = {lease.host: lease}
        self.leader: Leader | None = None
        self.leads = False
        self.description = Entry(None, 0, "")
        self.ahead_s: dict[str, float] = {}
        self._judges: dict[str, Judge] = {}
        self._answered_ns = boottime_ns()
        self._bell = threading.Event()
        self._ended = self._soon = False
        self._thread = threading.Thread(target=self._stay, name="lease", daemon=True)
        self._thread.start()

    def holds(self) -> bool:
        """Tell whether the last renewal is recent enough that nobody else can have evicted us."""
        return boottime_ns() < self.until_ns

    @property
    def silent_s(self) -> float:
        """How long the servers have not answered; 0: they do."""
        silent_s = (boottime_ns() - self._answered_ns) / NS
        return silent_s if silent_s > SILENT_S else 0.0

    def tell(self, **fields: Any) -> None:
        """Change what the lease says of this host, soon."""
        self.lease = replace(self.lease, **fields)
        self._soon = True
        self._bell.set()

    def saw(self, description: Entry) -> None:
        """Note a description that was written or read by another thread."""
        if description.revision > self.description.revision:
            self.description = description

    def release(self) -> None:
        """Renew no more, and note that this process has ended."""
        self._end(replace(self.lease, ended=True).encoded())

    def leave(self) -> None:
        """Renew no more, and delete the host's key: it has no shard."""
        self._end(None)

    def _end(self, value: bytes | None) -> None:
        self._ended = True
        self._bell.set()
        self._thread.join()
        held, self.until_ns = self.until_ns, 0
        if held and not self.silent_s:
            with suppress(Away, Overtaken):  # It runs out by itself.
                self._bucket.change(self._key, value, self._revision).attempt(self._ask_s)

    # ── the thread ──

    def _stay(self) -> None:
        change: Change | None = None
        asked_ns = 0
        while not self._wait(retry=change is not None):
            if change is None and (self._soon or boottime_ns() >= self._asked_ns + self._period_ns):
                asked_ns, self._soon = boottime_ns(), False
                renewed = replace(self.lease, time_s=time.time())
                change = self._bucket.change(self._key, renewed.encoded(), self._revision)
            try:
                if change is not None:
                    self._revision = change.attempt(self._ask_s)
                    self._asked_ns, change = asked_ns, None
                    self.until_ns = holds_until(asked_ns, self.lease.lease_s)
                    self._look_at_hosts()
            except (Overtaken, Closed):
                self.until_ns, self.leads = 0, False
                return
            except Away:
                for judge in self._judges.values():
                    judge.missed()
                if change is not None:  # The time in it is over when it is written at last.
                    change.restate(replace(self.lease, time_s=0.0).encoded())
                continue
            with suppress(Away, Overtaken):
                self._look_at_leader()
                self.saw(self._bucket.look(DESCRIPTION, self._ask_s))
                self._answered_ns = boottime_ns()

    def _wait(self, *, retry: bool) -> bool:
        """Wait until there is something to do; tell whether it is to end."""
        if self._bell.wait(PAUSE_S if retry else self._look_s):
            self._bell.clear()
        return self._ended

    def _look_at_hosts(self) -> None:
        """See which hosts are there, and evict those that are gone. Raises Away."""
        asked_ns = boottime_ns()
        found = self._bucket.look_all(names.HOSTS, self._ask_s)
        answered_ns = boottime_ns()
        present: dict[str, Lease] = {}
        for key, entry in found.items():
            if entry.value is None:
                self._judges.pop(key, None)
                continue
            lease = decoded(entry.value) or self._unreadable(key)
            judge = self._judges.setdefault(key, Judge(2 * self._period_ns))
            if judge.saw(entry.revision, asked_ns=asked_ns, answered_ns=answered_ns):
                self.ahead_s[lease.host] = ahead_s(lease, time.time())
            if key != self._key and judge.gone(lease.lease_s) and self._evict(key, entry.revision):
                continue
            present[lease.host] = lease
        self.hosts = present

    def _unreadable(self, key: str) -> Lease:
        """Stand in for a lease that was written by hand: whoever it is, they renew it or not."""
        return Lease(host=f"?{key}", nonce="?", pid=0, lease_s=self.lease.lease_s)

    def _evict(self, key: str, revision: int) -> bool:
        """Delete a host's key, unless it was renewed just now; tell whether it is gone."""
        try:
            self._bucket.change(key, None, revision).attempt(self._ask_s)
        except (Away, Overtaken):
            return False
        return True

    def _look_at_leader(self) -> None:
        """See who leads, and take a place that is vacant. Raises Away, Overtaken."""
        found = self._bucket.look(LEADER, self._ask_s)
        self.leader = leader = leader_of(found.value) if found.value is not None else None
        ours = Leader(self.lease.host, self.lease.nonce)
        self.leads = leader == ours
        if self.leads or not vacant(leader, self.hosts):
            return
        self._look_at_hosts()  # The one that leads may be newer than our last look.
        if vacant(leader, self.hosts):
            self._bucket.change(LEADER, as_json.encode(ours), found.revision).attempt(self._ask_s)
            self.leader, self.leads = ours, True
