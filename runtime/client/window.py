"""One shard as a caller sees it: which requests wait, which are in flight, how many may be.

    waiting -> in flight -> outcome
        ^          |
        +----------+  the line broke, the shard was busy, the slot moved, no answer came

Only so many requests are in flight to a shard at once: its window. Outcomes make the window larger,
a busy answer makes it smaller, and a shard that took nothing is left alone for a while. What goes to
a slot that is on its way is held for some milliseconds. Requests that are not in flight wait here,
where waiting costs the shard nothing, and where they can be taken back: what was never sent has not
happened.

What was sent keeps its number, and stands before what was not, in the order of numbers. No socket,
no clock: `session.py` decides what is asked and sends it.
Idea: docs/ideas/clients.md. Source: the window follows Chiu and Jain, "Analysis of the increase and
decrease algorithms for congestion avoidance", 1989.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, filterfalse, takewhile

from skerry.runtime.client.pending import Pending, number_of

WINDOW_MAX = 4096
"""Requests in flight to one shard at once: one batch of it that runs, and one that waits."""

WINDOW_MIN = 16
"""The smallest window, after repeated `busy` answers."""

WINDOW_BYTES = 8 << 20
"""Bytes of arguments in flight to one shard; one request may go beyond."""

OVERDUE_S = 2.0
"""The oldest requests are sent again after so long without an answer. No line should ever lose
anything; this is for the day when one does."""

AGAIN_MAX = 8
"""How many overdue requests are sent again: too few to burden a shard that is slow."""

AGAIN_MAX_S = 32.0
"""While any is overdue, more are sent again: after twice as long each time, up to this."""

PAUSE_S = 0.25
PAUSE_MAX_S = 4.0
"""How long a shard that took nothing is left alone: from half of the first, twice as long each
time, and never two callers equally long."""

HELD_S = 0.005
HELD_MAX_S = 0.25
"""How long requests to a slot are held that its shard does not serve: the first time, and twice as
long each time, until it is known who does."""


class Window:
    """The requests of one caller to one shard."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.epoch = 0
        """The shard's epoch; 0 before its first welcome on this line."""
        self.waiting: deque[Pending] = deque()
        """Requests to send; in front those that were sent before, in the order of numbers."""
        self.flight: dict[int, Pending] = {}
        """Requests in flight, by number, in the order in which they were sent."""
        self.flight_bytes = 0
        self.size = WINDOW_MAX
        self.pause_s = PAUSE_S
        """About how long the shard is left alone when it takes nothing."""
        self.paused_until_s = 0.0
        self._held: set[int] = set()
        """Slots whose requests are held."""
        self._held_until_s, self._held_s = 0.0, HELD_S
        self.again_s, self.again_at_s = OVERDUE_S, 0.0
        """When overdue requests are sent again, and how long after the time before."""
        self.unconfirmed = False
        """Whether the shard has told outcomes that are not confirmed."""

    @property
    def full(self) -> bool:
        """Whether more requests wait than there is room for. An estimate: it looks at none."""
        more = len(self.flight) + len(self.waiting) > self.size
        return more or (bool(self.waiting) and self.flight_bytes >= WINDOW_BYTES)

    def departing(self) -> Iterator[Pending]:
        """Take the requests that there is room for, in order. Each counts once it is `sent`."""
        waiting, flight, kept = self.waiting, self.flight, list[Pending]()
        while waiting and len(flight) < self.size:
            if flight and self.flight_bytes >= WINDOW_BYTES:
                break
            call = waiting.popleft()
            if call.slot in self._held:
                kept.append(call)
            else:
                yield call
        waiting.extendleft(reversed(kept))

    def sent(self, call: Pending, now_s: float) -> None:
        """Count a request, which has a number, as in flight."""
        call.sent_s = now_s
        self.flight[call.number] = call
        self.flight_bytes += len(call.args)

    def open_calls(self) -> list[Pending]:
        """List all that was sent and has no outcome."""
        return [*self.flight.values(), *takewhile(number_of, self.waiting)]

    def take(self, number: int) -> Pending | None:
        """Take a request out of flight."""
        call = self.flight.pop(number, None)
        if call is not None:
            self.flight_bytes -= len(call.args)
        return call

    def take_lost(self, owners: Sequence[Window]) -> list[Pending]:
        """Take what is in flight to slots that have another owner now."""
        numbers = [n for n, call in self.flight.items() if owners[call.slot] is not self]
        return [call for number in numbers if (call := self.take(number)) is not None]

    def take_open(self) -> list[Pending]:
        """Take all that was sent and has no outcome, in the order of numbers."""
        calls, self.flight, self.flight_bytes = self.flight.values(), {}, 0
        return sorted([*calls, *self._take_sent_before()], key=number_of)

    def put_back(self, numbers: Iterable[int]) -> None:
        """Let requests in flight wait to be sent again, before anything new."""
        calls = [call for number in numbers if (call := self.take(number)) is not None]
        calls += self._take_sent_before()
        self.waiting.extendleft(sorted(calls, key=number_of, reverse=True))

    def _take_sent_before(self) -> Iterator[Pending]:
        """Take the waiting requests that were sent before."""
        while self.waiting and self.waiting[0].number:
            yield self.waiting.popleft()

    # ── what the shard answers ──

    def connected(self) -> None:
        """Begin a new line. Its welcome will tell who is there."""
        self.epoch, self.paused_until_s = 0, 0.0

    def moved(self, numbers: list[int], now_s: float) -> None:
        """The shard does not serve these requests' slots. Hold what goes to these, until its welcome
        tells who does; it may do so itself, in a moment."""
        self._held |= {self.flight[number].slot for number in numbers if number in self.flight}
        self.put_back(numbers)
        self._held_until_s = now_s + self._held_s
        self._held_s = min(2 * self._held_s, HELD_MAX_S)

    @property
    def wake_s(self) -> float:
        """When requests are held no longer; none are: never."""
        return self._held_until_s if self._held else math.inf

    def let_go(self, now_s: float) -> None:
        """Hold no request any more, if the time is over."""
        if now_s >= self._held_until_s:
            self._held.clear()

    def dealt_anew(self) -> None:
        """Hold no request any more: it is known who serves its slot."""
        self._held.clear()
        self._held_s, self.unconfirmed = HELD_S, True

    def answered(self, outcomes: int) -> None:
        """The shard has told so many outcomes. It can do more."""
        self.unconfirmed, self.pause_s = True, PAUSE_S
        self.size = min(WINDOW_MAX, self.size + 1 + outcomes // 16)

    def refused(self, numbers: list[int], now_s: float, drawn: float) -> None:
        """The shard was busy, and ran none of these. Send less at once from now on; pause, if it
        took nothing at all. `drawn`: a random number from 0 to 1."""
        first: dict[int, int] = {}
        for number in sorted(numbers):
            call = self.flight.get(number)
            if call is not None:
                first.setdefault(call.slot, number)
        # What the shard holds behind a refused request can't run before that: were it counted as
        # in flight, it might leave no room for the very request that it waits for.
        calls = self.flight.items()
        self.put_back([n for n, call in calls if n >= first.get(call.slot, math.inf)])
        self.size = max(WINDOW_MIN, min(self.size // 2, len(self.flight)))
        if not self.flight:
            pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, PAUSE_MAX_S)
            self.paused_until_s = now_s + pause_s * (1 + drawn) / 2

    def put_back_overdue(self, now_s: float) -> bool:
        """Let some requests that are overdue be sent again. False: there are none, or not yet."""
        since_s = now_s - OVERDUE_S
        overdue = list(takewhile(lambda call: call.sent_s <= since_s, self.flight.values()))
        if not overdue:
            self.again_s, self.again_at_s = OVERDUE_S, 0.0
        elif now_s >= self.again_at_s:
            self.again_s = min(2 * self.again_s, AGAIN_MAX_S)
            self.again_at_s = now_s + self.again_s
            self.put_back([call.number for call in overdue[:AGAIN_MAX]])
            return True
        return False


def deal_anew(windows: Iterable[Window], owners: Sequence[Window]) -> None:
    """Move requests that have no outcome to the windows that own their slots now, in the same order.
    What is in flight to a shard that still owns its slot stays so."""
    calls: list[Pending] = []
    for window in windows:
        calls += window.take_lost(owners)
        calls += window.waiting
        window.waiting.clear()
        window.dealt_anew()
    sent = sorted(filter(number_of, calls), key=number_of)
    for call in chain(sent, filterfalse(number_of, calls)):
        owners[call.slot].waiting.append(call)
