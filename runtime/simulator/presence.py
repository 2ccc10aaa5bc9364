"""The lease of a simulated host: it is renewed, and the other hosts are looked at.

    renewed -> look at the keys of all hosts -> evict those that are gone
    who leads -> take a place that is vacant
    the description

Who is gone, and whether anybody leads, is judged by `cluster/lease.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from skerry.runtime.cluster.lease import NS, Judge, Leader, Lease, holds_until, vacant
from skerry.runtime.simulator.servers import NO_ANSWER, Change, Entry, Question, Servers

LEASE_S = 0.1
"""A hundred steps: some take-overs fit into a run."""

PERIOD_NS = int(LEASE_S / 5 * NS)
"""How often a lease is renewed."""

LOOK_STEPS = 6

HOST, LEADER, DESCRIPTION = "host.", "leader", "description"

Asking = Generator[None, None, Any]
"""A loop that goes on once per step, or a part of one that returns an answer."""


class Overtaken(Exception):
    """Another change was made first."""


class Asker(Protocol):
    """Who asks the servers."""

    def ask(self, do: Callable[[], Any], /) -> Question:
        """Ask the servers."""
        ...


class Host(Asker, Protocol):
    """Whose lease it is."""

    name: str
    boot_ns: int
    workers: int

    def saw(self, description: Entry, /) -> None:
        """Take note of a description."""
        ...

    def lost(self) -> None:
        """The lease is lost for good."""
        ...


def asked(asker: Asker, do: Callable[[], Any]) -> Asking:
    """Ask the servers, and wait for the answer."""
    question = asker.ask(do)
    while question.answer is None:
        yield
    return question.answer


def attempt(asker: Asker, servers: Servers, change: Change) -> Asking:
    """Try a change once; return the new revision, or None: not known. Raises Overtaken."""
    answer = yield from asked(asker, lambda: servers.changed(change))
    if isinstance(answer, int):
        return answer
    found = yield from asked(asker, lambda: servers.read(change.key))
    if found is NO_ANSWER:
        return None
    if found.write == change.write:
        return found.revision
    if found.revision > change.revision:
        raise Overtaken
    return None


def pause(steps: int) -> Asking:
    """Wait."""
    for _ in range(steps):
        yield


class Presence:
    """What a host's process does with its lease, and knows of others."""

    def __init__(self, host: Host, servers: Servers, points: Counter[str]) -> None:
        self._host, self._servers, self._points = host, servers, points
        self.nonce = str(servers.change("", None, 0).write)
        """Tells this process of the host from all others."""
        self._revision = self._asked_ns = 0
        self.until_ns = 0
        """Up to when the lease holds, by the host's clock; 0: it has none."""
        self.present: dict[str, Lease] = {}
        self.leads = False
        self._judges: dict[str, Judge] = {}

    def _lease(self) -> Lease:
        return Lease(
            host=self._host.name,
            nonce=self.nonce,
            pid=0,
            lease_s=LEASE_S,
            workers=self._host.workers,
        )

    def _join(self) -> Asking:
        """Take the host's own key; return its revision."""
        while True:
            found = yield from asked(self._host, lambda: self._servers.read(HOST + self._host.name))
            if found is not NO_ANSWER:
                self._asked_ns = self._host.boot_ns
                change = self._servers.change(HOST + self._host.name, self._lease(), found.revision)
                try:
                    revision = yield from attempt(self._host, self._servers, change)
                except Overtaken:
                    revision = None
                if revision is not None:
                    return revision
            yield from pause(LOOK_STEPS)

    def stay(self) -> Iterator[None]:
        """Renew the lease until it is lost; then join again."""
        self._revision = yield from self._join()
        self._renewed(self._asked_ns)
        change: Change | None = None
        asked_ns = 0
        while True:
            yield from pause(LOOK_STEPS)
            if change is None and self._host.boot_ns >= self._asked_ns + PERIOD_NS:
                asked_ns = self._host.boot_ns
                change = self._servers.change(HOST + self._host.name, self._lease(), self._revision)
            if change is not None:
                try:
                    revision = yield from attempt(self._host, self._servers, change)
                except Overtaken:
                    self._host.lost()
                    return
                if revision is None:
                    self._missed()
                    continue
                self._revision, change = revision, None
                self._renewed(asked_ns)
                yield from self._look_at_hosts()
            yield from self._look_at_leader()
            found = yield from asked(self._host, lambda: self._servers.read(DESCRIPTION))
            if found is not NO_ANSWER:
                self._host.saw(found)

    def _renewed(self, asked_ns: int) -> None:
        self._asked_ns = asked_ns
        self.until_ns = holds_until(asked_ns, LEASE_S)

    def _missed(self) -> None:
        for judge in self._judges.values():
            judge.missed()

    def _look_at_hosts(self) -> Asking:
        """See which hosts are there, and evict those that are gone."""
        asked_ns = self._host.boot_ns
        found = yield from asked(self._host, lambda: self._servers.keys(HOST))
        if found is NO_ANSWER:
            self._missed()
            return None
        answered_ns, present = self._host.boot_ns, dict[str, Lease]()
        for key, entry in found.items():
            if entry.value is None:
                self._judges.pop(key, None)
                continue
            judge = self._judges.setdefault(key, Judge(2 * PERIOD_NS))
            judge.saw(entry.revision, asked_ns=asked_ns, answered_ns=answered_ns)
            if key != HOST + self._host.name and judge.gone(LEASE_S):
                try:
                    gone = yield from attempt(
                        self._host, self._servers, self._servers.change(key, None, entry.revision)
                    )
                except Overtaken:
                    gone = None
                if gone is not None:
                    self._points["host evicted"] += 1
                    continue
            present[entry.value.host] = entry.value
        self.present = present
        return None

    def _look_at_leader(self) -> Asking:
        """See who leads, and take a place that is vacant."""
        found = yield from asked(self._host, lambda: self._servers.read(LEADER))
        if found is NO_ANSWER:
            return
        ours = Leader(self._host.name, self.nonce)
        self.leads = found.value == ours
        if self.leads or not vacant(found.value, self.present):
            return
        yield from self._look_at_hosts()  # The one that leads may be newer than our last look.
        if vacant(found.value, self.present):
            change = self._servers.change(LEADER, ours, found.revision)
            try:
                taken = yield from attempt(self._host, self._servers, change)
            except Overtaken:
                taken = None
            self.leads = taken is not None
            self._points["began to lead"] += self.leads
