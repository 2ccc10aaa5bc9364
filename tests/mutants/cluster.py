"""Bugs of an app on several hosts: who runs it."""

from skerry.runtime.cluster import lease
from tests.mutants.bugs import bug

# When the holder of a lease counts as gone.


@bug("a revision is known to stand since it was asked for first", "cluster.lease:Judge.saw")
def _(saw, self, revision, *, asked_ns, answered_ns):
    saw(self, revision, asked_ns=asked_ns, answered_ns=asked_ns)


@bug("a revision is known to stand until the answer has come", "cluster.lease:Judge.saw")
def _(saw, self, revision, *, asked_ns, answered_ns):
    saw(self, revision, asked_ns=answered_ns, answered_ns=answered_ns)


@bug("time without servers counts against the holder", "cluster.lease:Judge.missed")
def _(missed, self):
    pass


@bug(
    "time in which the judge was stopped counts against the holder", "cluster.lease:Judge.__init__"
)
def _(init, self, span_ns):
    init(self, 10**6 * lease.NS)


@bug("a renewal does not begin a new lease", "cluster.lease:Judge.saw")
def _(saw, self, revision, *, asked_ns, answered_ns):
    before = self._stood_ns
    saw(self, revision, asked_ns=asked_ns, answered_ns=answered_ns)
    self._stood_ns = max(self._stood_ns, before)


@bug("the holder uses its lease longer than others grant it", "cluster.lease:holds_until")
def _(holds_until, asked_ns, lease_s):
    return holds_until(asked_ns, lease_s * 1.5)


@bug("a lease runs out early", "cluster.lease:Judge.gone")
def _(gone, self, lease_s):
    return gone(self, lease_s / 2)
