"""Which hosts an app has: what a host's key says, when its host counts as gone, and who leads.

    every look at a key -> Judge: has the host had a lease's time to renew it, and has not?
    gone                -> evicted: its key is deleted, by compare-and-set

Each host renews its lease by writing its key again, which gives it another revision. A judge trusts
no clock but its own: a host is gone when one revision has stood for a lease's time. It counts
only time in which it could itself write to the same bucket. While the servers elect a leader nobody
can renew, and that is held against nobody. Nor is time in which the judge itself was stopped.

Any host may evict another. One that comes back a moment too late can't renew a key that is gone, and
ends its workers. One that leads is named by a key of its own; its place is vacant when its lease is.

The holder counts from before it asked for a renewal, and gives its lease up earlier by a margin. The
judge counts from after it first saw the revision. So the holder always stops first.

A lease decides when another host takes over, and never who may write: that is the log's fence.

Pure. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from skerry.runtime import as_json

NS = 1_000_000_000
FAR_S = 10.0
"""How far apart the clocks of two hosts may be before they are told of."""

MARGIN = 0.1
"""The part of a lease that its holder does not use: clocks of two machines run apart a little."""


class Lease(Struct, frozen=True, kw_only=True):
    """What a host's key says."""

    host: str
    nonce: str
    """Drawn by the process that holds it: a host's next process is another holder."""
    pid: int
    lease_s: float
    place: str = ""
    """The lock that the process holds, as a file of a machine that runs since one boot."""
    address: str = ""
    """Where the host's link is reached: IP:PORT; empty: nowhere, as yet."""
    key: str = ""
    """The public key of that link."""
    workers: int = 0
    """How many the host wants."""
    detours: list[str] = []
    """Hosts that its link reaches by way of NATS only."""
    silent: list[str] = []
    """Hosts that its link does not reach."""
    refusing: list[str] = []
    """Those of them that do not know its key."""
    leaves: bool = False
    """Whether it gives all its slots away."""
    time_s: float = 0.0
    """When it was renewed, by the clock of the host; 0.0: it took more than one try."""
    ended: bool = False
    """Whether its process has ended in order. It may be started again within the time of its lease."""

    def encoded(self) -> bytes:
        """Return the value of the key."""
        return as_json.encode(self)

    @property
    def holder(self) -> str:
        """Who holds it, for a person."""
        where = f" at {self.address}" if self.address else ""
        return f"host {self.host}{where} (process {self.pid})"


class Leader(Struct, frozen=True):
    """Which process leads: it alone changes the description."""

    host: str
    nonce: str


def vacant(leader: Leader | None, present: Mapping[str, Lease]) -> bool:
    """Whether nobody leads: the one that did has no lease any more.

    Args:
        present: the hosts that have one.
    """
    if leader is None:
        return True
    held = present.get(leader.host)
    return held is None or held.nonce != leader.nonce or held.ended


def decoded(value: bytes) -> Lease | None:
    """Return the lease in a key's value; None: no release of skerry has written it."""
    try:
        return as_json.decode(value, Lease)
    except ValueError:
        return None


def leader_of(value: bytes) -> Leader | None:
    """Return who leads, by a key's value; None: no release of skerry has written it."""
    try:
        return as_json.decode(value, Leader)
    except ValueError:
        return None


def holds_until(asked_ns: int, lease_s: float) -> int:
    """Return until when a lease holds whose last successful renewal was asked for at `asked_ns`."""
    return asked_ns + int(lease_s * (1 - MARGIN) * NS)


def ahead_s(lease: Lease, now_s: float) -> float:
    """Return how far a host's clock is ahead of ours, by a lease that was renewed since the last look;
    0.0: no farther than the time between looks explains, or it does not say."""
    ahead = lease.time_s - now_s
    return ahead if lease.time_s and abs(ahead) > FAR_S else 0.0


class Judge:
    """Judges the holder by the revisions of its key.

    Args:
        span_ns: the most that one look may count; more than a look to look takes.
    """

    def __init__(self, span_ns: int) -> None:
        self._span_ns = span_ns
        self._revision = 0
        self._stood_ns = 0
        self._since_ns: int | None = None
        """Up to when the revision is known to have stood, by a look that nothing came after but looks."""

    def saw(self, revision: int, *, asked_ns: int, answered_ns: int) -> bool:
        """Note a look at the key, by a judge who could write to the bucket just before. Tell whether
        the key was written since the last look."""
        new = bool(self._revision) and revision != self._revision and self._since_ns is not None
        if revision != self._revision:
            self._revision, self._stood_ns, self._since_ns = revision, 0, answered_ns
        elif self._since_ns is None:
            self._since_ns = answered_ns
        else:
            self._stood_ns += min(max(asked_ns - self._since_ns, 0), self._span_ns)
            self._since_ns = max(asked_ns, self._since_ns)
        return new

    def missed(self) -> None:
        """Note that the bucket could not be reached: the time up to the next look counts for nothing."""
        self._since_ns = None

    def gone(self, lease_s: float) -> bool:
        """Tell whether the holder has let the lease it was seen with run out."""
        return self._stood_ns >= lease_s * NS
