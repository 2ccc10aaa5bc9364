"""Bugs of hosts of a cluster: leases, homes, take-overs. Looked for where shards live on hosts."""

from unittest.mock import patch

from skerry.runtime.cluster import lease
from skerry.runtime.cluster.appending import Acked, Missing, Refused, Step, Unknown
from skerry.runtime.cluster.lease import NS
from skerry.runtime.core.events import Durable
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


@bug("the pointer to a snapshot moves back", "simulator.servers:Log.keep")
def _(keep, self, sequence, records):
    older = [each for each in self.snapshots if each[0] < sequence]
    with patch.object(self, "snapshots", older):
        keep(self, sequence, records)
        moved = self.snapshots
    self.snapshots = moved


@bug("the log is purged ahead of its snapshots", "simulator.servers:Log.purge")
def _(purge, self, upto):
    purge(self, len(self.messages))


# Leases.


@bug("a lease is measured from the answer", "simulator.presence:Presence._renewed")
def _(renewed, self, asked_ns):
    renewed(self, self._host.boot_ns)


@bug("a lease is used up to its very end", "cluster.lease:holds_until")
def _(holds_until, asked_ns, lease_s):
    return asked_ns + int(lease_s * (1 + lease.MARGIN) * NS)


@bug("a host answers though its lease has ended", "simulator.host:Host.holds")
def _(holds, self):
    return bool(self.presence.until_ns)


@bug("a host is gone after half of its lease", "cluster.lease:Judge.gone")
def _(gone, self, lease_s):
    return gone(self, lease_s / 2)


@bug("an evicted host keeps its workers", "simulator.host:Host.lost")
def _(lost, self):
    pass


# Homes and take-overs.


@bug("the shards of a host that is there get other homes", "app.homes:rehomed")
def _(rehomed, old, wants):
    fewer = {host: wanted for host, wanted in wants.items() if host != max(wants)}
    return rehomed(old, fewer or wants)


@bug("shards of evicted hosts stay where they were", "app.homes:rehomed")
def _(rehomed, old, wants):
    return None


@bug("a shard greets its peers before its epoch is in the log", "worker.takeover:opening")
def _(opening, shard, commits, clock, leased):
    steps = opening(shard, commits, clock, leased)
    with patch.object(type(commits), "durable", lambda self: 1 << 62):
        next(steps, None)
    if shard.no > shard.durable:
        shard.accept(Durable(shard.no))
    yield


@bug("a shard is opened though the lease has ended", "worker.takeover:opening")
def _(opening, shard, commits, clock, leased):
    yield from opening(shard, commits, clock, lambda: True)
