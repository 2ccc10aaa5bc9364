"""The caller's end of exactly once: numbers requests, sends them again, never doubles one.

    request -> waits for its shard -> sent, with a number -> outcome -> told
                    ^                       |
                    +---- line broke, worker restarted or busy, slot moved

A session knows the placement and sends each request to the shard that owns its slot. Once it was
sent, a request keeps its session, number and time for ever. A line that holds loses nothing, so a
request is sent again when its line broke, its shard has a new epoch or was busy, or its slot moved,
and not because an answer takes long: asking twice does not help a shard that is slow. The shard
remembers first outcomes, so what is sent twice runs once.

How much is in flight to each shard, and when one is left alone, is up to `window.py`.

The outcomes that have come are confirmed: up to the newest number, but in a slot with an open
request only up to that. No request at or below such a low-water mark is ever sent again.

No socket, no clock: `connection.py` drives it over real lines, the simulator over lines that
break. Requests of one tick leave as one message per shard, as runs of one handler.
Idea: docs/ideas/clients.md. Asserts I1 at the caller's end.
"""

from __future__ import annotations

import math
from collections import deque
from itertools import chain
from typing import Any, Protocol

import xxhash
from msgspec import Raw

from skerry.runtime.client.catalogue import Catalogue
from skerry.runtime.client.pending import (
    UNKNOWN,
    UNSAID,
    WAITED,
    Done,
    Numbering,
    Pending,
    runs_of,
)
from skerry.runtime.client.window import Window, deal_anew
from skerry.runtime.core.events import Outcome
from skerry.runtime.gateway import protocol


class Lines(Protocol):
    """What a session sends by: a line to each shard's listener.

    While it holds, a line keeps the order and loses nothing. When it breaks, what was on its way
    may be lost at either end.
    """

    def say(self, shard: int, raw: bytes) -> bool:
        """Send a message; False when nobody is connected. Nothing is queued for later."""
        ...

    def up(self, shard: int) -> bool:
        """Tell whether a line is connected; `Session.connected` is called once it is."""
        ...

    def begin(self) -> None:
        """Have `Session.flush` called soon: something can be sent."""
        ...

    def clock_ns(self) -> int:
        """Return the time by a clock of ours that is never set, and goes on while the machine
        sleeps."""
        ...


