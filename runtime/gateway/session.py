"""The caller's end of exactly once: numbers requests, says them again, never doubles.

A session knows the placement and says each request to the door of its owner. A request keeps
its session, number and first time for ever; without an outcome it is said again when its door
comes back, when the door has a new epoch, or after a while. The shard remembers first outcomes,
so what is said twice runs once. What is confirmed is the longest run of numbers that all have
their outcome: none below it is ever said again.

No socket, no clock: `connection.py` drives it over real lines, the simulator over lines that
break. Requests of one tick leave as one message per door.
Idea: docs/clients.md. Asserts I1 at the caller's end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import msgspec
import xxhash
from msgspec import Struct

from skerry.errors import UnknownEntity, UnknownHandler
from skerry.runtime.gateway import words
from skerry.runtime.shard.events import Outcome, Request
from skerry.runtime.shard.placement import slot_of

RETRY_S = 1.0
"""Without an outcome for so long a request is said again: several times a slow fsync."""

RETRY_MAX_S = 8.0
"""Waiting doubles up to here: a shard that is busy is not helped by being asked."""

TOGETHER_S = 0.25
"""What is due within so long of each other is looked at together."""

SLOTS_KNOWN_MAX = 1 << 20
"""Keys whose slot is remembered: about 100 MB at most; past it they are worked out anew."""

_NAMED = 1 << 62
"""Numbers from here on are made from an idempotency key, in a session of its own."""

Done = Callable[[int, Any], None]


class Lines(Protocol):
    """What a session speaks by: a line to each door. A line promises nothing."""

    def say(self, shard: int, raw: bytes) -> bool:
        """Send to a door; False when nobody is connected. Nothing is queued for later."""
        ...

    def up(self, shard: int) -> bool:
        """Whether somebody is connected; if not, `Session.came_up` is called when there is."""
        ...

    def begin(self) -> None:
        """The first request of a tick: have `Session.flush` called soon."""
        ...

    def clock_ns(self) -> int:
        """A clock of ours that is never set, and goes on while the machine sleeps."""
        ...


class _Slots(dict[str, int]):
    """Key to slot, for one entity type; and its handlers. A missing key is worked out."""

    def __init__(self, type_name: str, handlers: Iterable[str]) -> None:
        super().__init__()
        self.handlers = frozenset(handlers)
        self._type = type_name

    def __missing__(self, key: str) -> int:
        if len(self) >= SLOTS_KNOWN_MAX:
            self.clear()
        slot = self[key] = slot_of(self._type, key)
        return slot


class _Flight(Struct):
    """Requests said to one door at about one time."""

    numbers: list[int]
    due_s: float
    """When those without an outcome are said again."""
    tries: int


class _Door:
    """One shard's door, as a caller sees it."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.epoch = 0
        """The epoch that it last said; 0 before its first welcome on this line."""
        self.confirmed = 0
        """What was confirmed to it."""
        self.outgoing: list[Request] = []
        """Requests of this tick."""
        self.flights: list[_Flight] = []


