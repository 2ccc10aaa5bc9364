"""The caller's end of exactly once: numbers requests, says them again, never doubles.

    request -> waits for its door -> said, with a number -> outcome -> told
                    ^                     |
                    +---- line broke, door restarted or busy, slot moved

A session knows the placement and says each request to the door of its owner. From when it is
first said a request keeps its session, number and time for ever. A line that holds loses nothing,
so a request is said again when its line broke, its door has a new epoch or was busy, or its slot
moved, and not because an answer takes long: who is slow is not helped by being asked twice. The
shard remembers first outcomes, so what is said twice runs once.

How much each door gets at once, and when it is left alone, is told by `door.py`.

What is confirmed are the outcomes that are held: up to the newest number, but in a slot with an
open request only up to that. None at or below such a floor is ever said again.

No socket, no clock: `connection.py` drives it over real lines, the simulator over lines that
break. Requests of one tick leave as one message per door, as runs of one handler.
Idea: docs/clients.md. Asserts I1 at the caller's end.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from itertools import chain
from typing import Any, Protocol

import xxhash
from msgspec import Raw

from skerry.errors import UnknownEntity, UnknownHandler
from skerry.runtime.client.window import (
    Done,
    Door,
    Kind,
    Pending,
    number_of,
)
from skerry.runtime.core.events import Outcome, RequestRun
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.gateway import protocol

SLOTS_KNOWN_MAX = 1 << 20
"""Keys whose slot is remembered: about 100 MB at most; past it they are worked out anew."""

_NAMED = 1 << 62
"""Numbers from here on are made from an idempotency key, in a session of its own."""

WAITED = Outcome("waited")
"""What a caller is told whose patience has ended: the request was said, its outcome is unknown."""

UNKNOWN = Outcome("late")
"""The same, and there is nothing left to wait for."""

UNSAID = Outcome("unsaid")
"""It was never said: nothing has happened, and nothing will."""


class Lines(Protocol):
    """What a session speaks by: a line to each door. While it holds, a line keeps the order and
    loses nothing; when it breaks, what was on its way may be lost at either end."""

    def say(self, shard: int, raw: bytes) -> bool:
        """Send to a door; False when nobody is connected. Nothing is queued for later."""
        ...

    def up(self, shard: int) -> bool:
        """Whether somebody is connected; if not, `Session.came_up` is called when there is."""
        ...

    def begin(self) -> None:
        """Something can be said: have `Session.flush` called soon."""
        ...

    def clock_ns(self) -> int:
        """A clock of ours that is never set, and goes on while the machine sleeps."""
        ...


class _Slots(dict[str, int]):
    """Key to slot, for one entity type. A missing key is worked out."""

    def __init__(self, type_name: str) -> None:
        super().__init__()
        self._type = type_name

    def __missing__(self, key: str) -> int:
        if len(self) >= SLOTS_KNOWN_MAX:
            self.clear()
        slot = self[key] = slot_of(self._type, key)
        return slot


class _Type:
    """What requests need to know of an entity type."""

    def __init__(self, name: str, handlers: Iterable[str]) -> None:
        self.slots = _Slots(name)
        self.kinds = {(h, reply): Kind(name, h, reply) for h in handlers for reply in (True, False)}


class Session:
    """A caller's numbered requests. Times are seconds of a clock that is never set.

    Args:
        id: 16 random bytes.
        lines: to the doors.
    """

    def __init__(self, id: bytes, lines: Lines) -> None:
        self.id, self._lines = id, lines
        self.greeting: protocol.Greeting | None = None
        """What the app last said of itself; nothing can be asked before."""
        self._doors: dict[int, Door] = {}
        self._clock_ns = 0
        """The server's clock less ours."""
        self._types: dict[str, _Type] = {}
        self._owners: list[Door] = []
        """The door of each slot's owner."""
        self._number = 0
        self._latest: dict[int, int] = {}
        """The newest request to each slot that changes something."""
        self._named: dict[bytes, list[Pending]] = {}
        """Those with an idempotency key: the first travels, all are told."""
        self.expires_s = math.inf
        """Nobody's patience ends before."""
        self._flushing = False
        self._left: list[Door] = []
        """Doors of an app that was started anew with others, until one of these has welcomed us."""

    @property
    def waits(self) -> bool:
        """Whether any request has no outcome."""
        return any(door.flight or door.waiting for door in self._all_doors())

    def full_doors(self) -> list[int]:
        """Those for which more waits than they have room for."""
        return [door.shard for door in self._doors.values() if door.full]

    # ── requests ──

    def request(
        self,
        type_name: str,
        key: str,
        handler: str,
        args: bytes,
        done: Done,
        *,
        of: Any = None,
        reply: bool = True,
        query: bool = False,
        named: bytes = b"",
        until_s: float = math.inf,
    ) -> Pending:
        """Make a request; `done` gets `of` and its `Outcome`, once, or at `until_s` what is known.

        `named`, 16 bytes, stands for the request over this session's own end: it makes session
        and number, so that whoever says it again meets the first outcome.

        Raises UnknownEntity, UnknownHandler: the app has none of this name; nothing was made.
        """
        known = self._types.get(type_name)
        kind = None if known is None else known.kinds.get((handler, reply))
        if known is None or kind is None:
            known = self._offered(type_name, handler)
            kind = known.kinds[handler, reply]
        slot = known.slots[key]
        call = Pending(kind, key, slot, args, query, done, of, until_s, named)
        if until_s < self.expires_s:
            self.expires_s = until_s
        if named:
            listeners = self._named.setdefault(named, [])
            listeners.append(call)
            if len(listeners) > 1:  # One copy is enough for all who wait.
                return call
        self._owners[slot].waiting.append(call)
        if not self._flushing:
            self._begin()
        return call

    def listen(self, call: Pending, done: Done, of: Any, until_s: float) -> None:
        """Wait again for what somebody gave up waiting for, and what has no outcome yet."""
        assert call.done is None, "somebody listens to it"
        call.done, call.of, call.until_s = done, of, until_s
        self.expires_s = min(self.expires_s, until_s)

    def check(self, type_name: str, handler: str) -> None:
        """Raises UnknownEntity, UnknownHandler: the app has none of this name."""
        self._offered(type_name, handler)

    def owner(self, type_name: str, key: str) -> int:
        """The shard of an entity, also of a class that is gone. Raises UnknownEntity."""
        assert self.greeting is not None, "a session is greeted before it is used"
        if type_name in self.greeting.kept and type_name not in self.greeting.types:
            return self._owners[slot_of(type_name, key)].shard
        return self._owners[self._offered(type_name).slots[key]].shard

    def _offered(self, type_name: str, handler: str | None = None) -> _Type:
        """A type that the app has. Raises UnknownEntity, UnknownHandler."""
        assert self.greeting is not None, "a session is greeted before it is used"
        types = self.greeting.types
        handlers = types.get(type_name)
        if handlers is None:
            raise UnknownEntity(type_name, types)
        if handler is not None and handler not in handlers:
            raise UnknownHandler(type_name, handler, handlers)
        known = self._types.get(type_name)
        if known is None:
            known = self._types[type_name] = _Type(type_name, handlers)
        return known

    # ── out ──

    def _begin(self) -> None:
        self._flushing = True
        self._lines.begin()

    def _door(self, shard: int) -> Door:
        door = self._doors.get(shard)
        if door is None:
            door = self._doors[shard] = Door(shard)
        return door

    def _all_doors(self) -> list[Door]:
        return [*self._doors.values(), *self._left]

    def flush(self, now_s: float) -> None:
        """To each door what it has room for, as few messages."""
        self._flushing = False
        for door in list(self._doors.values()):
            if door.waiting and self._lines.up(door.shard) and now_s >= door.paused_until_s:
                self._say(door, now_s)

    def _say(self, door: Door, now_s: float) -> None:
        """Say what waits, in order, as long as there is room."""
        now_ns = self._lines.clock_ns() + self._clock_ns
        flight, calls, size = door.flight, list[Pending](), 0
        for call in door.departing():
            if not call.number:
                if call.until_s <= now_s and not call.named:
                    # Nobody waits for it any more, and it has not happened: it never will.
                    self._tell(call, UNSAID)
                    continue
                self._number_it(door, call, now_ns)
            elif call.previous not in flight:
                # It has its outcome, and the slot may have kept no trace of it.
                call.previous = 0
            door.on_its_way(call, now_s)
            size += len(call.args)
            if call.named:
                self._say_runs(door, call.named, [call], named=True)
                continue
            calls.append(call)
            if len(calls) == protocol.ASKS_MAX or size >= protocol.PACKET_BYTES:
                self._say_runs(door, self.id, calls, named=False)
                calls, size = [], 0
        if calls:
            self._say_runs(door, self.id, calls, named=False)

    def _number_it(self, door: Door, call: Pending, now_ns: int) -> None:
        """From now on it has been said."""
        call.first_ns = now_ns
        if call.named:
            call.number = _NAMED | int.from_bytes(call.named[:7], "big")
            return
        call.number = self._number = self._number + 1
        # The slot holds this request until its session's one before it has run. A query
        # leaves no row behind, so nothing may wait for one.
        previous = self._latest.get(call.slot, 0)
        if previous in door.flight:
            call.previous = previous
        if not call.query:
            self._latest[call.slot] = call.number

    def _say_runs(self, door: Door, id: bytes, calls: list[Pending], *, named: bool) -> None:
        runs = [_run(each) for each in _alike(calls)]
        self._lines.say(door.shard, protocol.encode(("asks", id, named, runs)))

    def _hello(self, shard: int) -> None:
        self._lines.say(shard, protocol.encode(protocol.Hello()))

    # ── in ──

    def came_up(self, shard: int, now_s: float) -> None:
        """A door is there, for the first time or again; what was on its way may be lost."""
        door = self._door(shard)
        door.came_up()
        self._hello(shard)
        if self.greeting is not None:
            self._say_again(door)

    def _say_again(self, door: Door) -> None:
        door.unconfirmed = True
        door.put_back(list(door.flight))
        self._begin()

    def heard(self, shard: int, word: protocol.Outcomes | protocol.Welcome, now_s: float) -> None:
        """What a door says of requests, or of itself."""
        door = self._door(shard)
        if isinstance(word, protocol.Welcome):
            self._welcomed(door, word.greeting)
            return
        refused: list[int] = []
        for kind, numbers, bodies in word.runs:
            if kind == "busy":
                refused += numbers
            elif kind == "moved":
                door.moved(numbers, now_s)
                self._hello(shard)
            else:
                self._outcomes(door, kind, numbers, bodies)
        if refused:
            drawn = xxhash.xxh3_64_intdigest(self.id, seed=int(now_s * 1e6)) / (1 << 64)
            door.refused(refused, now_s, drawn)
        if door.waiting and not self._flushing:
            self._begin()

    def _outcomes(self, door: Door, kind: str, numbers: list[int], bodies: list[Raw]) -> None:
        door.told(len(numbers))
        for number, body in zip(numbers, bodies):
            call = door.take(number) or self._taken_elsewhere(number)
            if call is None:
                continue  # It was said twice, and this is the second answer.
            self._finish(call, Outcome(kind, bytes(body)))

    def _taken_elsewhere(self, number: int) -> Pending | None:
        """What was said again, to another door, while its outcome was on its way."""
        for door in self._doors.values():
            if number in door.flight:
                return door.take(number)
        return None

    def _finish(self, call: Pending, outcome: Outcome) -> None:
        """Tell all who asked for it."""
        for each in self._named.pop(call.named) if call.named else (call,):
            self._tell(each, outcome)

    @staticmethod
    def _tell(call: Pending, outcome: Outcome) -> None:
        done, call.done = call.done, None
        if done is None:
            call.outcome = outcome
        else:
            done(call.of, outcome)

    def _welcomed(self, door: Door, greeting: protocol.Greeting) -> None:
        before = self.greeting
        if before is not None and before.incarnation != greeting.incarnation:
            self._start_anew(greeting.incarnation)
        moved = before is not None and before.placement.version < greeting.placement.version
        if before is None or greeting.placement.version >= before.placement.version:
            self._adopt(greeting)
        self._clock_ns = greeting.now_ns - self._lines.clock_ns()
        restarted = door.epoch not in (0, greeting.epoch)
        door.epoch = greeting.epoch
        if moved or self._left:
            self._deal_anew()
        elif restarted:
            self._say_again(door)

    def _adopt(self, greeting: protocol.Greeting) -> None:
        """What the app says of itself now: what it offers, and who owns what."""
        before, self.greeting = self.greeting, greeting
        if before is None or before.types != greeting.types:
            self._types = {}
        if before is None or self._left or before.placement != greeting.placement:
            self._owners = [self._door(shard) for shard in greeting.placement.slots]

    def _deal_anew(self) -> None:
        """What has no outcome goes to who owns its slot now, in the same order."""
        said = sorted(chain.from_iterable(d.take_said() for d in self._all_doors()), key=number_of)
        unsaid = list(chain.from_iterable(door.waiting for door in self._all_doors()))
        for door in self._all_doors():
            door.waiting.clear()
            door.unconfirmed = True
        self._left.clear()
        for call in chain(said, unsaid):
            self._owners[call.slot].waiting.append(call)
        self._begin()

    def _start_anew(self, incarnation: bytes) -> None:
        """The app's data is another's, or a backup's: what it knows of us is not what we know."""
        self.id = xxhash.xxh3_128_digest(self.id + incarnation)
        lost = list(chain.from_iterable(door.take_said() for door in self._all_doors()))
        self._latest.clear()
        for call in lost:
            self._finish(call, UNKNOWN)

    def reroute(self) -> None:
        """The app was started anew with other doors: all is said again when one has welcomed us."""
        self._left += self._doors.values()
        self._doors = {}

    # ── time ──

    def tick(self, now_s: float) -> None:
        """What is overdue is said again, what is held confirmed; who waited too long is told."""
        if now_s >= self.expires_s:
            self._expire(now_s)
        self._confirm()
        for door in self._doors.values():
            if self._lines.up(door.shard) and door.put_back_overdue(now_s):
                self._hello(door.shard)
        self.flush(now_s)

    def _expire(self, now_s: float) -> None:
        """Tell those whose patience has ended. What was never said is taken back."""
        doors = self._all_doors()
        calls = chain.from_iterable(chain(door.flight.values(), door.waiting) for door in doors)
        listened = [call for call in calls if call.done is not None]
        listened += [c for same in self._named.values() for c in same[1:] if c.done is not None]
        expired = [call for call in listened if call.until_s <= now_s]
        self.expires_s = min((c.until_s for c in listened if c.until_s > now_s), default=math.inf)
        for call in expired:
            self._tell(call, WAITED if call.number or call.named else UNSAID)
        for door in doors:
            left = [c for c in door.waiting if c.number or c.named or c.done is not None]
            if len(left) < len(door.waiting):
                door.waiting = deque(left)

    def _confirm(self) -> None:
        """Say what is held: up to the newest number, but in slots with an open request less."""
        doors = [d for d in self._doors.values() if d.unconfirmed and self._lines.up(d.shard)]
        if not doors or self.greeting is None:
            return
        below: dict[int, int] = {}
        for door in self._all_doors():
            for call in door.said():
                if not call.named:
                    below[call.slot] = min(below.get(call.slot, call.number), call.number - 1)
        raw = protocol.encode(protocol.Confirm(self.id, self._number, below))
        for door in doors:
            door.unconfirmed = not self._lines.say(door.shard, raw)

    def close(self) -> None:
        """Confirm what is held. Who still waits is told what is known."""
        self._confirm()
        for door in self._all_doors():
            for call in chain(door.flight.values(), door.waiting):
                self._finish(call, UNKNOWN if call.number else UNSAID)


def _alike(calls: list[Pending]) -> list[list[Pending]]:
    """Requests as runs of one kind and time, each slot's in the same order.

    A request joins the newest run of its kind, unless one to the same slot stands behind that.
    """
    first = calls[0]
    if all(call.kind is first.kind and call.first_ns == first.first_ns for call in calls):
        return [calls]
    runs: list[list[Pending]] = []
    newest: dict[tuple[Kind, int], int] = {}
    touched: dict[int, int] = {}
    for call in calls:
        what = call.kind, call.first_ns
        place = newest.get(what, -1)
        if place < touched.get(call.slot, 0):
            place = newest[what] = len(runs)
            runs.append([])
        runs[place].append(call)
        touched[call.slot] = place
    return runs


def _run(calls: list[Pending]) -> RequestRun:
    kind = calls[0].kind
    return RequestRun(
        kind.type,
        kind.handler,
        kind.reply,
        calls[0].first_ns,
        [call.number for call in calls],
        [call.previous for call in calls],
        [call.key for call in calls],
        Raw(protocol.array([call.args for call in calls])),
    )