class Session:
    """A caller's numbered requests. Times are seconds of a clock that is never set.

    Args:
        id: 16 random bytes.
        lines: to the shards.
    """

    def __init__(self, id: bytes, lines: Lines) -> None:
        self.id, self._lines = id, lines
        self.greeting: protocol.Greeting | None = None
        """What the app last said of itself; nothing can be asked before."""
        self._clock_ns = 0
        """The server's clock less ours."""
        self._catalogue = Catalogue()
        self.check = self._catalogue.check
        self._numbering = Numbering()
        self._windows: dict[int, Window] = {}
        self._owners: list[Window] = []
        """The window of each slot's owner."""
        self._left: list[Window] = []
        """Windows of shards that the app no longer has, until one of the new shards has welcomed
        us."""
        self._named: dict[bytes, list[Pending]] = {}
        """Requests by idempotency key: the first is sent, all are told."""
        self.expires_s = math.inf
        """Nobody's patience ends before."""
        self._flushing = False

    @property
    def waits(self) -> bool:
        """Whether any request has no outcome."""
        return any(window.flight or window.waiting for window in self._all_windows())

    def full_shards(self) -> list[int]:
        """List the shards for which more requests wait than there is room for."""
        return [window.shard for window in self._windows.values() if window.full]

    @property
    def wake_s(self) -> float:
        """When `tick` has something to do at the latest."""
        return min([self.expires_s, *(window.wake_s for window in self._windows.values())])

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

        `named`, 16 bytes, stands for the request beyond this session's end: it makes session and
        number, so that whoever sends it again meets the first outcome.

        Raises UnknownEntity, UnknownHandler: the app has none of this name; nothing was made.
        """
        slot, kind = self._catalogue.find(type_name, key, handler, reply)
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
        """Wait again for a request that was given up and has no outcome yet."""
        assert call.done is None, "somebody listens to it"
        call.done, call.of, call.until_s = done, of, until_s
        self.expires_s = min(self.expires_s, until_s)

    def owner(self, type_name: str, key: str) -> int:
        """Return the shard of an entity, also of a class that is gone. Raises UnknownEntity."""
        return self._owners[self._catalogue.slot(type_name, key)].shard

    # ── out ──

    def _begin(self) -> None:
        self._flushing = True
        self._lines.begin()

    def _window(self, shard: int) -> Window:
        window = self._windows.get(shard)
        if window is None:
            window = self._windows[shard] = Window(shard)
        return window

    def _all_windows(self) -> list[Window]:
        return [*self._windows.values(), *self._left]

    def flush(self, now_s: float) -> None:
        """Send each shard what its window has room for, as few messages."""
        self._flushing = False
        for window in list(self._windows.values()):
            window.let_go(now_s)  # Also of a shard that is away: nobody is woken for it again.
            if window.waiting and self._lines.up(window.shard) and now_s >= window.paused_until_s:
                self._send(window, now_s)

    def _send(self, window: Window, now_s: float) -> None:
        """Send what waits, in order, as long as there is room."""
        now_ns = self._lines.clock_ns() + self._clock_ns
        flight, calls, size = window.flight, list[Pending](), 0
        for call in window.departing():
            if not call.number:
                if call.until_s <= now_s and not call.named:
                    # Nobody waits for it any more, and it has not happened: it never will.
                    call.tell(UNSAID)
                    continue
                self._numbering.number(call, flight, now_ns)
            elif call.previous not in flight:
                # That one has its outcome, and the slot may have kept no trace of it.
                call.previous = 0
            window.sent(call, now_s)
            size += len(call.args)
            if call.named:
                self._send_runs(window, call.named, [call], named=True)
                continue
            calls.append(call)
            if len(calls) == protocol.ASKS_MAX or size >= protocol.PACKET_BYTES:
                self._send_runs(window, self.id, calls, named=False)
                calls, size = [], 0
        if calls:
            self._send_runs(window, self.id, calls, named=False)

    def _send_runs(self, window: Window, id: bytes, calls: list[Pending], *, named: bool) -> None:
        self._lines.say(window.shard, protocol.encode(("asks", id, named, runs_of(calls))))

    def _hello(self, shard: int) -> None:
        self._lines.say(shard, protocol.encode(protocol.Hello()))

    # ── in ──

    def connected(self, shard: int) -> None:
        """Begin with a shard, for the first time or again; what was on its way may be lost."""
        window = self._window(shard)
        window.connected()
        self._hello(shard)
        if self.greeting is not None:
            self._send_again(window)

    def _send_again(self, window: Window) -> None:
        window.unconfirmed = True
        window.put_back(list(window.flight))
        self._begin()

    def heard(self, shard: int, word: protocol.Outcomes | protocol.Welcome, now_s: float) -> None:
        """Take what a shard says of requests, or of itself."""
        window = self._window(shard)
        if isinstance(word, protocol.Welcome):
            self._welcomed(window, word.greeting)
            return
        refused: list[int] = []
        for kind, numbers, bodies in word.runs:
            if kind == "busy":
                refused += numbers
            elif kind == "moved":
                window.moved(numbers, now_s)
                self._hello(shard)
            else:
                self._outcomes(window, kind, numbers, bodies)
        if refused:
            drawn = xxhash.xxh3_64_intdigest(self.id, seed=int(now_s * 1e6)) / (1 << 64)
            window.refused(refused, now_s, drawn)
        if window.waiting and not self._flushing:
            self._begin()

    def _outcomes(self, window: Window, kind: str, numbers: list[int], bodies: list[Raw]) -> None:
        window.answered(len(numbers))
        for number, body in zip(numbers, bodies):
            call = window.take(number) or self._taken_elsewhere(number)
            if call is None:
                continue  # It was sent twice, and this is the second answer.
            self._finish(call, Outcome(kind, bytes(body)))

    def _taken_elsewhere(self, number: int) -> Pending | None:
        """Take a request that was sent again, to another shard, while its outcome was on its
        way."""
        for window in self._windows.values():
            if number in window.flight:
                return window.take(number)
        return None

    def _finish(self, call: Pending, outcome: Outcome) -> None:
        """Tell all who asked for it."""
        for each in self._named.pop(call.named) if call.named else (call,):
            each.tell(outcome)

    # ── who owns what ──

    def _welcomed(self, window: Window, greeting: protocol.Greeting) -> None:
        before = self.greeting
        anew = before is not None and before.incarnation != greeting.incarnation
        if anew:
            self._start_anew(greeting.incarnation)
        moved = before is not None and before.placement.version < greeting.placement.version
        # A restored app may well be of an older placement.
        if before is None or anew or greeting.placement.version >= before.placement.version:
            self._adopt(greeting)
        self._clock_ns = greeting.now_ns - self._lines.clock_ns()
        restarted = window.epoch not in (0, greeting.epoch)
        window.epoch = greeting.epoch
        if restarted:
            self._send_again(window)
        if moved or self._left:
            self._deal_anew()

    def _adopt(self, greeting: protocol.Greeting) -> None:
        """Believe what the app says of itself: what it offers, and who owns what."""
        before, self.greeting = self.greeting, greeting
        self._catalogue.adopt(greeting)
        if before is None or self._left or before.placement != greeting.placement:
            self._owners = [self._window(shard) for shard in greeting.placement.slots]

    def _deal_anew(self) -> None:
        """Move what has no outcome to the owners that its slots have now, in the same order."""
        deal_anew(self._all_windows(), self._owners)
        self._left.clear()
        self._begin()

    def _start_anew(self, incarnation: bytes) -> None:
        """Begin another session: the app's data is another's, or a backup's, so what it knows of
        us is not what we know."""
        self.id = xxhash.xxh3_128_digest(self.id + incarnation)
        lost = list(chain.from_iterable(window.take_open() for window in self._all_windows()))
        self._numbering.start_anew()
        for call in lost:
            self._finish(call, UNKNOWN)

    def reroute(self) -> None:
        """Turn to other shards, which the app was started anew with: all is sent again when one of
        them has welcomed us."""
        self._left += self._windows.values()
        self._windows = {}

    # ── time ──

    def tick(self, now_s: float) -> None:
        """Send again what is overdue, confirm outcomes, and tell those who have waited too long."""
        if now_s >= self.expires_s:
            self._expire(now_s)
        self._confirm()
        for window in self._windows.values():
            if self._lines.up(window.shard) and window.put_back_overdue(now_s):
                self._hello(window.shard)
        self.flush(now_s)

    def _expire(self, now_s: float) -> None:
        """Tell those whose patience has ended, and take back what was never sent."""
        windows = self._all_windows()
        calls = chain.from_iterable(chain(each.flight.values(), each.waiting) for each in windows)
        listened = [call for call in calls if call.done is not None]
        listened += [c for same in self._named.values() for c in same[1:] if c.done is not None]
        expired = [call for call in listened if call.until_s <= now_s]
        self.expires_s = min((c.until_s for c in listened if c.until_s > now_s), default=math.inf)
        for call in expired:
            call.tell(WAITED if call.number or call.named else UNSAID)
        for window in windows:
            left = [c for c in window.waiting if c.number or c.named or c.done is not None]
            if len(left) < len(window.waiting):
                window.waiting = deque(left)

    def _confirm(self) -> None:
        """Say which outcomes have come: all up to the newest number, but in slots with an open
        request fewer."""
        windows = [w for w in self._windows.values() if w.unconfirmed and self._lines.up(w.shard)]
        if not windows or self.greeting is None:
            return
        below: dict[int, int] = {}
        for window in self._all_windows():
            for call in window.open_calls():
                if not call.named:
                    below[call.slot] = min(below.get(call.slot, call.number), call.number - 1)
        raw = protocol.encode(protocol.Confirm(self.id, self._numbering.newest, below))
        for window in windows:
            window.unconfirmed = not self._lines.say(window.shard, raw)

    def close(self) -> None:
        """Confirm outcomes, and tell all who still wait what is known."""
        self._confirm()
        for window in self._all_windows():
            for call in chain(window.flight.values(), window.waiting):
                self._finish(call, UNKNOWN if call.number else UNSAID)
