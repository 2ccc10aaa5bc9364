"""The caller's end: numbers its requests, retries, never doubles.

A connection knows the placement and sends each request straight to the door of its owner.
A request keeps its session, number and first time for ever; without an outcome it is said
again when its door comes back, when the door has a new epoch, or after a while. The shard
remembers first outcomes, so what is said twice runs once. What is confirmed is the longest
run of numbers that all have their outcome: none below it is ever said again.

All on one asyncio loop; requests of one tick leave as one message per door. A connection
outlives its app's restarts: it looks for the app again when its doors are gone.
Implements `skerry.host.Session`. Idea: docs/clients.md. Asserts I1 at the caller's end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import zmq
from msgspec import Struct

from skerry.errors import Unavailable, UnknownEntity, UnknownHandler, as_named
from skerry.runtime.gateway import words
from skerry.runtime.gateway.line import Line
from skerry.runtime.placement_file import Running, running_app
from skerry.runtime.shard.events import Outcome, Request
from skerry.runtime.shard.placement import slot_of

TICK_S = 0.25
"""How often what is overdue is looked for, while anything is."""

RETRY_S = 1.0
"""Without an outcome for so long a request is said again: several times a slow fsync."""

RETRY_MAX_S = 8.0
"""Waiting doubles up to here: a shard that is busy is not helped by being asked."""

WELCOME_S = 10.0
"""How long the workers of a running app may take to come up."""

SLOTS_KNOWN_MAX = 1 << 20
"""Keys whose slot is remembered: about 100 MB at most; past it they are worked out anew."""

_NAMED = 1 << 62
"""Numbers from here on are made from an idempotency key, in a session of its own."""

_log = logging.getLogger("skerry")


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


Done = Callable[[int, Any], None]


class Flight(Struct):
    """Requests said to one door at about one time."""

    numbers: list[int]
    due: float
    """When those without an outcome are said again, on the loop's clock."""
    tries: int


