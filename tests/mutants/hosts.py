"""Bugs of hosts of a cluster: leases, homes, take-overs. Looked for where shards live on hosts."""

from unittest.mock import patch

from skerry.runtime.cluster.appending import Acked, Missing, Refused, Step, Unknown
from skerry.runtime.cluster.lease import NS
from tests.mutants.bugs import bug

# Appends.


@bug("an append expects nothing", "simulator.servers:Log.append")
def _(append, self, payload, expected, owner):
    return append(self, payload, len(self.messages), owner)


@bug("another message is appended after an unknown outcome", "cluster.appending:Appending.payload")
def _(payload, self):
    sealed = payload(self)
    if self.tries:
        from skerry.runtime.store.disk import sealed as seal
        from skerry.runtime.store.disk import unsealed

        head = bytearray(unsealed(sealed))
        head[1] ^= 1  # Who has written it.
        return seal(bytes(head))
    return sealed


@bug("an owner stops when nothing is there", "cluster.appending:Appending.looked")
def _(looked, self, answer):
    looked(self, answer)
    if isinstance(answer, Missing):
        self.step = Step.FENCED


@bug("an owner stops when its append is refused", "cluster.appending:Appending.published")
def _(published, self, answer):
    published(self, answer)
    if isinstance(answer, Refused) and answer.last > self._expected:
        self.step = Step.FENCED


@bug("an unknown outcome counts as durable", "cluster.appending:Appending.published")
def _(published, self, answer):
    published(self, Acked(self._log, self.sequence) if isinstance(answer, Unknown) else answer)


@bug("an empty copy counts as a beginning of a purged log", "cluster.log:ReplicatedLog._missing")
def _(missing, self, first, last):
    return missing(self, first if self.last.no else 1, last)


# Snapshots.


@bug("the log is purged ahead of its snapshots", "simulator.servers:Log.purge")
def _(purge, self, upto):
    purge(self, len(self.messages))


# Leases.


@bug("a lease is used beyond its end", "cluster.lease:holds_until")
def _(holds_until, asked_ns, lease_s):
    return asked_ns + int(1.3 * lease_s * NS)


@bug("a host answers though its lease has ended", "simulator.host:Host.holds")
def _(holds, self):
    return bool(self.presence.until_ns)


@bug("a host is gone after half of its lease", "cluster.lease:Judge.gone")
def _(gone, self, lease_s):
    return gone(self, lease_s / 2)


@bug("an evicted host keeps its workers", "simulator.host:Host.lost")
def _(lost, self):
    pass


# Take-overs.


@bug("a shard greets its peers before its epoch is in the log", "worker.takeover:opening")
def _(opening, shard, commits, clock, leased):
    while not leased():
        yield
    with patch.object(type(commits), "durable", lambda self: self.appended):
        next(opening(shard, commits, clock, leased), None)
