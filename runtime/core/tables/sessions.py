"""A client's session as one shard knows it: which requests were answered, and how.

A request of a session is one of five:

    seen      it has an outcome here, of this batch or an earlier one: that is its answer
    over      it is at or under the low-water mark of its slot: its client has the outcome
    settled   it was answered and left no outcome, as a query or an invalid one
    waiting   the one before it, in the same slot, was not answered yet
    new       none of these: it may run

Each rule is stated once, for columns of requests; one request is a column of one. What the open
batch adds stands beside what was sealed, until `Requests` merges the two.

No I/O: low-water marks are read through a function. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core.events import Outcome, Request

OUTCOME_BYTES = 200
"""Memory for a remembered request beside the bytes of its outcome, about."""


class RequestRow(Struct, array_like=True, frozen=True):
    """A row of the REQUEST table: outcomes of one kind, of a session's requests to one slot, from
    one commit."""

    kind: str
    time_ns: int
    numbers: list[int]
    bodies: list[Raw]


_row = msgspec.msgpack.Decoder(RequestRow)
_encode = msgspec.msgpack.Encoder().encode


class Remembered:
    """A row of outcomes, staged until its batch is sealed."""

    __slots__ = ("_decoded", "bodies", "kind", "numbers", "value")

    def __init__(self, kind: str, numbers: list[int], value: bytes = b"") -> None:
        self.kind, self.numbers = kind, numbers
        self.value = value
        """The encoded row; empty while the batch is open."""
        self.bodies: list[Any] = []
        """The bodies to encode in it, while the batch is open."""
        self._decoded: dict[int, Raw] = {}
        """Bodies by number, once one of them was repeated: then all of them are, often."""

    @classmethod
    def stored(cls, value: bytes) -> Remembered:
        """Return a row as the store holds it."""
        row = _row.decode(value)
        return cls(row.kind, row.numbers, value)

    def outcome(self, number: int) -> Outcome:
        """Return the outcome of one of the row's requests."""
        if self.bodies:
            return Outcome(self.kind, _encode(self.bodies[self.numbers.index(number)]))
        if not self._decoded:
            self._decoded = dict(zip(self.numbers, _row.decode(self.value).bodies))
        return Outcome(self.kind, _encode(self._decoded[number]))

    @property
    def bytes(self) -> int:
        """The memory that the row takes, about."""
        return len(self.value) + OUTCOME_BYTES * len(self.numbers)


class LowWater(dict[int, int]):
    """Low-water marks of a session by slot, read from the store when they are first asked for."""

    __slots__ = ("_read",)

    def __init__(self, read: Callable[[int], int]) -> None:
        self._read = read

    def __missing__(self, slot: int) -> int:
        mark = self[slot] = self._read(slot)
        return mark


class Session:
    """A session that talks.

    Args:
        id: 16 bytes that its client has drawn.
        caller: who began the session in this memory; None: nobody's bound counts it.
        low_water: reads the mark of a slot from the store.
    """

    __slots__ = (
        "caller",
        "held",
        "id",
        "kept",
        "low_water",
        "new",
        "raised",
        "rows",
        "settled",
        "staged",
        "time_ns",
    )

    def __init__(self, id: bytes, caller: Any, low_water: Callable[[int], int]) -> None:
        self.id, self.caller = id, caller
        self.time_ns = 0
        """When it was last heard of."""
        self.low_water = LowWater(low_water)
        self.rows: dict[int, Remembered] = {}
        """Rows of the outcomes above the marks, by number."""
        self.kept: dict[int, list[Remembered]] = {}
        """The same rows by slot."""
        self.new: dict[int, Remembered] = {}
        """Rows of the open batch, by number."""
        self.staged: dict[tuple[str, int], Remembered] = {}
        """The same rows by kind and slot."""
        self.raised: dict[int, int] = {}
        """Marks that the open batch raises, by slot."""
        self.held: dict[int, dict[int, Request]] = {}
        """Waiting requests, by the number that they wait for, then by their own."""
        self.settled: dict[int, None] = {}
        """Settled requests, oldest first. Not staged: a batch that is run again settles them again."""

    def mark(self, slot: int) -> int:
        """Return the low-water mark of a slot, as the open batch sees it."""
        return self.raised.get(slot) or self.low_water[slot]

    # ── the rules ──

    def seen(self, numbers: Sequence[int]) -> bool:
        """Whether any of these requests has an outcome."""
        rows, new = self.rows.keys(), self.new.keys()
        return not (rows.isdisjoint(numbers) and new.isdisjoint(numbers))

    def over(self, numbers: Sequence[int], slots: Sequence[int]) -> bool:
        """Whether any of these requests is at or under the mark of its slot."""
        marks = map(self.low_water.__getitem__, slots)
        if not all(map(operator.gt, numbers, marks)):
            return True
        raised = map(self.raised.get, slots, repeat(0))
        return bool(self.raised) and not all(map(operator.gt, numbers, raised))

    def waits(self, numbers: Sequence[int], previous: Sequence[int], slots: Sequence[int]) -> bool:
        """Whether any of these requests has one before it that was not answered, nor is among them."""
        before = set(previous)
        before.discard(0)
        before.difference_update(numbers)
        if all(map(self.answered, before)):
            return False
        return any(
            number in before and not self.answered(number) and number > self.mark(slot)
            for number, slot in zip(previous, slots)
        )

    def answered(self, number: int) -> bool:
        """Whether a request was answered, with an outcome or without."""
        return number in self.new or number in self.rows or number in self.settled

    def outcome(self, number: int) -> Outcome:
        """Return the outcome of a request that was seen."""
        row = self.new.get(number) or self.rows[number]
        return row.outcome(number)

    # ── a batch ──

    def ran(
        self, kind: str, numbers: Sequence[int], slots: Sequence[int], bodies: Sequence[Any]
    ) -> None:
        """Add the first outcomes of requests whose turns have run."""
        new, staged = self.new, self.staged
        assert new.keys().isdisjoint(numbers), f"I1: of {numbers[:9]} one ran twice in one batch"
        for number, slot, body in zip(numbers, slots, bodies):
            row = staged.get((kind, slot))
            if row is None:
                row = staged[kind, slot] = Remembered(kind, [])
            row.numbers.append(number)
            row.bodies.append(body)
            new[number] = row

    def unstage(self) -> None:
        """Forget what the open batch has added."""
        self.new, self.staged, self.raised = {}, {}, {}

    @property
    def blank(self) -> bool:
        """Whether nobody could tell it from a session that was never heard of."""
        return not (
            self.rows or self.kept or self.held or self.settled or any(self.low_water.values())
        )
