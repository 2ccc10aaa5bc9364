"""A client's request seen before? Its first outcome, kept with the target's slot.

Requests travel outside the streams and may come twice, late, or by a retry long after.
Three things make each count once: the outcome of every request is in a row of its target's
slot; a floor per session and slot says which requests are over, raised before their rows
are deleted; and a request that is older than half the rows' lifetime is refused, since
"never seen" and "forgotten" look alike.

A row holds what one commit says to the requests of a session to one slot, so that rows are
few when requests are many. Memory holds the sessions that are talking: what they have not
confirmed, up to a bound above which they are refused. Of a session that was silent for a
while the store knows, and memory only where to look. What has an idempotency key is alone
in its session and is looked up in the store at once.

Looked up when the request's turn would run, never at arrival. What a batch adds is
staged until it is sealed. Reads no clock. Idea: docs/clients.md. Asserts I1, I7.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Confirmed, Outcome, Request, Row, Table
from skerry.runtime.core.ownership import Ownership, slot_of
from skerry.runtime.core.tables.table import Stamp, StoredRow
from skerry.runtime.ports import Committed

LIFETIME_NS = 24 * 3600 * 10**9
"""How long the store keeps an outcome that nobody confirms, and one that has a name always."""

IDLE_NS = 60 * 10**9
"""A session that was silent for so long leaves the memory, and so does a request of it that
waits for an earlier one: its client says both again, or is gone."""

OUTCOME_BYTES = 200
"""What it costs in memory to remember a request, beside the bytes of its outcome, about."""

SETTLED_MAX = 4096
"""Of a session's requests that were answered without a row, the newest that are remembered. Only
what was on its way together with one of them may wait for it, and that is no more than this."""

SETTLED_BYTES = 100
"""What each of these costs in memory, about."""


class RequestRow(Struct, array_like=True, frozen=True):
    """First outcomes of one kind: of a session's requests to one slot, from one commit."""

    kind: str
    time_ns: int
    numbers: list[int]
    bodies: list[Raw]
    named: bool = False


class FloorRow(Struct, array_like=True, frozen=True):
    """Requests of the session up to `upto` are over in this slot."""

    upto: int
    time_ns: int


_request_row = msgspec.msgpack.Decoder(RequestRow)
_floor_row = msgspec.msgpack.Decoder(FloorRow)
_encode = msgspec.msgpack.Encoder().encode


def _request_key(slot: int, session: bytes, number: int) -> bytes:
    return slot_prefix(slot) + session + number.to_bytes(8, "big")


def _floor_key(slot: int, session: bytes) -> bytes:
    return slot_prefix(slot) + session


class _Kept:
    """A row of outcomes, or what becomes one when the batch is sealed."""

    __slots__ = ("_told", "bodies", "kind", "numbers", "value")

    def __init__(self, kind: str, numbers: list[int], value: bytes = b"") -> None:
        self.kind, self.numbers = kind, numbers
        self.value = value
        """The row; empty while the batch is open."""
        self.bodies: list[Any] = []
        """What is encoded in it then."""
        self._told: dict[int, Raw] = {}
        """The same by number, once one of them was said again: then all of them are, often."""

    def outcome(self, number: int) -> Outcome:
        """That of one of its requests."""
        if self.bodies:
            body = self.bodies[self.numbers.index(number)]
        else:
            if not self._told:
                self._told = dict(zip(self.numbers, _request_row.decode(self.value).bodies))
            body = self._told[number]
        return Outcome(self.kind, _encode(body))

    @property
    def bytes(self) -> int:
        """What it takes in memory, about."""
        return len(self.value) + OUTCOME_BYTES * len(self.numbers)


class _Floors(dict[int, int]):
    """Slot to floor, of one session; what is not known here is looked up in the store."""

    __slots__ = ("_read", "_session")

    def __init__(self, read: Callable[[int, bytes], bytes | None], session: bytes) -> None:
        self._read, self._session = read, session

    def __missing__(self, slot: int) -> int:
        row = self._read(Table.FLOOR, _floor_key(slot, self._session))
        floor = self[slot] = 0 if row is None else _floor_row.decode(row).upto
        return floor


