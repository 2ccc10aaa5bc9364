"""Who runs an app: what the key of the lease says, and when its holder counts as gone.

    every look at the key -> Judge: has the holder had a lease's time to renew it, and has not?

The holder renews a lease by writing the key again, which gives it another revision. A judge trusts
no clock but its own: the holder is gone when one revision has stood for a lease's time. It counts
only time in which it could itself write to the same bucket. While the servers elect a leader nobody
can renew, and that is held against nobody. Nor is time in which the judge itself was stopped.

The holder counts from before it asked for a renewal, and gives its lease up earlier by a margin. The
judge counts from after it first saw the revision. So the holder always stops first.

A lease decides when another host takes over, and never who may write: that is the log's fence.

Pure. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from msgspec import Struct

from skerry.runtime import as_json

NS = 1_000_000_000
MARGIN = 0.1
"""The part of a lease that its holder does not use: clocks of two machines run apart a little."""


class Lease(Struct, frozen=True, kw_only=True):
    """What the key says."""

    host: str
    nonce: str
    """Drawn by the process that holds it: a host's next process is another holder."""
    pid: int
    address: str
    """Where the host is reached; empty: not at all from other machines."""
    lease_s: float

    def encoded(self) -> bytes:
        """Return the value of the key."""
        return as_json.encode(self)

    @property
    def holder(self) -> str:
        """Who holds it, for a person."""
        where = f" at {self.address}" if self.address else ""
        return f"host {self.host}{where} (process {self.pid})"


def decoded(value: bytes) -> Lease | None:
    """Return the lease in a key's value; None: no release of skerry has written it."""
    try:
        return as_json.decode(value, Lease)
    except ValueError:
        return None


def holds_until(asked_ns: int, lease_s: float) -> int:
    """Return until when a lease holds whose last successful renewal was asked for at `asked_ns`."""
    return asked_ns + int(lease_s * (1 - MARGIN) * NS)


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

    def saw(self, revision: int, *, asked_ns: int, answered_ns: int) -> None:
        """Note a look at the key, by a judge who could write to the bucket just before."""
        if revision != self._revision:
            self._revision, self._stood_ns, self._since_ns = revision, 0, answered_ns
        elif self._since_ns is None:
            self._since_ns = answered_ns
        else:
            self._stood_ns += min(max(asked_ns - self._since_ns, 0), self._span_ns)
            self._since_ns = max(asked_ns, self._since_ns)

    def missed(self) -> None:
        """Note that the bucket could not be reached: the time up to the next look counts for nothing."""
        self._since_ns = None

    def gone(self, lease_s: float) -> bool:
        """Tell whether the holder has let the lease it was seen with run out."""
        return self._stood_ns >= lease_s * NS
