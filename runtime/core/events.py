"""The words: all that can reach a shard, and all that it can want.

A shard is a state machine. An event goes in by `Shard.accept`, a batch of turns is
run by `Shard.run`, and what must happen outside comes out as effects. Nothing here
does anything; it is the vocabulary that the worker, the simulator and the core share.

Imports msgspec only. Protocol: docs/streams.md, docs/log.md, docs/clients.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NewType, Protocol

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core.stored import split

ShardId = NewType("ShardId", int)
SlotId = NewType("SlotId", int)
Seq = NewType("Seq", int)
CommitNo = NewType("CommitNo", int)

SLOTS = 1024
"""Slots of an app, fixed when it is created: enough for hundreds of shards, few enough to list."""


# ── tables ────────────────────────────────────────────────────────────────────
# Whatever recovery needs is a row in one of these. Keys of slotted tables begin
# with the slot (2 bytes, big endian), so that moving a slot is moving its rows.


class Table:
    """Numbers of the tables, as they stand in records and in the store. Never reused."""

    STATE = 1
    """slot, type id (4), key: the entity's state. In records grouped by type, see `StateGroup`."""
    TIMER = 2
    """slot, id (16): a message that waits for a time (named timer, send_later, ask time-out)."""
    ASK = 3
    """slot, ask id: what to do with the outcome of a pending ask."""
    REQUEST = 4
    """slot, session (16), number (8): the first outcome of a client's request."""
    FLOOR = 5
    """slot, session (16): requests up to this number are over and dropped."""
    DEAD = 6
    """slot, id: a dead letter."""
    POSITION = 7
    """slot, partition id (16): how far a source partition has been read."""
    OUTPUT = 8
    """slot, output's end (16), number of the first (8): items that their sink does not have yet."""
    OUTPUT_NUMBER = 9
    """slot, output's end (16): the number of the newest item."""
    SCHEMA = 16
    """schema id (8): type name and field names, so that the store describes itself. Not slotted."""
    OUTBOX = 17
    """peer (4), seq (8): a frame that the peer has not acked. Not slotted."""
    STREAM = 18
    """direction (1), peer (4): the positions of a stream. Not slotted."""
    META = 19
    """name: epoch, placement and the like. Not slotted."""


SLOTTED = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9})

Row = tuple[int, bytes, bytes | None]
"""(table, key, bytes or None for a deletion)."""


class StateGroup(Struct, frozen=True, array_like=True, gc=False):
    """The states of one entity type that a batch changed, encoded all at once.

    A state is msgpack `[schema id, field, field, ...]`: it says what it means.
    """

    type: str
    keys: list[str]
    states: Raw
    """A msgpack array: the state of each key."""
    gone: list[str] = []
    """Keys of entities that were forgotten."""

    @classmethod
    def of(cls, type: str, changes: Iterable[tuple[str, bytes | None]]) -> StateGroup:
        """From states that are encoded already; None: forgotten."""
        changed = dict(changes)
        kept = {key: Raw(state) for key, state in changed.items() if state is not None}
        gone = [key for key, state in changed.items() if state is None]
        return cls(type, list(kept), Raw(_encode(list(kept.values()))), gone)

    def each(self) -> Iterator[tuple[str, bytes | None]]:
        """Key by key."""
        yield from zip(self.keys, map(bytes, split(self.states)))
        yield from zip(self.gone, repeat(None))


_encode = msgspec.msgpack.Encoder().encode


class Live(Protocol):
    """What holds a state in memory, and remembers for the store where its newest one stands."""

    _store_entry: int
    _key: str


class Commit(Struct, frozen=True):
    """All that one batch leaves behind: one record in the log, durable as a whole or not at all."""

    no: CommitNo
    record: bytes
    """What the log keeps: header, body and checksum (`commit.py`)."""
    states: list[StateGroup]
    rows: list[Row]
    live: Sequence[Sequence[Live]] = ()
    """Of each group the entities whose states these are, when it is they who changed."""


# ── events: what reaches a shard ──────────────────────────────────────────────


class Arrived(Struct, frozen=True):
    """Bytes from a peer's pipe: a frame, an ack, a hello... or garbage."""

    raw: bytes


class RequestRun(Struct, array_like=True):
    """A client's requests to one handler, in the order of their numbers: a column of each.

    As they cross the door's socket. Retries repeat number and time; what they follow may be gone.
    """

    type: str
    handler: str
    reply: bool
    """False for `send`: the outcome is `done` with no value once durable, refusals go to the dead letters."""
    first_ns: int
    """Server time of their first try (from the handshake), ns since 1970."""
    numbers: list[int]
    """1, 2, 3... in the session, ascending."""
    previous: list[int]
    """Of each: the session's request before it to the same slot, or 0: that one runs first."""
    keys: list[str]
    args: Raw
    """A msgpack array: of each its arguments, as an array by position or a map by name."""

    def part(self, start: int, end: int) -> RequestRun:
        """Some of them."""
        args = Raw(_encode(split(self.args)[start:end]))
        return RequestRun(
            self.type, self.handler, self.reply, self.first_ns,
            self.numbers[start:end], self.previous[start:end], self.keys[start:end], args,
        )  # fmt: skip