class Session:
    """What is known of a session that talks."""

    __slots__ = (
        "caller",
        "floors",
        "held",
        "id",
        "kept",
        "named",
        "new",
        "raised",
        "rows",
        "settled",
        "staged",
        "time_ns",
    )

    def __init__(self, id: bytes, named: bool, floors: _Floors, caller: Any) -> None:
        self.id, self.named = id, named
        self.caller = caller
        """Who began it in this memory; None: nobody's bound counts it."""
        self.time_ns = 0
        """When it was last heard of."""
        self.floors = floors
        self.rows: dict[int, _Kept] = {}
        """Outcomes above the floors, by number."""
        self.kept: dict[int, list[_Kept]] = {}
        """The same, by slot."""
        self.new: dict[int, _Kept] = {}
        """Outcomes of the open batch, by number."""
        self.staged: dict[tuple[str, int], _Kept] = {}
        """The same, by kind and slot."""
        self.raised: dict[int, int] = {}
        """Floors that the open batch raises, by slot."""
        self.held: dict[int, dict[int, Request]] = {}
        """Requests that wait for an earlier one: by the number of that, then by their own."""
        self.settled: dict[int, None] = {}
        """Requests that were answered and left no row, oldest first. Not staged: a batch that is
        thrown away answers them again."""

    def floor_of(self, slot: int) -> int:
        """Requests up to this number are over in the slot."""
        return self.raised.get(slot) or self.floors[slot]

    @property
    def blank(self) -> bool:
        """Whether it is as one that was never heard of: the store has nothing of it either."""
        return not (
            self.rows or self.kept or self.held or self.settled or any(self.floors.values())
        )

    def has(self, number: int) -> bool:
        """Whether it was answered, with a row or without."""
        return number in self.new or number in self.rows or number in self.settled


