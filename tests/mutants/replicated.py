"""Bugs of a log in a cluster: appends whose outcome is unknown, and copies on a host."""

import itertools
import shutil
from unittest import mock

from msgspec.structs import replace

from skerry.runtime.cluster import appending, local
from skerry.runtime.cluster.appending import Acked, Found, Missing, Refused, Step, Unknown
from skerry.runtime.store.disk import sealed, unsealed
from tests.mutants.bugs import bug

# One append.


@bug("an acknowledgement counts whatever it is of", "cluster.appending:Appending.published")
def _(published, self, answer):
    if isinstance(answer, Acked):
        answer = Acked(self._log, self.sequence)
    published(self, answer)


@bug("a duplicate counts as an append", "cluster.appending:Appending.published")
def _(published, self, answer):
    if isinstance(answer, Acked) and answer.log == self._log:
        answer = replace(answer, duplicate=False, sequence=self.sequence)
    published(self, answer)


@bug("no answer counts as an append", "cluster.appending:Appending.published")
def _(published, self, answer):
    if isinstance(answer, Unknown):
        answer = Acked(self._log, self.sequence)
    published(self, answer)


@bug("a refusal ends the owner unread", "cluster.appending:Appending.published")
def _(published, self, answer):
    published(self, answer)
    if isinstance(answer, Refused) and answer.last > self._expected:
        self.step = Step.FENCED


@bug("a refused append expects what is there now", "cluster.appending:Appending.published")
def _(published, self, answer):
    published(self, answer)
    if isinstance(answer, Refused) and answer.last > self._expected:
        self._expected, self.step = answer.last, Step.PUBLISH


@bug('"nothing there" ends the owner', "cluster.appending:Appending.looked")
def _(looked, self, answer):
    looked(self, answer)
    if isinstance(answer, Missing):
        self.step = Step.FENCED


@bug('"nothing there" counts as durable', "cluster.appending:Appending.looked")
def _(looked, self, answer):
    looked(self, answer)
    if isinstance(answer, Missing):
        self.step = Step.DURABLE


@bug("whatever stands there is taken for the own message", "cluster.appending:Appending.looked")
def _(looked, self, answer):
    looked(self, Found(self._payload) if isinstance(answer, Found) else answer)


@bug("a server that is behind for a moment ends the owner", "cluster.appending:Appending.published")
def _(published, self, answer):
    with mock.patch.object(appending, "BEHIND_MAX", 2):
        published(self, answer)


@bug("a log that has lost messages is waited for", "cluster.appending:Appending.published")
def _(published, self, answer):
    published(self, answer)
    self._behind = 0
    if self.tries > 500:
        raise AssertionError("it goes on and on")


# The log.


@bug("other bytes are appended after an unknown outcome", "cluster.log:ReplicatedLog._publish")
def _(publish, self, append):
    real, tries = self._stream.publish, itertools.count()

    def other(given, expected):
        if next(tries):
            head = bytearray(unsealed(given))
            head[1] ^= 1  # Who has written it.
            given = sealed(bytes(head))
        return real(given, expected)

    with mock.patch.object(self._stream, "publish", other):
        publish(self, append)


@bug("a commit is on the host before it is in the log", "cluster.log:ReplicatedLog.append")
def _(append, self, waiting, *, sync):
    self._local.append(waiting, sync=False)
    with mock.patch.object(self._local, "append"):
        append(self, waiting, sync=sync)


@bug("two owners write the same bytes", "cluster.log:ReplicatedLog._message")
def _(message, self, kind, number, body):
    with mock.patch.object(self, "_owner", bytes(16)):
        return message(self, kind, number, body)


@bug("a host that is ahead of the log goes on", "cluster.log:ReplicatedLog._missing")
def _(missing, self, first, last):
    if last and self.last.no > self._begins_with(last):
        return iter(())
    return missing(self, first, last)


@bug(
    "parts of an owner that was killed join those of the next", "cluster.log:ReplicatedLog._opened"
)
def _(opened, self, sequence, payload):
    kind, _, number, body = opened(self, sequence, payload)
    return kind, b"", number, body


@bug("a host reads on behind the message that it has in part", "cluster.log:ReplicatedLog._place")
def _(place, self, no, first, last):
    return min(last + 1, place(self, no, first, last) + 1) if no else first


@bug("a message is read without a look at its checksum", "cluster.log:ReplicatedLog._opened")
def _(opened, self, sequence, payload):
    return opened(self, sequence, sealed(payload[:-8]))


# What lies on a host.


@bug("a copy of an earlier life is opened", "cluster.local:unfit")
def _(unfit, folder, label):
    found = unfit(folder, label)
    return "" if found.startswith("it is of shard") else found


@bug("another app's store is moved aside", "cluster.local:unfit")
def _(unfit, folder, label):
    try:
        return unfit(folder, label)
    except Exception as error:
        return str(error)


@bug("a copy is removed when the log is damaged", "cluster.local:opened")
def _(opened, folder, label, replicated, snapshots, open, say):
    with mock.patch.object(local, "LogDamaged", ZeroDivisionError):
        return opened(folder, label, replicated, snapshots, open, say)


@bug("what does not fit is removed, not moved aside", "cluster.local:_move_aside")
def _(move_aside, folder):
    shutil.rmtree(folder)


@bug("a lease has no end", "worker.leased:LeasePage.holds")
def _(holds, self):
    return True