class Session:
    """A caller's numbered requests. Times are seconds of a clock that is never set.

    Args:
        id: 16 random bytes.
        lines: to the doors.
    """

    def __init__(self, id: bytes, lines: Lines) -> None:
        self.id, self._lines = id, lines
        self.greeting: words.Greeting | None = None
        """What the app last said of itself; nothing can be asked before."""
        self._doors: dict[int, _Door] = {}
        self._clock_ns = 0
        """The server's clock less ours."""
        self._now_ns = 0
        """The server's time at the first request of this tick."""
        self._slots: dict[str, _Slots] = {}
        self._owners: list[_Door] = []
        """The door of each slot's owner."""
        self._number = 0
        self._pending: dict[int, Request] = {}
        """Requests without an outcome, by number, in order."""
        self._named: dict[int, Request] = {}
        """Those with an idempotency key."""
        self._done: dict[int, Done] = {}
        """Who waits for which."""
        self._latest: dict[int, int] = {}
        """The newest request to each slot that changes something."""
        self._flushing = False
        self._rerouting = False

    @property
    def waits(self) -> bool:
        """Whether any request has no outcome."""
        return bool(self._pending or self._named)

    # ── requests ──

    def request(
        self,
        type_name: str,
        key: str,
        handler: str,
        args: bytes,
        done: Done,
        *,
        reply: bool = True,
        query: bool = False,
        named: bytes = b"",
    ) -> int:
        """Send a request; `done` gets its number and `Outcome`, once. Returns its number.

        `named`, 16 bytes, stands for the request over this session's own end: it makes session
        and number, so that whoever says it again meets the first outcome.

        Raises UnknownEntity, UnknownHandler: the app has none of this name; nothing was sent.
        """
        slots = self._slots.get(type_name)
        if slots is None or handler not in slots.handlers:
            slots = self._offered(type_name, handler)
        slot = slots[key]
        if not self._flushing:
            self._flushing = True
            self._now_ns = self._lines.clock_ns() + self._clock_ns
            self._lines.begin()
        if named:
            number, session, previous = _NAMED | int.from_bytes(named[:7], "big"), named, 0
        else:
            number, session = self._number + 1, self.id
            self._number = number
            # The slot holds this request until its session's one before it has run. A query
            # leaves no row behind, so nothing may wait for one.
            previous = self._latest.get(slot, 0)
            if previous not in self._pending:
                previous = 0
            if not query:
                self._latest[slot] = number
        now_ns = self._now_ns
        request = Request(
            session, number, previous, 0, now_ns, type_name, key, handler, args, reply, named
        )
        if named:
            waiting = self._done.get(number)
            if waiting is not None:  # It is on its way: one copy is enough for all who wait.
                self._done[number] = _both(waiting, done)
                return number
            self._named[number] = request
        else:
            self._pending[number] = request
        self._done[number] = done
        self._owners[slot].outgoing.append(request)
        return number

    def owner(self, type_name: str, key: str) -> int:
        """The shard of an entity. Raises UnknownEntity."""
        return self._owners[self._offered(type_name)[key]].shard

    def _offered(self, type_name: str, handler: str | None = None) -> _Slots:
        """The slots of a type that the app has. Raises UnknownEntity, UnknownHandler."""
        assert self.greeting is not None, "a session is greeted before it is used"
        types = self.greeting.types
        known = types.get(type_name)
        if known is None:
            raise UnknownEntity(type_name, types)
        if handler is not None and handler not in known:
            raise UnknownHandler(type_name, handler, known)
        slots = self._slots.get(type_name)
        if slots is None:
            slots = self._slots[type_name] = _Slots(type_name, known)
        return slots

    def _find(self, number: int) -> Request | None:
        return self._pending.get(number) or self._named.get(number)

    @property
    def _floor(self) -> int:
        """Every request up to here has its outcome: the oldest without one comes first."""
        return next(iter(self._pending), self._number + 1) - 1

    # ── out ──

    def _door(self, shard: int) -> _Door:
        door = self._doors.get(shard)
        if door is None:
            door = self._doors[shard] = _Door(shard)
        return door

    def flush(self, now_s: float) -> None:
        """One message per door for all requests since the last flush."""
        self._flushing = False
        for door in list(self._doors.values()):
            if door.outgoing:
                requests, door.outgoing = door.outgoing, []
                self._say(door, requests, now_s, tries=0)

    def _say(self, door: _Door, requests: list[Request], now_s: float, *, tries: int) -> None:
        """Say requests to a door, and remember when to say them again."""
        due_s = now_s + min(RETRY_S * 2**tries, RETRY_MAX_S)
        newest = door.flights[-1] if door.flights else None
        numbers = [request.number for request in requests]
        # A flight per tick, not per flush.
        if newest is not None and newest.tries == tries and due_s - newest.due_s < TOGETHER_S:
            newest.numbers += numbers
        else:
            door.flights.append(_Flight(numbers, due_s, tries))
        # While nobody is there nothing is said: all of it is when the door comes up.
        if self._lines.up(door.shard):
            for start in range(0, len(requests), words.ASKS_MAX):
                self._say_all(door.shard, requests[start : start + words.ASKS_MAX])

    def _say_all(self, shard: int, requests: list[Request]) -> None:
        """Requests as one message, or as several when they are large."""
        raw = words.encode(words.Asks(requests))  # type: ignore[arg-type]
        if len(raw) > words.PACKET_BYTES_MAX and len(requests) > 1:
            half = len(requests) // 2
            self._say_all(shard, requests[:half])
            self._say_all(shard, requests[half:])
        else:
            self._lines.say(shard, raw)

    def _say_again(self, numbers: Iterable[int], now_s: float, *, tries: int) -> None:
        """Say what has no outcome again, to whoever owns it now, in order."""
        by_door: dict[int, list[Request]] = {}
        for number in sorted(set(numbers)):
            request = self._find(number)
            if request is None:
                continue
            # Its outcome is here, so it has run; the slot may have kept no trace of it.
            if request.previous and request.previous not in self._pending:
                request = msgspec.structs.replace(request, previous=0)
            owner = self._owners[slot_of(request.type, request.key)]
            by_door.setdefault(owner.shard, []).append(request)
        for shard, requests in by_door.items():
            self._say(self._doors[shard], requests, now_s, tries=tries)

    def _hello(self, shard: int) -> None:
        self._lines.say(shard, words.encode(words.Hello()))

    def _say_lost(self, door: _Door, now_s: float) -> None:
        flights, door.flights = door.flights, []
        door.confirmed = 0
        self._say_again((n for flight in flights for n in flight.numbers), now_s, tries=0)

    # ── in ──

    def came_up(self, shard: int, now_s: float) -> None:
        """A door is there, for the first time or again; what was said before may be lost."""
        door = self._door(shard)
        door.epoch = 0
        self._hello(shard)
        if self.greeting is not None:
            self._say_lost(door, now_s)

    def heard(self, shard: int, word: words.Outcomes | words.Welcome, now_s: float) -> None:
        """What a door says of requests, or of itself."""
        door = self._door(shard)
        if isinstance(word, words.Welcome):
            self._welcomed(door, word.greeting, now_s)
            return
        for number, outcome in word.pairs:
            self._outcome(door, number, outcome)

    def _outcome(self, door: _Door, number: int, outcome: Outcome) -> None:
        if outcome.kind == "busy":
            return  # Nothing ran; it is said again in a while.
        if outcome.kind == "moved":
            self._hello(door.shard)
            return
        requests = self._named if number >= _NAMED else self._pending
        if requests.pop(number, None) is not None:
            self._done.pop(number)(number, outcome)

    def _welcomed(self, door: _Door, greeting: words.Greeting, now_s: float) -> None:
        before = self.greeting
        if before is not None and before.incarnation != greeting.incarnation:
            self._start_anew(greeting.incarnation)
        moved = before is not None and before.placement.version < greeting.placement.version
        if before is None or greeting.placement.version >= before.placement.version:
            self._adopt(greeting)
        self._clock_ns = greeting.now_ns - self._lines.clock_ns()
        restarted = door.epoch not in (0, greeting.epoch)
        door.epoch = greeting.epoch
        if moved or self._rerouting:
            self._rerouting = False
            for each in self._doors.values():
                each.flights = []
            self._say_again([*self._pending, *self._named], now_s, tries=0)
        elif restarted:
            self._say_lost(door, now_s)

    def _adopt(self, greeting: words.Greeting) -> None:
        """What the app says of itself now: what it offers, and who owns what."""
        before, self.greeting = self.greeting, greeting
        if before is None or before.types != greeting.types:
            self._slots = {}
        if before is None or self._rerouting or before.placement != greeting.placement:
            self._owners = [self._door(shard) for shard in greeting.placement.slots]

    def _start_anew(self, incarnation: bytes) -> None:
        """The app's data is another's, or a backup's: what it knows of us is not what we know."""
        self.id = xxhash.xxh3_128_digest(self.id + incarnation)
        for door in self._doors.values():
            door.outgoing, door.flights, door.confirmed = [], [], 0
        lost, self._done = self._done, {}
        self._pending.clear()
        self._named.clear()
        for number, done in lost.items():
            done(number, Outcome("late"))

    def reroute(self) -> None:
        """The app was started anew with other doors: all is said again when one has welcomed us."""
        self._doors, self._rerouting = {}, True

    # ── time ──

    def tick(self, now_s: float) -> None:
        """Say again what is overdue, confirm what is held."""
        for door in list(self._doors.values()):
            due = [flight for flight in door.flights if flight.due_s <= now_s]
            if self._lines.up(door.shard) and due:
                door.flights = [flight for flight in door.flights if flight.due_s > now_s]
                for flight in due:
                    late = [number for number in flight.numbers if self._find(number)]
                    if late:
                        # Its welcome tells whether it has forgotten them, or is slow.
                        self._hello(door.shard)
                        self._say_again(late, now_s, tries=flight.tries + 1)
            self._confirm(door)

    def _confirm(self, door: _Door) -> None:
        floor = self._floor
        if floor > door.confirmed:
            raw = words.encode(words.Confirm(self.id, floor))
            if self._lines.say(door.shard, raw):
                door.confirmed = floor

    def close(self) -> None:
        """Confirm what is held."""
        if self.greeting is not None:
            for door in self._doors.values():
                if self._lines.up(door.shard):
                    self._confirm(door)


def _both(first: Done, second: Done) -> Done:
    """One outcome for two that wait for it."""

    def both(number: int, outcome: Any) -> None:
        first(number, outcome)
        second(number, outcome)

    return both
