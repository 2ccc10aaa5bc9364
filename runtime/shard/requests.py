"""A client's request seen before? Its first outcome, kept with the target's slot.

Requests travel outside the streams and may come twice, late, or by a retry long after.
Three things make each count once: the outcome of every request is a row of its target's
slot; a floor per session and slot says which requests are over, raised before their rows
are deleted; and a request that is older than half the rows' lifetime is refused, since
"never seen" and "forgotten" look alike.

Looked up when the request's turn would run, never at arrival. What a batch adds is
staged until it is sealed. Reads no clock. Idea: docs/clients.md. Asserts I1.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from skerry.runtime.shard.commit import slot_prefix
from skerry.runtime.shard.events import Outcome, Request, Row, Table

LIFETIME_NS = 24 * 3600 * 10**9
"""How long an outcome is kept for a session that is silent, and for a named request always."""

UNCONFIRMED_MAX = 1 << 20
"""Outcomes kept per shard; above, new requests are refused and nothing is evicted (I7)."""


class RequestRow(Struct, array_like=True, frozen=True):
    """The first outcome of a request."""

    outcome: Outcome
    time_ns: int
    named: bool = False


class FloorRow(Struct, array_like=True, frozen=True):
    """Requests of the session up to `upto` are over in this slot."""

    upto: int
    time_ns: int


class Seen:
    """What is known of one session in one slot."""

    __slots__ = ("floor", "rows")

    def __init__(self) -> None:
        self.floor = FloorRow(0, 0)
        self.rows: dict[int, RequestRow] = {}


_request_row = msgspec.msgpack.Decoder(RequestRow)
_floor_row = msgspec.msgpack.Decoder(FloorRow)
_encode = msgspec.msgpack.Encoder().encode
_Where = tuple[bytes, int]


def _key(where: _Where) -> bytes:
    session, slot = where
    return slot_prefix(slot) + session


class Requests:
    """The requests seen by a shard, and those of the open batch."""

    def __init__(self) -> None:
        self._seen: dict[_Where, Seen] = {}
        self._slots: dict[bytes, set[int]] = {}
        self._count = 0
        self._new: dict[tuple[_Where, int], RequestRow] = {}
        self._floors: dict[_Where, FloorRow] = {}

    def load(
        self, requests: Iterator[tuple[bytes, bytes]], floors: Iterator[tuple[bytes, bytes]]
    ) -> None:
        """From the store's rows, as a restart finds them."""
        for key, value in requests:
            where = bytes(key[2:18]), int.from_bytes(key[:2], "big")
            self._at(where).rows[int.from_bytes(key[18:], "big")] = _request_row.decode(value)
            self._count += 1
        for key, value in floors:
            where = bytes(key[2:18]), int.from_bytes(key[:2], "big")
            self._at(where).floor = _floor_row.decode(value)

    def _at(self, where: _Where) -> Seen:
        found = self._seen.get(where)
        if found is None:
            found = self._seen[where] = Seen()
            self._slots.setdefault(where[0], set()).add(where[1])
        return found

    # ── within a batch ──

    def judge(self, request: Request, slot: int, now_ns: int) -> Outcome | bool | None:
        """An outcome to answer with; True: it runs; False: it waits for `previous`; None: dropped."""
        where = (request.session, slot)
        new = self._new.get((where, request.number))
        if new is not None:
            return new.outcome
        seen = self._seen.get(where)
        if seen is not None:
            row = seen.rows.get(request.number)
            if row is not None:
                return row.outcome
            if not request.named and request.number <= self._floor(where, seen):
                return None
        if request.first_ns < now_ns - LIFETIME_NS // 2:
            return Outcome("late")
        if self._count + len(self._new) >= UNCONFIRMED_MAX:
            return Outcome("busy")
        if request.previous and not self._ran(where, request.previous, seen):
            return False
        return True

    def _floor(self, where: _Where, seen: Seen) -> int:
        staged = self._floors.get(where)
        return staged.upto if staged is not None else seen.floor.upto

    def _ran(self, where: _Where, number: int, seen: Seen | None) -> bool:
        if (where, number) in self._new:
            return True
        return seen is not None and (number in seen.rows or number <= self._floor(where, seen))

    def ran(self, request: Request, slot: int, outcome: Outcome, now_ns: int) -> None:
        """The request's turn has run: this is its first outcome."""
        staged = ((request.session, slot), request.number)
        assert staged not in self._new, f"I1: request {request.number} ran twice in one batch"
        self._new[staged] = RequestRow(outcome, now_ns, bool(request.named))
        kept = self._count + len(self._new)
        assert kept <= UNCONFIRMED_MAX, f"I7: {kept} outcomes are kept, {UNCONFIRMED_MAX} at most"

    def confirm(self, session: bytes, upto: int, now_ns: int) -> None:
        """The session holds every outcome up to `upto`: raise the floors of its slots."""
        for slot in self._slots.get(session, ()):
            where = (session, slot)
            seen = self._seen[where]
            if upto > self._floor(where, seen) and any(
                n <= upto and not row.named for n, row in seen.rows.items()
            ):
                self._floors[where] = FloorRow(upto, now_ns)

    def expire(self, now_ns: int) -> None:
        """Forget what is older than its lifetime: a request that old is refused by its age."""
        for where, seen in self._seen.items():
            newest = max((row.time_ns for row in seen.rows.values()), default=0)
            if max(newest, seen.floor.time_ns) < now_ns - LIFETIME_NS:
                self._floors[where] = FloorRow(-1, now_ns)

    def undo(self) -> None:
        """The batch is thrown away."""
        self._new.clear()
        self._floors.clear()

    def rows(self) -> Iterator[Row]:
        """What the batch's commit says of requests."""
        for (where, number), row in self._new.items():
            yield Table.REQUEST, _key(where) + number.to_bytes(8, "big"), _encode(row)
        for where, floor in self._floors.items():
            gone = self._seen[where].rows
            for number in [n for n, row in gone.items() if self._is_over(n, row, floor)]:
                yield Table.REQUEST, _key(where) + number.to_bytes(8, "big"), None
            yield Table.FLOOR, _key(where), None if floor.upto < 0 else _encode(floor)

    @staticmethod
    def _is_over(number: int, row: RequestRow, floor: FloorRow) -> bool:
        return floor.upto < 0 or (number <= floor.upto and not row.named)

    def sealed(self) -> None:
        """The batch counts from now on."""
        for where, floor in self._floors.items():
            seen = self._seen[where]
            before = len(seen.rows)
            seen.rows = {n: r for n, r in seen.rows.items() if not self._is_over(n, r, floor)}
            self._count -= before - len(seen.rows)
            seen.floor = floor
            if floor.upto < 0:
                del self._seen[where]
                self._slots[where[0]].discard(where[1])
                if not self._slots[where[0]]:
                    del self._slots[where[0]]
        for (where, number), row in self._new.items():
            self._at(where).rows[number] = row
            self._count += 1
        self._new.clear()
        self._floors.clear()

    def __len__(self) -> int:
        return self._count
