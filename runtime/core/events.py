"""The core's vocabulary: every event that reaches a shard, every effect that it asks for.

A shard is a state machine. `Shard.accept` takes an event, `Shard.run` runs a batch of turns,
and `Shard.take_effects` returns what must happen outside. The worker, the simulator and the
core share these types; nothing here acts.

Imports msgspec only. Protocol: docs/ideas/streams.md, docs/ideas/log.md, docs/ideas/clients.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NewType, Protocol

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core.placement import Placement
from skerry.runtime.core.stored import split

ShardId = NewType("ShardId", int)
SlotId = NewType("SlotId", int)
Seq = NewType("Seq", int)
CommitNo = NewType("CommitNo", int)

Identity = tuple[int, int, int]
"""Names a message, for the search for one that ends its worker: (sender's shard, frame, place in it)
of a frame's message; of any other a number for its kind of work, and two more."""

SLOTS = 1024
"""Slots of an app, fixed when it is created: enough for hundreds of shards, few enough to list."""


# ── tables ────────────────────────────────────────────────────────────────────
# Everything that recovery needs is a row of one of these tables. Keys of slotted tables begin
# with the slot (2 bytes, big endian), so moving a slot means moving its rows.


class Table:
    """Table numbers, as records and stores hold them. A number is never reused."""

    STATE = 1
    """slot, type id (4), key: the entity's state. In records grouped by type, see `StateGroup`."""
    TIMER = 2
    """slot, id (16): a message that waits for a time (named timer, send_later, ask time-out)."""
    ASK = 3
    """slot, ask id: what to do with the outcome of a pending ask."""
    REQUEST = 4
    """slot, session (16), number (8): the first outcome of a client's request."""
    FLOOR = 5
    """slot, session (16): the low-water mark; outcomes up to this number have been dropped."""
    DEAD = 6
    """slot, id: a dead letter."""
    POSITION = 7
    """slot, partition id (16): how far a source partition has been read."""
    OUTPUT = 8
    """slot, output partition (16), number of the first item (8): items that a sink has not taken yet."""
    OUTPUT_NUMBER = 9
    """slot, output partition (16): the number of the newest item."""
    DEAD_COUNT = 10
    """slot: how many dead letters it has."""
    NAME = 11
    """slot, hash of the idempotency key (16): the first outcome of the request that has it."""
    PARKED = 12
    """slot, commit (8), place in it (4): messages that wait here until the slot comes. They don't move."""
    SCHEMA = 16
    """schema id (8): type and field names; they make the store self-describing. Not slotted."""
    OUTBOX = 17
    """peer (4), seq (8): a frame that the peer has not acked. Not slotted."""
    STREAM = 18
    """direction (1), peer (4): the positions of a stream. Not slotted."""
    META = 19
    """name: the epoch, the placement and other facts about the shard. Not slotted."""


SLOTTED = frozenset(range(1, 12))

Row = tuple[int, bytes, bytes | None]
"""(table, key, bytes or None for a deletion)."""


class StateGroup(Struct, frozen=True, array_like=True, gc=False):
    """The states of one entity type that a batch changed, encoded in one pass.

    A state is a msgpack array `[schema id, field, field, ...]`, so it names its own schema.
    """

    type: str
    keys: list[str]
    states: Raw
    """A msgpack array: the state of each key."""
    gone: list[str] = []
    """Keys of entities that were forgotten."""

    @classmethod
    def of(cls, type: str, changes: Iterable[tuple[str, bytes | None]]) -> StateGroup:
        """Build a group from encoded states. None marks a forgotten entity."""
        changed = dict(changes)
        kept = {key: Raw(state) for key, state in changed.items() if state is not None}
        gone = [key for key, state in changed.items() if state is None]
        return cls(type, list(kept), Raw(_encode(list(kept.values()))), gone)

    def each(self) -> Iterator[tuple[str, bytes | None]]:
        """Yield each key with its state, or with None when the entity was forgotten."""
        yield from zip(self.keys, map(bytes, split(self.states)))
        yield from zip(self.gone, repeat(None))


_encode = msgspec.msgpack.Encoder().encode


class Live(Protocol):
    """An object that holds a state in memory, and where the store keeps its newest one."""

    _store_entry: int
    _key: str


class Commit(Struct, frozen=True):
    """The result of one batch: one record in the log, durable as a whole or not at all."""

    no: CommitNo
    record: bytes
    """The bytes in the log: header, body and checksum (`commit.py`)."""
    states: list[StateGroup]
    rows: list[Row]
    live: Sequence[Sequence[Live]] = ()
    """For each group the entities that hold its states; empty when no entity changed."""


# ── events: they reach a shard ──────────────────────────────────────────────


class Arrived(Struct, frozen=True):
    """Bytes from a peer's pipe: a frame, an ack, a hello, or garbage."""

    raw: bytes


class RequestRun(Struct, array_like=True):
    """A client's requests to one handler, in the order of their numbers, as columns.

    Requests cross the listener's socket in this form. A retry repeats its number and time; the
    request that it follows may be gone.
    """

    type: str
    handler: str
    reply: bool
    """False for `send`: the outcome is `done` without a value; a refusal becomes a dead letter."""
    first_ns: int
    """Server time of the first attempt (from the handshake), ns since 1970."""
    numbers: list[int]
    """Request numbers within the session: 1, 2, 3, …, ascending."""
    previous: list[int]
    """For each request, the session's request before it to the same slot, which runs first; or 0."""
    keys: list[str]
    args: Raw
    """A msgpack array of arguments: for each request an array by position or a map by name."""

    def part(self, start: int, end: int) -> RequestRun:
        """Cut out the requests from `start` up to `end`."""
        args = Raw(_encode(split(self.args)[start:end]))
        return RequestRun(
            self.type, self.handler, self.reply, self.first_ns,
            self.numbers[start:end], self.previous[start:end], self.keys[start:end], args,
        )  # fmt: skip


class Request(Struct, gc=False):
    """One request of a run."""

    caller: Any
    session: bytes
    named: bool
    type: str
    handler: str
    reply: bool
    first_ns: int
    number: int
    previous: int
    key: str
    args: Raw


class Requested(Struct):
    """Requests of one session, from the listener. Their outcomes go to `caller`."""

    caller: Any
    session: bytes
    """16 bytes: drawn by the client, or the hash of an `idempotency_key`."""
    runs: list[RequestRun]
    named: bool = False
    """Whether an `idempotency_key` names the request: its outcome outlives every confirmation."""
    size: int = 0
    """Size of the received message in bytes."""

    @property
    def count(self) -> int:
        """The number of requests."""
        return sum(len(run.numbers) for run in self.runs)

    def each(self, run: RequestRun) -> Iterator[Request]:
        """Yield the requests of one run, one by one."""
        caller, session, named = self.caller, self.session, self.named
        alike = (run.type, run.handler, run.reply, run.first_ns)
        columns = zip(run.numbers, run.previous, run.keys, split(run.args))
        for own in columns:
            yield Request(caller, session, named, *alike, *own)

    def split(self, count: int) -> tuple[Requested, Requested]:
        """Split off the first `count` requests, fewer than all."""
        first: list[RequestRun] = []
        runs = list(self.runs)
        while len(runs[0].numbers) <= count:
            first.append(runs.pop(0))
            count -= len(first[-1].numbers)
        if count:
            first.append(runs[0].part(0, count))
            runs[0] = runs[0].part(count, len(runs[0].numbers))
        one = Requested(self.caller, self.session, first, self.named)
        return one, Requested(self.caller, self.session, runs, self.named, self.size)


class Confirmed(Struct, frozen=True):
    """A session confirms that it has every outcome up to `upto`; in some slots only up to a
    smaller number."""

    session: bytes
    upto: int
    below: dict[int, int] = {}
    """For each slot with an open request, the number up to which it has every outcome."""


class Operated(Struct, frozen=True):
    """An operator's command on a dead letter: 'retry' sends it again, 'drop' removes it.

    `Told` answers it, with the same `number`: 'done', or 'invalid' when no such letter exists.
    """

    caller: Any
    number: int
    action: str
    id: bytes


class Items(Struct, frozen=True):
    """Items read from one partition of a source, which follow position `after`."""

    source: str
    partition: str
    after: Any
    positions: Sequence[Any]
    """The position of each item, in order."""
    items: Sequence[Any]

    def split(self, count: int) -> tuple[Items, Items]:
        """Cut off the first so many items, fewer than all."""
        first, rest = self.positions[:count], self.positions[count:]
        return (
            Items(self.source, self.partition, self.after, first, self.items[:count]),
            Items(self.source, self.partition, first[-1], rest, self.items[count:]),
        )


class Written(Struct, frozen=True):
    """A sink has taken every item of a partition up to number `upto`."""

    output: str
    sink: int
    partition: str
    upto: int


class Ticked(Struct, frozen=True):
    """The clocks, read once per round of the worker."""

    now_ns: int
    """Wall clock, ns since 1970. It may be set back; the shard's time then stands still."""
    steady_ns: int
    """Boot clock, ns: it is never set, and runs while the machine sleeps. It measures a peer's
    silence, and how far the wall clock was set."""


class Cut(Struct, frozen=True):
    """Take the cut of this number now: a backup begins."""

    no: int


class Durable(Struct, frozen=True):
    """Every commit up to `no` survives a power cut."""

    no: int


Event = (
    Arrived
    | Placement
    | Requested
    | Confirmed
    | Operated
    | Items
    | Written
    | Ticked
    | Cut
    | Durable
)


# ── effects: a shard asks for them ───────────────────────────────────────────────


class Transmit(Struct, frozen=True):
    """Put these bytes on the pipe to `peer`. They may be lost; streams do not depend on them."""

    peer: ShardId
    raw: bytes


class Outcome(Struct, array_like=True, frozen=True, gc=False):
    """The outcome of a request.

    kind: 'done' (body: msgpack of the reply), 'rejected' (body: [reason, details]),
    'failed' (body: [error text, traceback]), 'invalid' (body: [class name, text]; nothing ran),
    'moved' (body: the placement's version), 'late' (the request is too old: outcome unknown),
    'busy' (nothing ran: try again later).
    """

    kind: str
    body: bytes = b"\xc0"


class Reply(Struct, frozen=True):
    """Outcomes of one kind for `caller`, whose commit is durable."""

    caller: Any
    kind: str
    numbers: list[int]
    bodies: Raw
    """A msgpack array of bodies, one per number; empty for 'busy', which has none."""


class Told(Struct, frozen=True):
    """The outcome of an operator's command `number` for `caller`, whose commit is durable."""

    caller: Any
    number: int
    outcome: Outcome


class Adopt(Struct, frozen=True):
    """Serve these slots from now on: read the source partitions that live in them."""

    slots: frozenset[int]
    positions: dict[tuple[str, str], Any]
    """How far partitions have been read, by source and partition."""


class Rewind(Struct, frozen=True):
    """Read on after `after`: a source's batch did not follow the newest position."""

    source: str
    partition: str
    after: Any


class Write(Struct, frozen=True):
    """Hand durable items to a sink, which may have been given them before."""

    output: str
    sink: int
    """Index of the sink among the output's sinks."""
    partition: str
    sequence: int
    """The number of the first item."""
    items: list[bytes]

    @property
    def written(self) -> Written:
        """The event that reports that the sink has taken all items."""
        upto = self.sequence + len(self.items) - 1
        return Written(self.output, self.sink, self.partition, upto)


class Keep(Struct, frozen=True):
    """Keep the rows as they are durable now, for the backup of this number. Must happen before the
    next batch runs: its frames may come from behind the cut."""

    no: int


class Stop(Struct, frozen=True):
    """Stop this shard for good. `error` is the exception that ends the worker."""

    error: Exception


Effect = Transmit | Reply | Told | Adopt | Rewind | Write | Keep | Stop
