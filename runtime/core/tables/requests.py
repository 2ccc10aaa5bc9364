"""A client's request seen before? Its first outcome, kept with the target's slot.

Requests travel outside the streams and may come twice, late, or by a retry long after.
Three things make each count once: the outcome of every request is in a row of its target's
slot; a low-water mark per session and slot says which requests are over, raised before their
rows are deleted; and a request that is older than half the rows' lifetime is refused, since
"never seen" and "forgotten" look alike.

A row holds what one commit says to the requests of a session to one slot, so that rows are
few when requests are many. Memory holds the sessions that are talking: what they have not
confirmed, up to a bound above which they are refused. Of a session that was silent for a
while, or forgotten to make room, memory knows only in which slots the store has rows of it.

Looked up when the request's turn would run, never at arrival. What a batch adds is staged
until it is sealed. Reads no clock. Idea: docs/ideas/clients.md. Asserts I1, I7.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from skerry.runtime.core.commit import slot_in, slot_prefix
from skerry.runtime.core.events import Confirmed, Outcome, Request, RequestRun, Row, Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.tables.retention import looked_through, too_old
from skerry.runtime.core.tables.sessions import Remembered, Session
from skerry.runtime.core.tables.table import Stamp, StoredRow
from skerry.runtime.core.tables.waiting import Waiting
from skerry.runtime.ports import Committed

IDLE_NS = 60 * 10**9
"""A session that was silent for so long leaves the memory, and so does a request of it that
waits for an earlier one: its client says both again, or is gone."""

SETTLED_MAX = 4096
"""Settled requests of a session that are remembered, the newest. Only what was on its way together
with one of them may wait for it, and that is no more than this."""

SETTLED_BYTES = 100
"""Memory for a settled request, about."""


class FloorRow(Struct, array_like=True, frozen=True):
    """A row of the FLOOR table: requests of the session up to `upto` are over in this slot."""

    upto: int
    time_ns: int


_floor_row = msgspec.msgpack.Decoder(FloorRow)
_encode = msgspec.msgpack.Encoder().encode


def _request_key(slot: int, session: bytes, number: int) -> bytes:
    return slot_prefix(slot) + session + number.to_bytes(8, "big")


def _floor_key(slot: int, session: bytes) -> bytes:
    return slot_prefix(slot) + session


def _place_of(key: bytes) -> tuple[int, bytes]:
    """The slot and the session in the key of a row."""
    return slot_in(key), bytes(key[2:18])


class Requests:
    """The requests seen by a shard, and those of the open batch.

    Args:
        store: answers with the newest sealed rows.
        limits: bounds sessions, outcomes and waiting requests. Beyond, what is new is refused (I7).
    """

    ids = (Table.REQUEST,)

    def __init__(self, store: Committed, limits: Limits) -> None:
        self._store, self._limits = store, limits
        self.waiting = Waiting(limits)
        self._sessions: dict[bytes, Session] = {}
        """Those that were silent longest come first."""
        self._begun: dict[Any, int] = {}
        """How many of them a caller has begun."""
        self._away: dict[bytes, set[int]] = {}
        """Sessions that only the store knows: the slots that have rows of theirs."""
        self._open: dict[bytes, Session] = {}
        """Sessions that the open batch has to do with."""
        self._deferred: list[Callable[[], None]] = []
        """What the open batch does to memory when it is sealed."""
        self._expired: list[Row] = []
        self._idle_before_ns = 0
        self._count = self._bytes = 0

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Note which sessions have rows in the store."""
        for _, key, _ in rows:
            slot, id = _place_of(key)
            if (session := self._sessions.get(id)) is not None:
                self._evict(session)  # What it is told next is read with these rows.
            self._away.setdefault(id, set()).add(slot)

    # ── sessions ──

    def knows(self, id: bytes) -> bool:
        """Whether anything is remembered of a session."""
        return id in self._sessions or id in self._away

    def admits(self, id: bytes, caller: Any) -> bool:
        """Whether this caller may go on with a session, or begin it (I7)."""
        if self.knows(id):
            return True
        begun = self._begun.get(caller, 0)
        limits = self._limits
        return len(self._away) < limits.sessions_away_max and begun < limits.sessions_of_caller_max

    def session(self, id: bytes, *, caller: Any = None) -> Session:
        """Return a session that the open batch has to do with."""
        session = self._sessions.get(id)
        if session is None:
            session = self._sessions[id] = Session(id, caller, partial(self._low_water, id))
            if caller is not None:
                self._begun[caller] = self._begun.get(caller, 0) + 1
            for slot in self._away.pop(id, ()):
                for _, value in self._store.scan(Table.REQUEST, slot_prefix(slot) + id):
                    row, mark = Remembered.stored(bytes(value)), session.low_water[slot]
                    session.kept.setdefault(slot, []).append(row)
                    session.rows.update((number, row) for number in row.numbers if number > mark)
            for rows in session.kept.values():
                self._gain(rows)
        self._open[id] = session
        return session

    def _low_water(self, id: bytes, slot: int) -> int:
        row = self._store.read(Table.FLOOR, _floor_key(slot, id))
        return 0 if row is None else _floor_row.decode(row).upto

    def _gain(self, rows: Iterable[Remembered]) -> None:
        for row in rows:
            self._count += len(row.numbers)
            self._bytes += row.bytes

    def _lose(self, rows: Iterable[Remembered]) -> None:
        for row in rows:
            self._count -= len(row.numbers)
            self._bytes -= row.bytes

    # ── within a batch ──

    def has_room(self, session: Session, count: int) -> bool:
        """Whether so many more outcomes of this session can be remembered."""
        kept = len(session.rows) + len(session.new)
        limits = self._limits
        return (
            kept + count <= limits.session_outcomes_max and self._bytes < limits.outcomes_bytes_max
        )

    def fresh(self, session: Session, run: RequestRun, slots: Sequence[int], now_ns: int) -> bool:
        """Whether ascending requests may all run, one after the other: `judge` would say so of each."""
        return not (
            session.seen(run.numbers)
            or session.over(run.numbers, slots)
            or too_old(run.first_ns, now_ns)
            or not self.has_room(session, len(slots))
            or session.waits(run.numbers, run.previous, slots)
        )

    def judge(
        self, session: Session, request: Request, slot: int, now_ns: int
    ) -> Outcome | bool | None:
        """Return an outcome to answer with; True: it runs; False: it waits for the one before it;
        None: it is dropped."""
        numbers, slots = (request.number,), (slot,)
        if session.seen(numbers):
            return session.outcome(request.number)
        if session.over(numbers, slots):
            return None
        if too_old(request.first_ns, now_ns):
            self.settle(session, request.number)
            return Outcome("late")
        if not self.has_room(session, 1):
            return Outcome("busy")
        return not session.waits(numbers, (request.previous,), slots)

    def ran(
        self,
        session: Session,
        kind: str,
        numbers: Sequence[int],
        slots: Sequence[int],
        bodies: Sequence[Any],
    ) -> None:
        """Remember the first outcomes of requests whose turns have run."""
        assert self.has_room(session, len(numbers)), f"I7: {len(session.rows)} outcomes are kept"
        session.ran(kind, numbers, slots, bodies)

    def settle(self, session: Session, number: int) -> None:
        """Note that a request was answered and leaves no row: what follows it need not wait for one."""
        settled = session.settled
        if number not in settled:
            settled[number] = None
            self._bytes += SETTLED_BYTES
            if len(settled) > SETTLED_MAX:
                self._unsettle(session, [next(iter(settled))])

    def _unsettle(self, session: Session, numbers: Iterable[int]) -> None:
        for number in numbers:
            del session.settled[number]
            self._bytes -= SETTLED_BYTES

    def _unsettle_upto(self, session: Session, mark: int) -> None:
        self._unsettle(session, [number for number in session.settled if number <= mark])

    def following(self, session: Session, number: int) -> list[Request]:
        """Return the requests that have waited for this one, which has run."""
        waiting = session.held.get(number)
        if waiting is None:
            return []
        self._deferred.append(partial(self.waiting.free, session, number))
        return list(waiting.values())

    def confirm(self, confirmed: Confirmed) -> None:
        """Raise the marks of a session, which holds these outcomes, and keep nothing that waits for
        one of them: that is a copy of what has run, or comes again by itself."""
        if not self.knows(confirmed.session):
            return
        session = self.session(confirmed.session)
        upto, below = confirmed.upto, confirmed.below
        for slot, rows in session.kept.items():
            mark = min(upto, below.get(slot, upto))
            if mark > session.mark(slot) and any(row.numbers[0] <= mark for row in rows):
                session.raised[slot] = mark
        if session.settled:
            mark = min(upto, *below.values()) if below else upto
            self._deferred.append(partial(self._unsettle_upto, session, mark))
        for number, waiting in session.held.items():
            request = next(iter(waiting.values()))
            if number <= min(upto, below.get(slot_of(request.type, request.key), upto)):
                self._deferred.append(partial(self.waiting.free, session, number))

    def expire(self, slot: int, now_ns: int) -> None:
        """Look for old rows in a slot, and for sessions that were silent for long."""
        self._idle_before_ns = now_ns - IDLE_NS
        gone, left = list[bytes](), set[bytes]()
        for key, expired in looked_through(self._store, Table.REQUEST, slot, now_ns):
            if expired:
                gone.append(key)
            else:
                left.add(key[2:18])
        marks = looked_through(self._store, Table.FLOOR, slot, now_ns)
        self._expired = [(Table.REQUEST, key, None) for key in gone]
        self._expired += [(Table.FLOOR, key, None) for key, expired in marks if expired]
        ids = {key[2:18] for key in gone} - left
        self._deferred.append(partial(self._forget_away, slot, ids))

    def _forget_away(self, slot: int, ids: Iterable[bytes]) -> None:
        """Memory need not know any more that the slot has rows of these sessions."""
        for id in ids:
            slots = self._away.get(id)
            if slots is not None:
                slots.discard(slot)
                if not slots:
                    del self._away[id]

    # ── the end of a batch ──

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes."""
        now_ns = stamp.time_ns
        for session in self._open.values():
            for (kind, slot), row in session.staged.items():
                row.value = _encode((kind, now_ns, row.numbers, row.bodies))
                yield Table.REQUEST, _request_key(slot, session.id, row.numbers[0]), row.value
            for slot, mark in session.raised.items():
                for row in session.kept[slot]:
                    if max(row.numbers) <= mark:
                        yield Table.REQUEST, _request_key(slot, session.id, row.numbers[0]), None
                value = _encode(FloorRow(mark, now_ns))
                yield Table.FLOOR, _floor_key(slot, session.id), value
        yield from self._expired

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for change in self._deferred:
            change()
        for session in self._open.values():
            self._seal(session, stamp.time_ns)
        while len(self._sessions) > self._limits.sessions_max:
            self._evict(next(iter(self._sessions.values())))
        for session in list(self._sessions.values()) if self._idle_before_ns else ():
            if session.time_ns < self._idle_before_ns:
                self._evict(session)
        self._end()

    def _seal(self, session: Session, now_ns: int) -> None:
        session.time_ns = now_ns
        for slot, mark in session.raised.items():
            self._raise(session, slot, mark)
        for (_, slot), row in session.staged.items():
            row.bodies = []
            session.kept.setdefault(slot, []).append(row)
        self._gain(session.staged.values())
        session.rows.update(session.new)
        session.unstage()
        if session.blank:
            self._evict(session)
        else:
            self._sessions[session.id] = self._sessions.pop(session.id)

    def _raise(self, session: Session, slot: int, mark: int) -> None:
        session.low_water[slot] = mark
        over, left = list[Remembered](), list[Remembered]()
        for row in session.kept.pop(slot):
            (left if max(row.numbers) > mark else over).append(row)
            for number in row.numbers:
                if number <= mark:
                    session.rows.pop(number, None)
        if left:
            session.kept[slot] = left
        self._lose(over)

    def _evict(self, session: Session) -> None:
        """Leave a session to the store."""
        del self._sessions[session.id]
        self._bytes -= SETTLED_BYTES * len(session.settled)
        if session.caller is not None:
            self._begun[session.caller] -= 1
            if not self._begun[session.caller]:
                del self._begun[session.caller]
        for rows in session.kept.values():
            self._lose(rows)
        self.waiting.free_all(session)
        if session.kept:
            self._away[session.id] = set(session.kept)

    def undo(self) -> None:
        """Forget the batch's changes."""
        for session in self._open.values():
            session.unstage()
        self._end()

    def _end(self) -> None:
        self._open.clear()
        self._deferred.clear()
        self._expired = []
        self._idle_before_ns = 0

    # ── between batches ──

    def drop(self, slot: int) -> None:
        """Forget the outcomes, marks and waiting requests of a slot."""
        for session in self._sessions.values():
            session.low_water.pop(slot, None)
            rows = session.kept.pop(slot, ())
            self._lose(rows)
            for row in rows:
                for number in row.numbers:
                    session.rows.pop(number, None)
            for number, waiting in list(session.held.items()):
                if any(slot_of(request.type, request.key) == slot for request in waiting.values()):
                    self.waiting.free(session, number)
        keys = self._store.scan(Table.REQUEST, slot_prefix(slot))
        self._forget_away(slot, {_place_of(key)[1] for key, _ in keys})

    def stats(self) -> dict[str, int]:
        """Return how many unconfirmed outcomes, and sessions, are in memory."""
        return {"requests": self._count, "sessions": len(self._sessions)}