class Request(Struct, gc=False):
    """One request, looked at alone."""

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
    """Requests of one session came through the door; `caller` is where their outcomes go."""

    caller: Any
    session: bytes
    """16 bytes: drawn by the client; or the hash of an `idempotency_key`."""
    runs: list[RequestRun]
    named: bool = False
    """Whether an `idempotency_key` made session and number: its outcome outlives every confirm."""
    size: int = 0
    """The bytes that it came as."""

    @property
    def count(self) -> int:
        """How many requests."""
        return sum(len(run.numbers) for run in self.runs)

    def each(self, run: RequestRun) -> Iterator[Request]:
        """The requests of one of its runs."""
        caller, session, named = self.caller, self.session, self.named
        alike = (run.type, run.handler, run.reply, run.first_ns)
        columns = zip(run.numbers, run.previous, run.keys, split(run.args))
        for own in columns:
            yield Request(caller, session, named, *alike, *own)

    def split(self, count: int) -> tuple[Requested, Requested]:
        """The first so many requests, fewer than all, and the rest."""
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
    """A session says what it holds: every outcome up to `upto`, but in some slots only up to a
    smaller number."""

    session: bytes
    upto: int
    below: dict[int, int] = {}
    """Of each slot with an open request: up to where it has every outcome of that slot."""


class Operated(Struct, frozen=True):
    """An operator's word on a dead letter: 'retry' sends it anew, 'drop' forgets it.

    Answered by `Told` with `number`: 'done', or 'invalid' when there is no such letter.
    """

    caller: Any
    number: int
    action: str
    id: bytes


class Items(Struct, frozen=True):
    """Items read from one partition of a source: what follows position `after`."""

    source: str
    partition: str
    after: Any
    positions: Sequence[Any]
    """Of each item, in order."""
    items: Sequence[Any]


class Written(Struct, frozen=True):
    """A sink has every item of a partition up to this number."""

    output: str
    sink: int
    partition: str
    upto: int


class Ticked(Struct, frozen=True):
    """The clocks, once per loop of the worker."""

    now_ns: int
    """The wall clock, ns since 1970: it may be set back, and a shard's time then stands still."""
    steady_ns: int
    """A clock that is never set, and goes on while the machine sleeps: silence is measured by it,
    and how far the other one was set."""


class Cut(Struct, frozen=True):
    """Take the cut of this number now: a backup begins."""

    no: int


class Durable(Struct, frozen=True):
    """Everything up to this commit survives a power cut."""

    no: int


Event = Arrived | Requested | Confirmed | Operated | Items | Written | Ticked | Cut | Durable


# ── effects: what a shard wants ───────────────────────────────────────────────


class Transmit(Struct, frozen=True):
    """Put these bytes on the pipe to `peer`. May be lost: streams do not depend on it."""

    peer: ShardId
    raw: bytes


class Outcome(Struct, array_like=True, frozen=True, gc=False):
    """What became of a request.

    kind: 'done' (body: msgpack of the reply), 'rejected' (body: [reason, details]),
    'failed' (body: [error text, traceback]), 'invalid' (body: [class name, text]; nothing ran),
    'moved' (body: the placement's version), 'late' (too old to be known: outcome unknown),
    'busy' (nothing ran: try again later).
    """

    kind: str
    body: bytes = b"\xc0"


class Reply(Struct, frozen=True):
    """Outcomes of one kind, for `caller`. Their commit is durable."""

    caller: Any
    kind: str
    numbers: list[int]
    bodies: Raw
    """A msgpack array: the body of each. Empty for 'busy', which says nothing more."""


class Told(Struct, frozen=True):
    """What became of an operator's word `number`, for `caller`. Its commit is durable."""

    caller: Any
    number: int
    outcome: Outcome


class Rewind(Struct, frozen=True):
    """A source batch did not follow the newest position: read on after `after`."""

    source: str
    partition: str
    after: Any


class Write(Struct, frozen=True):
    """Hand items to a sink: they are durable, and may have been handed to it before."""

    output: str
    sink: int
    """Which of the output's sinks."""
    partition: str
    sequence: int
    """The number of the first item."""
    items: list[bytes]

    @property
    def written(self) -> Written:
        """What is said when the sink has all of them."""
        upto = self.sequence + len(self.items) - 1
        return Written(self.output, self.sink, self.partition, upto)


class Stop(Struct, frozen=True):
    """This shard must not go on. `error` is the exception to end the worker with."""

    error: Exception


Effect = Transmit | Reply | Told | Rewind | Write | Stop


# ── the placement ─────────────────────────────────────────────────────────────


class Placement(Struct, frozen=True, array_like=True):
    """Which shard owns which slot, at a version."""

    version: int
    members: list[int]
    """Ids of the shards, never used again for others."""
    slots: list[int]
    """The owner of slot i, `SLOTS` of them."""
    next_id: int
    """The id that the next new member gets."""
