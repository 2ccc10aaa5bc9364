"""Simulated NATS servers: logs and keys, as hosts see them who ask over a network that loses things.

What is asked may never arrive, arrive late, or be done while its answer is lost. While the servers
elect a leader nobody is answered. One that leads no more tells of the past, and refuses what is
right. Appends and changes name what they replace, and that is never done wrong: facts measured on
real servers.

Checks for itself what the logs are for: of each sequence one owner knows that it is his, and an owner
that was replaced appends nothing (I5).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from skerry.runtime.cluster.appending import Acked, Found, Missing, Refused, Unknown
from skerry.runtime.ports import LogDamaged
from skerry.runtime.simulator.network import Network
from skerry.testing import Faults

ANSWER_STEPS = 12
"""After so many steps without an answer, who asked asks anew."""

WAY_STEPS, LATE_STEPS = 2, 80
"""How long a question and its answer travel, each; and one that is late."""

NO_ANSWER = Unknown("no answer")

ROOMS_BYTES = (2_000, 50_000)
"""What a message holds: a part of a large commit in some runs."""


class Entry(NamedTuple):
    """A key as it is now."""

    value: Any
    """None: it was deleted, or never written."""
    revision: int
    write: int
    """Which change has written it."""


class Change(NamedTuple):
    """One change of a key, which is tried until its outcome is known."""

    key: str
    value: Any
    revision: int
    """What it replaces."""
    write: int


class Question:
    """What a host has asked; its answer, once there is one."""

    def __init__(self) -> None:
        self.answer: Any = None


class View:
    """A log as whoever was asked knows it; see `log.Stream` for its promises."""

    def __init__(self, name: str, messages: list[bytes], purged: int, room: int) -> None:
        self.name, self._messages, self._purged, self._room = name, messages, purged, room

    def ends(self) -> tuple[int, int]:
        """Return the oldest and the newest sequence."""
        return self._purged + 1, len(self._messages)

    def read(self, first: int, last: int) -> Iterator[tuple[int, bytes]]:
        """Yield (sequence, message) of these sequences."""
        for sequence in range(first, last + 1):
            if not self._purged < sequence <= len(self._messages):
                raise LogDamaged(f"message {sequence} of {self.name} is missing")
            yield sequence, self._messages[sequence - 1]

    def room(self) -> int:
        """Return how many bytes a message may have."""
        return self._room

    def publish(self, payload: bytes, expected: int) -> Acked | Refused | Unknown:
        """Append nothing: that takes time, and is asked of the servers."""
        raise AssertionError("a view is read")

    def look(self, sequence: int) -> Found | Missing | Unknown:
        """Look at nothing, as above."""
        raise AssertionError("a view is read")


class Log:
    """The log of one shard. Owners are numbered in the order in which they began."""

    def __init__(self, shard: int, room: int) -> None:
        self.name, self.room = f"log-{shard}", room
        self.messages: list[bytes] = []
        self.owners: list[int] = []
        """Who has written each of them."""
        self.purged = 0
        self.snapshots: list[tuple[int, list[bytes]]] = []
        """(message, records up to it) of the newest one and the one before."""

    @property
    def owner(self) -> int:
        """The newest owner that has appended."""
        return self.owners[-1] if self.owners else 0

    def append(self, payload: bytes, expected: int, owner: int) -> Acked | Refused:
        """Append a message, if that is the newest sequence."""
        if expected != len(self.messages):
            return Refused(len(self.messages))
        assert owner >= self.owner, f"I5: {self.name}: owner {owner} appends after {self.owner}"
        self.messages.append(payload)
        self.owners.append(owner)
        return Acked(self.name, len(self.messages))

    def acked(self, first: int, last: int, owner: int) -> None:
        """Note that an owner knows of these messages that they are his."""
        theirs = self.owners[first - 1 : last]
        assert theirs == [owner] * (last - first + 1), (
            f"I5: {self.name}: owner {owner} takes {first} to {last} for durable, of {theirs}"
        )

    def keep(self, sequence: int, records: list[bytes]) -> None:
        """Make a snapshot the newest, unless one is as far; purge the log up to the one before."""
        if self.snapshots and self.snapshots[0][0] >= sequence:
            return
        self.snapshots = [(sequence, records), *self.snapshots[:1]]
        if len(self.snapshots) == 2:
            self.purge(self.snapshots[1][0])

    def purge(self, upto: int) -> None:
        """Remove the messages up to this one."""
        assert upto >= self.purged, f"I6: {self.name}: what follows a snapshot was purged"
        self.purged = upto

    def whole(self) -> View:
        """Return the log as if nothing had been purged, for those who check."""
        return View(self.name, self.messages, 0, self.room)


class Ground(Protocol):
    """What servers stand on."""

    rng: random.Random
    faults: Faults
    step_no: int
    points: Counter[str]
    network: Network


class Servers:
    """All servers together."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self.logs: dict[int, Log] = {}
        self._keys: dict[str, list[Entry]] = {}
        """What each key has been."""
        self._revision = self._writes = self._owners = 0
        self._room = ground.rng.choice(ROOMS_BYTES)
        self.away_until = 0
        """Until when they elect a leader, or are down."""

    def log(self, shard: int) -> Log:
        """Return the log of a shard."""
        return self.logs.setdefault(shard, Log(shard, self._room))

    def owner(self) -> int:
        """Return the number of a new owner."""
        self._owners += 1
        return self._owners

    @property
    def _up(self) -> bool:
        return self._ground.step_no >= self.away_until

    def ask(self, reaches: Callable[[], bool], do: Callable[[], Any]) -> Question:
        """Have something done for a host, which may be cut off from the servers."""
        ground, rng, question = self._ground, self._ground.rng, Question()

        def hear(answer: Any) -> None:
            if question.answer is None:
                question.answer = answer

        def arrive() -> None:
            if not self._up or not reaches():
                return
            answer = do()
            if rng.random() < ground.faults.lose:
                ground.points["servers: answer lost"] += 1
            elif reaches():
                ground.network.later(lambda: hear(answer), WAY_STEPS)

        if reaches() and rng.random() >= ground.faults.lose:
            late = rng.random() < ground.faults.lose
            ground.points["servers: asked late"] += late
            ground.network.later(arrive, LATE_STEPS if late else WAY_STEPS)
        ground.network.at(ground.step_no + ANSWER_STEPS, lambda: hear(NO_ANSWER))
        return question

    def _astray(self, what: str) -> bool:
        """Whether a server answers that leads no more."""
        if self._ground.rng.random() >= self._ground.faults.lose:
            return False
        self._ground.points[f"servers: {what}"] += 1
        return True

    # ── logs ──

    def view(self, log: Log) -> View:
        """Read a log."""
        newest = len(log.messages)
        if newest > log.purged and self._astray("a log of the past"):
            newest = self._ground.rng.randint(log.purged, newest)
        return View(log.name, log.messages[:newest], log.purged, log.room)

    def publish(
        self, log: Log, payload: bytes, expected: int, owner: int
    ) -> Acked | Refused | Unknown:
        """Append a message."""
        if self._astray("an odd answer"):
            odd: list[Acked | Refused | Unknown] = [
                Acked(log.name, expected, duplicate=True),
                Acked("another", expected + 1),
                Refused(max(0, expected - 1)),
                Unknown("temporarily unavailable"),
            ]
            return self._ground.rng.choice(odd)
        return log.append(payload, expected, owner)

    def look(self, log: Log, sequence: int) -> Found | Missing:
        """Read one message."""
        there = log.purged < sequence <= len(log.messages)
        if not there or self._astray("nothing there"):
            return Missing()
        return Found(log.messages[sequence - 1])

    # ── keys ──

    def change(self, key: str, value: Any, revision: int) -> Change:
        """Name a change of a key."""
        self._writes += 1
        return Change(key, value, revision, self._writes)

    def changed(self, change: Change) -> int | Unknown:
        """Make a change; return the new revision."""
        if self.newest(change.key).revision != change.revision or self._astray("a change refused"):
            return Unknown("refused")
        return self.put(change)

    def put(self, change: Change) -> int:
        """Make a change, whatever it replaces; return the new revision."""
        self._revision += 1
        entry = Entry(change.value, self._revision, change.write)
        self._keys.setdefault(change.key, []).append(entry)
        return self._revision

    def read(self, key: str) -> Entry:
        """Read a key."""
        entries = self._keys.get(key, [])
        if len(entries) > 1 and self._astray("a key of the past"):
            return entries[-2]
        return self.newest(key)

    def keys(self, prefix: str) -> dict[str, Entry]:
        """Read all keys that begin so."""
        return {key: self.read(key) for key in sorted(self._keys) if key.startswith(prefix)}

    def newest(self, key: str) -> Entry:
        """Return a key as it is, for those who check."""
        entries = self._keys.get(key)
        return entries[-1] if entries else Entry(None, 0, 0)

    def truth(self, key: str) -> Any:
        """Return what a key says, for those who check."""
        return self.newest(key).value
