"""One shard's door as a caller sees it: what waits, what is on its way, how much may be.

    waiting -> on its way -> its outcome
        ^           |
        +-----------+  the line broke, the door was busy, the slot moved, no answer came

To each door only so much is on its way at once: its window. Outcomes make it larger, a busy answer
makes it smaller, and a door that took nothing is left alone for a while. The rest waits here, where
waiting costs the door nothing, and can be taken back: what was never said has not happened.

What was said keeps its number for ever, and stands before what was not, in the order of its
numbers. No socket, no clock: `session.py` decides what is asked and says it.
Idea: docs/clients.md. Source: the window follows Chiu and Jain, "Analysis of the increase and
decrease algorithms for congestion avoidance", 1989.
"""

from __future__ import annotations

import math
import operator
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any

from msgspec import Struct

from skerry.runtime.core.events import Outcome

WINDOW_MAX = 4096
"""Requests on their way to one door at once: one batch of it that runs, and one that waits."""

WINDOW_MIN = 16
"""The same to a door that was busy again and again."""

WINDOW_BYTES = 8 << 20
"""The same in bytes of their arguments; one may go beyond."""

OVERDUE_S = 2.0
"""The oldest requests that wait for so long are said again. No line should ever lose anything;
this is for the day when one does."""

AGAIN_MAX = 8
"""How many are said again then: too few to be a burden to who is slow."""

AGAIN_MAX_S = 32.0
"""And as long as any is overdue, some more, after twice as long each time, up to here."""

PAUSE_S = 0.25
PAUSE_MAX_S = 4.0
"""How long a door is left alone that took nothing: from half of the first, twice as long each
time, and never two callers equally long."""

Done = Callable[[Any, Outcome], None]


class Kind(Struct, frozen=True, gc=False):
    """What the requests of a run have in common."""

    type: str
    handler: str
    reply: bool


class Pending(Struct, gc=False):
    """A request, from when it is made until its outcome is told."""

    kind: Kind
    key: str
    slot: int
    args: bytes
    query: bool
    done: Done | None
    """Told `of` and the outcome; None: nobody listens any more, or yet."""
    of: Any
    until_s: float
    """When who listens has had enough."""
    named: bytes
    number: int = 0
    """0: it was never said."""
    previous: int = 0
    first_ns: int = 0
    said_s: float = 0.0
    outcome: Outcome | None = None
    """What came when nobody listened."""


number_of = operator.attrgetter("number")


class Door:
    """One shard's door, as a caller sees it."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.epoch = 0
        """The epoch that it last said; 0 before its first welcome on this line."""
        self.waiting: deque[Pending] = deque()
        """What is to be said; in front what was said before, in the order of its numbers."""
        self.flight: dict[int, Pending] = {}
        """What is on its way, by number, in the order in which it was said."""
        self.flight_bytes = 0
        self.window = WINDOW_MAX
        self.pause_s = PAUSE_S
        """How long it is left alone when it takes nothing, about: longer each time."""
        self.paused_until_s = 0.0
        self.again_s, self.again_at_s = OVERDUE_S, 0.0
        """What is overdue is said again at that time; how long after the time before that was."""
        self.unconfirmed = False
        """Whether it has told outcomes that are not confirmed."""

    @property
    def full(self) -> bool:
        """Whether more waits than there is room for, as far as can be told without a look at each."""
        more = len(self.flight) + len(self.waiting) > self.window
        return more or (bool(self.waiting) and self.flight_bytes >= WINDOW_BYTES)

    def departing(self) -> Iterator[Pending]:
        """What there is room for, in order. Each counts from when it is `on_its_way`."""
        waiting, flight = self.waiting, self.flight
        while waiting and len(flight) < self.window:
            if flight and self.flight_bytes >= WINDOW_BYTES:
                return
            yield waiting.popleft()

    def on_its_way(self, call: Pending, now_s: float) -> None:
        """It has a number, and is said now."""
        call.said_s = now_s
        self.flight[call.number] = call
        self.flight_bytes += len(call.args)

    def said(self) -> list[Pending]:
        """All that was said and has no outcome."""
        return [*self.flight.values(), *takewhile(number_of, self.waiting)]

    def take(self, number: int) -> Pending | None:
        """What is on its way under this number; it is not any more."""
        call = self.flight.pop(number, None)
        if call is not None:
            self.flight_bytes -= len(call.args)
        return call

    def take_said(self) -> list[Pending]:
        """All that was said, in the order of its numbers; it is not here any more."""
        calls, self.flight, self.flight_bytes = self.flight.values(), {}, 0
        return sorted([*calls, *self._take_waiting_said()], key=number_of)

    def put_back(self, numbers: Iterable[int]) -> None:
        """What is on its way under these numbers is to be said again, before anything new."""
        calls = [call for number in numbers if (call := self.take(number)) is not None]
        calls += self._take_waiting_said()
        self.waiting.extendleft(sorted(calls, key=number_of, reverse=True))

    def _take_waiting_said(self) -> Iterator[Pending]:
        """What was said before and waits; it does not any more."""
        while self.waiting and self.waiting[0].number:
            yield self.waiting.popleft()

    # ── what is heard of it ──

    def came_up(self) -> None:
        """Somebody is there; what it is, its welcome will tell."""
        self.epoch, self.paused_until_s = 0, 0.0

    def moved(self, numbers: list[int], now_s: float) -> None:
        """It does not own these. Until its welcome tells who does, it is not asked again."""
        self.put_back(numbers)
        self.paused_until_s = now_s + PAUSE_S

    def told(self, outcomes: int) -> None:
        """It has told so many outcomes: it can do more."""
        self.unconfirmed, self.pause_s = True, PAUSE_S
        self.window = min(WINDOW_MAX, self.window + 1 + outcomes // 16)

    def refused(self, numbers: list[int], now_s: float, drawn: float) -> None:
        """Nothing of this ran. Less at once from now on; and when it took nothing, a pause.
        `drawn`: by chance, 0 to 1."""
        first: dict[int, int] = {}
        for number in sorted(numbers):
            call = self.flight.get(number)
            if call is not None:
                first.setdefault(call.slot, number)
        # What the door holds behind a refused request can't run before that: were it counted as
        # on its way, it might leave no room for the very request that it waits for.
        calls = self.flight.items()
        self.put_back([n for n, call in calls if n >= first.get(call.slot, math.inf)])
        self.window = max(WINDOW_MIN, min(self.window // 2, len(self.flight)))
        if not self.flight:
            pause_s, self.pause_s = self.pause_s, min(2 * self.pause_s, PAUSE_MAX_S)
            self.paused_until_s = now_s + pause_s * (1 + drawn) / 2

    def put_back_overdue(self, now_s: float) -> bool:
        """Whether the oldest requests have waited too long; some of them are to be said again."""
        since_s = now_s - OVERDUE_S
        overdue = list(takewhile(lambda call: call.said_s <= since_s, self.flight.values()))
        if not overdue:
            self.again_s, self.again_at_s = OVERDUE_S, 0.0
        elif now_s >= self.again_at_s:
            self.again_s = min(2 * self.again_s, AGAIN_MAX_S)
            self.again_at_s = now_s + self.again_s
            self.put_back([call.number for call in overdue[:AGAIN_MAX]])
            return True
        return False