class Requests:
    """The requests seen by a shard, and those of the open batch.

    Args:
        store: answers with the newest sealed rows.
        ownership: knows the slots that are looked through, one after the other.
        session_max: unconfirmed outcomes of one session that are kept at most.
        bytes_max: memory for all of them. At either, what is new is refused (I7).
        held_max: requests that may wait for an earlier one.
        held_bytes_max: their arguments; one may go beyond.
        sessions_max: sessions in memory. Those that were silent longest leave it.
        away_max: sessions that only the store knows: beyond, none is begun.
        caller_max: sessions that one caller has begun and that are in memory.
    """

    ids = (Table.REQUEST,)

    def __init__(
        self,
        store: Committed,
        ownership: Ownership,
        *,
        session_max: int,
        bytes_max: int,
        held_max: int,
        held_bytes_max: int,
        sessions_max: int,
        away_max: int,
        caller_max: int,
    ) -> None:
        self._store, self._ownership = store, ownership
        self._session_max, self._bytes_max = session_max, bytes_max
        self._held_max, self._held_bytes_max = held_max, held_bytes_max
        self._sessions_max, self._away_max = sessions_max, away_max
        self._caller_max = caller_max
        self._sessions: dict[bytes, Session] = {}
        """Those that were silent longest come first."""
        self._begun: dict[Any, int] = {}
        """How many of them a caller has begun."""
        self._away: dict[bytes, set[int]] = {}
        """Sessions that the store knows better: the slots that have rows of theirs."""
        self._open: dict[bytes, Session] = {}
        """Those that the open batch has to do with."""
        self._freed: list[tuple[Session, int]] = []
        """Numbers that have run in the open batch and were waited for."""
        self._expired: list[Row] = []
        self._cut: list[tuple[Session, int]] = []
        """Up to where sessions hold the answers to what left no row."""
        self._looked_through = 0
        self._looked_at: tuple[int, set[bytes]] | None = None
        """The slot that the open batch looks through, and the sessions that have no row in it then."""
        self._idle_before_ns = 0
        self._count = self._bytes = 0
        self._held = self._held_bytes = 0

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Note which sessions have rows in the store."""
        for _, key, value in rows:
            if not _request_row.decode(value).named:
                slot, session = int.from_bytes(key[:2], "big"), bytes(key[2:18])
                self._away.setdefault(session, set()).add(slot)

    # ── sessions ──

    def knows(self, id: bytes) -> bool:
        """Whether anything is remembered of a session."""
        return id in self._sessions or id in self._away

    def admits(self, id: bytes, caller: Any) -> bool:
        """Whether this caller may go on with a session, or begin it (I7)."""
        if self.knows(id):
            return True
        return len(self._away) < self._away_max and self._begun.get(caller, 0) < self._caller_max

    def session(self, id: bytes, *, named: bool, caller: Any = None) -> Session:
        """A session that the open batch has to do with."""
        session = self._sessions.get(id)
        if session is None:
            caller = None if named else caller
            session = Session(id, named, _Floors(self._store.read, id), caller)
            self._sessions[id] = session
            if caller is not None:
                self._begun[caller] = self._begun.get(caller, 0) + 1
            for slot in self._away.pop(id, ()):
                for key, value in self._store.scan(Table.REQUEST, slot_prefix(slot) + id):
                    self._add(session, int.from_bytes(key[:2], "big"), value)
        self._open[id] = session
        return session

    def _add(self, session: Session, slot: int, value: bytes) -> None:
        row = _request_row.decode(value)
        kept = _Kept(row.kind, row.numbers, bytes(value))
        session.kept.setdefault(slot, []).append(kept)
        floor = session.floors[slot]
        session.rows.update((number, kept) for number in row.numbers if number > floor)
        self._count += len(row.numbers)
        self._bytes += kept.bytes

    def _find(self, session: Session, number: int, slot: int) -> _Kept | None:
        """The row that holds a request's outcome."""
        found = session.new.get(number) or session.rows.get(number)
        if found is None and session.named:
            row = self._store.read(Table.REQUEST, _request_key(slot, session.id, number))
            if row is not None:
                found = _Kept(_request_row.decode(row).kind, [number], row)
        return found

    # ── within a batch ──

    def has_room(self, session: Session, count: int) -> bool:
        """Whether so many more outcomes of this session can be remembered."""
        kept = len(session.rows) + len(session.new)
        return session.named or (
            kept + count <= self._session_max and self._bytes < self._bytes_max
        )

    def fresh(
        self, session: Session, numbers: list[int], previous: list[int], slots: Sequence[int]
    ) -> bool:
        """Whether ascending requests are all new, and what each waits for has run, or stands
        before it among them."""
        if session.named or not session.rows.keys().isdisjoint(numbers):
            return False
        if not session.new.keys().isdisjoint(numbers):
            return False
        if not all(map(operator.gt, numbers, map(session.floors.__getitem__, slots))):
            return False
        raised = session.raised
        if raised and not all(map(operator.gt, numbers, map(raised.get, slots, repeat(0)))):
            return False
        waits = set(previous)
        waits.discard(0)
        waits.difference_update(numbers)
        return all(map(session.has, waits))

    def judge(
        self, session: Session, request: Request, slot: int, now_ns: int
    ) -> Outcome | bool | None:
        """An outcome to answer with; True: it runs; False: it waits for `previous`; None: dropped."""
        kept = self._find(session, request.number, slot)
        if kept is not None:
            return kept.outcome(request.number)
        if not session.named and request.number <= session.floor_of(slot):
            return None
        if request.first_ns < now_ns - LIFETIME_NS // 2:
            self.settle(session, request.number)
            return Outcome("late")
        if not self.has_room(session, 1):
            return Outcome("busy")
        previous = request.previous
        if previous and not session.has(previous) and previous > session.floor_of(slot):
            return False
        return True

    def hold(self, session: Session, request: Request) -> bool:
        """Keep a request until the one before it has run. False: there is no room."""
        waiting = session.held.get(request.previous, {})
        if (copy := waiting.get(request.number)) is not None:
            self._release((copy,))  # Its caller came again by another line.
        elif self._held >= self._held_max or self._held_bytes >= self._held_bytes_max:
            return False
        request.args = request.args.copy()  # Alone: not with the whole message that it came in.
        self._held += 1
        self._held_bytes += memoryview(request.args).nbytes
        waiting[request.number] = request
        session.held[request.previous] = waiting
        return True

    def _release(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._held -= 1
            self._held_bytes -= memoryview(request.args).nbytes

    def following(self, session: Session, number: int) -> list[Request]:
        """Those that have waited for this one, which has run."""
        waiting = session.held.get(number)
        if waiting is None:
            return []
        self._freed.append((session, number))
        return list(waiting.values())

    def ran(
        self,
        session: Session,
        kind: str,
        numbers: Sequence[int],
        slots: Sequence[int],
        bodies: Sequence[Any],
    ) -> None:
        """The turns of these requests have run: these are their first outcomes."""
        new, staged = session.new, session.staged
        assert new.keys().isdisjoint(numbers), f"I1: of {numbers[:9]} one ran twice in one batch"
        assert self.has_room(session, len(numbers)), f"I7: {len(session.rows)} outcomes are kept"
        for number, slot, body in zip(numbers, slots, bodies):
            kept = staged.get((kind, slot))
            if kept is None:
                kept = staged[kind, slot] = _Kept(kind, [])
            kept.numbers.append(number)
            kept.bodies.append(body)
            new[number] = kept

    def settle(self, session: Session, number: int) -> None:
        """A request was answered and leaves no row: what follows it need not wait for one."""
        settled = session.settled
        if session.named or number in settled:
            return
        settled[number] = None
        self._bytes += SETTLED_BYTES
        if len(settled) > SETTLED_MAX:
            self._unsettle(session, [next(iter(settled))])

    def confirm(self, confirmed: Confirmed) -> None:
        """The session holds these outcomes: raise the floors of its slots, and keep nothing that
        waits for one of them. What does is a copy of what has run, or comes again by itself."""
        if not self.knows(confirmed.session):
            return
        session = self.session(confirmed.session, named=False)
        upto, below = confirmed.upto, confirmed.below
        for slot, kept in session.kept.items() if not session.named else ():
            floor = min(upto, below.get(slot, upto))
            if floor > session.floor_of(slot) and any(row.numbers[0] <= floor for row in kept):
                session.raised[slot] = floor
        if session.settled:
            self._cut.append((session, min(upto, *below.values()) if below else upto))
        for number, waiting in session.held.items():
            request = next(iter(waiting.values()))
            if number <= min(upto, below.get(slot_of(request.type, request.key), upto)):
                self._freed.append((session, number))

    def expire(self, now_ns: int) -> None:
        """Look through the rows of one slot, another one each time; let go of who is silent."""
        self._idle_before_ns = now_ns - IDLE_NS
        slots = sorted(self._ownership.served)
        if not slots:
            return
        slot = slots[self._looked_through % len(slots)]
        old_ns, prefix = now_ns - LIFETIME_NS, slot_prefix(slot)
        gone: set[bytes] = set()
        left: set[bytes] = set()
        for key, value in self._store.scan(Table.REQUEST, prefix):
            is_old = _request_row.decode(value).time_ns < old_ns
            (gone if is_old else left).add(bytes(key[2:18]))
            if is_old:
                self._expired.append((Table.REQUEST, bytes(key), None))
        for key, value in self._store.scan(Table.FLOOR, prefix):
            if _floor_row.decode(value).time_ns < old_ns:
                self._expired.append((Table.FLOOR, bytes(key), None))
        self._looked_at = slot, gone - left

    def undo(self) -> None:
        """The batch is thrown away."""
        for session in self._open.values():
            session.new, session.staged, session.raised = {}, {}, {}
        self._open.clear()
        self._freed.clear()
        self._cut.clear()
        self._expired.clear()
        self._looked_at, self._idle_before_ns = None, 0

    # ── the end of a batch ──

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """What the batch's commit says of requests."""
        now_ns = stamp.time_ns
        for session in self._open.values():
            for (kind, slot), kept in session.staged.items():
                kept.value = _encode((kind, now_ns, kept.numbers, kept.bodies, session.named))
                yield Table.REQUEST, _request_key(slot, session.id, kept.numbers[0]), kept.value
            for slot, floor in session.raised.items():
                for kept in session.kept[slot]:
                    if max(kept.numbers) <= floor:
                        yield Table.REQUEST, _request_key(slot, session.id, kept.numbers[0]), None
                yield Table.FLOOR, _floor_key(slot, session.id), _encode(FloorRow(floor, now_ns))
        yield from self._expired

    def sealed(self, stamp: Stamp) -> None:
        """The batch counts from now on."""
        for session, number in self._freed:
            self._release(session.held.pop(number, {}).values())
        for session in self._open.values():
            session.time_ns = stamp.time_ns
            for slot, floor in session.raised.items():
                self._raise(session, slot, floor)
            for (_, slot), kept in session.staged.items():
                kept.bodies = []
                session.kept.setdefault(slot, []).append(kept)
                self._count += len(kept.numbers)
                self._bytes += kept.bytes
            session.rows.update(session.new)
            session.new, session.staged, session.raised = {}, {}, {}
            if session.named or session.blank:
                self._let_go(session)
            else:
                self._sessions[session.id] = self._sessions.pop(session.id)
        while len(self._sessions) > self._sessions_max:
            self._let_go(next(iter(self._sessions.values())))
        for session, floor in self._cut:
            self._unsettle(session, [n for n in session.settled if n <= floor])
        self._open.clear()
        self._freed.clear()
        self._cut.clear()
        self._expired.clear()
        if self._looked_at is not None:
            slot, gone = self._looked_at
            self._looked_at, self._looked_through = None, self._looked_through + 1
            for id in gone & self._away.keys():
                self._away[id].discard(slot)
        if self._idle_before_ns:
            self._tidy()

    def _raise(self, session: Session, slot: int, floor: int) -> None:
        session.floors[slot] = floor
        left = []
        for kept in session.kept.pop(slot):
            for number in kept.numbers:
                if number <= floor:
                    session.rows.pop(number, None)
            if max(kept.numbers) > floor:
                left.append(kept)
            else:
                self._count -= len(kept.numbers)
                self._bytes -= kept.bytes
        if left:
            session.kept[slot] = left

    def _unsettle(self, session: Session, numbers: list[int]) -> None:
        for number in numbers:
            del session.settled[number]
        self._bytes -= SETTLED_BYTES * len(numbers)

    def _let_go(self, session: Session) -> None:
        """Leave it to the store."""
        del self._sessions[session.id]
        self._unsettle(session, list(session.settled))
        if session.caller is not None:
            self._begun[session.caller] -= 1
            if not self._begun[session.caller]:
                del self._begun[session.caller]
        for rows in session.kept.values():
            self._count -= sum(len(kept.numbers) for kept in rows)
            self._bytes -= sum(kept.bytes for kept in rows)
        for waiting in session.held.values():
            self._release(waiting.values())
        if session.kept and not session.named:
            self._away[session.id] = set(session.kept)

    def _tidy(self) -> None:
        """Who was silent for long leaves the memory."""
        before_ns, self._idle_before_ns = self._idle_before_ns, 0
        for session in list(self._sessions.values()):
            if session.time_ns < before_ns:
                self._let_go(session)
        for id in [id for id, slots in self._away.items() if not slots]:
            del self._away[id]

    def drop(self, slot: int) -> None:
        """Forget the outcomes of a slot."""
        for session in self._sessions.values():
            for kept in session.kept.pop(slot, ()):
                self._count -= len(kept.numbers)
                self._bytes -= kept.bytes
                for number in kept.numbers:
                    session.rows.pop(number, None)
            session.floors.pop(slot, None)
            for waiting in session.held.values():
                for number in [n for n, r in waiting.items() if slot_of(r.type, r.key) == slot]:
                    self._release((waiting.pop(number),))
        for id in [id for id, slots in self._away.items() if slot in slots]:
            self._away[id].discard(slot)

    def stats(self) -> dict[str, int]:
        """Return how many unconfirmed outcomes, and sessions, are in memory."""
        return {"requests": self._count, "sessions": len(self._sessions)}

    def __len__(self) -> int:
        return self._count