class Door:
    """One shard's door, as a caller sees it."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.line: Line
        self.epoch = 0
        """The epoch that it last said; 0 before its first welcome on this line."""
        self.confirmed = 0
        """What was confirmed to it."""
        self.outgoing: list[Request] = []
        """Requests of this tick."""
        self.flights: list[Flight] = []


class Connection:
    """A caller's session with a running app. Made by `open`."""

    def __init__(self, data: Path, running: Running) -> None:
        self.data, self._running = data, running
        self._loop = asyncio.get_running_loop()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._session = os.urandom(16)
        self._doors: dict[int, Door] = {}
        self._greeting: words.Greeting | None = None
        self._greeted = asyncio.Event()
        self._clock_ns = 0
        """The server's clock less ours, which goes on while the machine sleeps."""
        self._now_ns = 0
        """The server's time at the first request of this tick."""
        self._slots: dict[str, _Slots] = {}
        self._owners: list[Door] = []
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
        self._calls: dict[int, tuple[int, bytes, asyncio.Future[Any]]] = {}
        self._call_number = 0
        self._flushing = False
        self._rerouting = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def open(cls, data: Path) -> Connection:
        """Connect to the app that runs on this data directory. Raises Unavailable."""
        self = cls(data, running_app(data))
        self._connect()
        try:
            async with asyncio.timeout(WELCOME_S):
                await self._greeted.wait()
        except TimeoutError:
            raise Unavailable(
                f"The app in {data} is said to run, as process {self._running.pid}, but no worker "
                f"of it answers. Look at its logs in {data / 'logs'}, or start it again with "
                f"`skerry run`."
            ) from None
        finally:
            if not self._greeted.is_set():
                await self.close()
        return self

    @property
    def greeting(self) -> words.Greeting:
        """What the app last said of itself."""
        assert self._greeting is not None, "a connection is opened before it is used"
        return self._greeting

    @property
    def shards(self) -> list[int]:
        """The shards that hold the app's entities."""
        return list(self.greeting.placement.members)

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

        `named`, 16 bytes, stands for the request over this connection's own end: it makes
        session and number, so that whoever says it again meets the first outcome.

        Raises UnknownEntity, UnknownHandler: the app has none of this name; nothing was sent.
        """
        slots = self._slots.get(type_name)
        if slots is None or handler not in slots.handlers:
            slots = self._offered(type_name, handler)
        slot = slots[key]
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
            self._now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + self._clock_ns
        if named:
            number, session, previous = _NAMED | int.from_bytes(named[:7], "big"), named, 0
        else:
            number, session = self._number + 1, self._session
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
            done = self._join(number, done)
            self._named[number] = request
        else:
            self._pending[number] = request
        self._done[number] = done
        self._owners[slot].outgoing.append(request)
        return number

    def _offered(self, type_name: str, handler: str | None = None) -> _Slots:
        """The slots of a type that the app has. Raises UnknownEntity, UnknownHandler."""
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

    def _join(self, number: int, done: Done) -> Done:
        """One outcome for all that wait for one idempotency key."""
        first = self._done.get(number)
        if first is None:
            return done

        def both(number: int, outcome: Any) -> None:
            first(number, outcome)
            done(number, outcome)

        return both

    def _find(self, number: int) -> Request | None:
        return self._pending.get(number) or self._named.get(number)

    @property
    def _floor(self) -> int:
        """Every request up to here has its outcome: the oldest without one comes first."""
        return next(iter(self._pending), self._number + 1) - 1

    # ── out ──

    def _connect(self) -> None:
        """A line to each door that the app is said to have."""
        for shard in self._running.shards:
            self._door(shard)
        self._arm()

    def _door(self, shard: int) -> Door:
        door = self._doors.get(shard)
        if door is None:
            door = self._doors[shard] = Door(shard)
            door.line = Line(
                self._loop,
                self._context,
                f"{self._running.sockets}/door-{shard}",
                lambda raw: self._heard(door, raw),
                lambda: self._came_up(door),
            )
        return door

    def _flush(self) -> None:
        """One message per door for all requests of this tick of the loop."""
        self._flushing = False
        for door in list(self._doors.values()):
            if door.outgoing:
                requests, door.outgoing = door.outgoing, []
                self._say(door, requests, tries=0)

    def _say(self, door: Door, requests: list[Request], *, tries: int) -> None:
        """Say requests to a door, and remember when to say them again."""
        due = self._loop.time() + min(RETRY_S * 2**tries, RETRY_MAX_S)
        newest = door.flights[-1] if door.flights else None
        numbers = [request.number for request in requests]
        # Due at about the same time is looked at together: a flight per tick, not per flush.
        if newest is not None and newest.tries == tries and due - newest.due < TICK_S:
            newest.numbers += numbers
        else:
            door.flights.append(Flight(numbers, due, tries))
        # While nobody is there nothing is said: all of it is when the door comes up.
        if door.line.up:
            for start in range(0, len(requests), words.ASKS_MAX):
                _say_all(door.line, requests[start : start + words.ASKS_MAX])
        self._arm()

    def _say_again(self, numbers: Iterable[int], *, tries: int) -> None:
        """Say what has no outcome again, to whoever owns it now, in order."""
        by_door: dict[int, list[Request]] = {}
        for number in sorted(numbers):
            request = self._find(number)
            if request is None:
                continue
            # Its outcome is here, so it has run; the slot may have kept no trace of it.
            if request.previous and request.previous not in self._pending:
                request = msgspec.structs.replace(request, previous=0)
            owner = self._owners[slot_of(request.type, request.key)]
            by_door.setdefault(owner.shard, []).append(request)
        for shard, requests in by_door.items():
            self._say(self._doors[shard], requests, tries=tries)

    def _came_up(self, door: Door) -> None:
        """A door is there, for the first time or again; what was said before may be lost."""
        door.epoch = 0
        door.line.say(words.encode(words.Hello()))
        for shard, raw, _ in self._calls.values():
            if shard == door.shard:
                door.line.say(raw)
        if self._greeting is not None:
            self._say_lost(door)

    def _say_lost(self, door: Door) -> None:
        flights, door.flights = door.flights, []
        door.confirmed = 0
        self._say_again((n for flight in flights for n in flight.numbers), tries=0)

    # ── in ──

    def _heard(self, door: Door, raw: bytes) -> None:
        """One message from a door."""
        try:
            word = words.decode_word(raw)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            _log.warning("shard %d of %s says what can't be read: %s", door.shard, self.data, error)
            return
        match word:
            case words.Outcomes(pairs):
                for number, outcome in pairs:
                    self._outcome(door, number, outcome)
            case words.Welcome(greeting):
                self._welcomed(door, greeting)
            case words.Answer(n, value):
                self._answered(n, value)
            case words.Refusal(0, _, text):
                _log.warning("shard %d of %s refuses a message: %s", door.shard, self.data, text)
            case words.Refusal(n, name, text):
                self._answered(n, as_named(name, text))

    def _outcome(self, door: Door, number: int, outcome: Outcome) -> None:
        if outcome.kind == "busy":
            return  # Nothing ran; it is said again in a while.
        if outcome.kind == "moved":
            door.line.say(words.encode(words.Hello()))
            return
        requests = self._named if number >= _NAMED else self._pending
        if requests.pop(number, None) is not None:
            self._done.pop(number)(number, outcome)

    def _welcomed(self, door: Door, greeting: words.Greeting) -> None:
        before = self._greeting
        if before is not None and before.incarnation != greeting.incarnation:
            self._start_anew()
        moved = before is not None and before.placement.version < greeting.placement.version
        if before is None or greeting.placement.version >= before.placement.version:
            self._adopt(greeting)
        self._clock_ns = greeting.now_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        restarted = door.epoch not in (0, greeting.epoch)
        door.epoch = greeting.epoch
        self._greeted.set()
        if moved or self._rerouting:
            self._rerouting = False
            for each in self._doors.values():
                each.flights = []
            self._say_again([*self._pending, *self._named], tries=0)
        elif restarted:
            self._say_lost(door)

    def _adopt(self, greeting: words.Greeting) -> None:
        """What the app says of itself now: what it offers, and who owns what."""
        before, self._greeting = self._greeting, greeting
        if before is None or before.types != greeting.types:
            self._slots = {}
        if before is None or self._rerouting or before.placement != greeting.placement:
            self._owners = [self._door(shard) for shard in greeting.placement.slots]

    def _start_anew(self) -> None:
        """The app's data is another's, or a backup's: what it knows of us is not what we know."""
        self._session = os.urandom(16)
        self._give_up()

    def _give_up(self) -> None:
        """Nothing more will be heard of what was asked."""
        lost, self._done = self._done, {}
        self._pending.clear()
        self._named.clear()
        for number, done in lost.items():
            done(number, Outcome("late"))

    # ── calls that are no requests ──

    async def control(self, shard: int, kind: str, *args: Any, timeout: float = 30) -> Any:
        """Ask a worker itself: status, count, scan, get, dead, control.

        Raises Unavailable when it does not answer in time, else what it answers with.
        """
        self._call_number += 1
        n = self._call_number
        raw = words.encode([kind, n, *args])
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._calls[n] = (shard, raw, answer)
        self._door(shard).line.say(raw)
        self._arm()
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError:
            raise Unavailable(
                f"Shard {shard} of the app in {self.data} did not answer `{kind}` within "
                f"{timeout:g} s. Look at its logs in {self.data / 'logs'}."
            ) from None
        finally:
            del self._calls[n]

    def _answered(self, n: int, value: Any) -> None:
        call = self._calls.get(n)
        if call is None or call[2].done():
            return
        if isinstance(value, Exception):
            call[2].set_exception(value)
        else:
            call[2].set_result(value)

    async def get(self, type_name: str, key: str) -> tuple[bytes | None, bytes | None]:
        """The last committed state and its schema, None when there is none."""
        owner = self._owners[self._offered(type_name)[key]]
        state, schema = await self.control(owner.shard, "get", type_name, key)
        return state, schema

    async def scan(
        self, type_name: str, prefix: str, shard: int, after: str
    ) -> tuple[list[tuple[str, bytes]], dict[int, bytes | None]]:
        """A page of (key, state) of one shard behind `after`, and the schemas of the states."""
        self._offered(type_name)
        rows, schemas = await self.control(shard, "scan", type_name, prefix, after, words.PAGE_ROWS)
        return rows, schemas

    # ── time ──

    def _arm(self) -> None:
        if self._timer is None and not self._closed:
            self._timer = self._loop.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        """Say again what is overdue, confirm what is held, look for an app that is gone."""
        self._timer = None
        now = self._loop.time()
        for door in list(self._doors.values()):
            due = [flight for flight in door.flights if flight.due <= now]
            if door.line.up and due:
                door.flights = [flight for flight in door.flights if flight.due > now]
                for flight in due:
                    late = [number for number in flight.numbers if self._find(number)]
                    if late:
                        # Its welcome tells whether it has forgotten them, or is slow.
                        door.line.say(words.encode(words.Hello()))
                        self._say_again(late, tries=flight.tries + 1)
            self._confirm(door)
        away = not all(door.line.up for door in self._doors.values())
        if away:
            self._look_again()
        if away or self._calls or self._pending or self._named:
            self._arm()

    def _confirm(self, door: Door) -> None:
        floor = self._floor
        if floor > door.confirmed and door.line.say(
            words.encode(words.Confirm(self._session, floor))
        ):
            door.confirmed = floor

    def _look_again(self) -> None:
        """The app may have been started anew, with other sockets."""
        try:
            running = running_app(self.data)
        except Unavailable:
            return  # It may come back; how long that is waited for is the callers' affair.
        if running.sockets != self._running.sockets:
            for door in self._doors.values():
                door.line.close()
            self._running, self._doors, self._rerouting = running, {}, True
            self._connect()

    async def close(self) -> None:
        """Confirm what is held and let go. Who still waits gets Unavailable."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for door in self._doors.values():
            if self._greeting is not None and door.line.up:
                self._confirm(door)
            door.line.close()
        for _, _, answer in self._calls.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"The connection to {self.data} was closed."))
        # Last words may take a moment to leave; the loop is not made to wait for them.
        await self._loop.run_in_executor(None, self._context.term)


def _say_all(line: Line, requests: list[Request]) -> None:
    """Requests as one message, or as several when they are large."""
    raw = words.encode(words.Asks(requests))  # type: ignore[arg-type]
    if len(raw) > words.PACKET_BYTES_MAX and len(requests) > 1:
        half = len(requests) // 2
        _say_all(line, requests[:half])
        _say_all(line, requests[half:])
    else:
        line.say(raw)
