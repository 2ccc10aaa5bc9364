"""Bugs of the caller's side: what is said, said again and confirmed."""

import math
from collections import deque
from unittest.mock import patch

from skerry.runtime.client import window
from tests.mutants.bugs import bug


@bug("a session: a retry is a new request", "client.window:Window.departing")
def _(departing, self):
    for call in departing(self):
        call.number = 0
        yield call


@bug("a session: what nobody waits for any more is said", "client.window:Window.departing")
def _(departing, self):
    for call in departing(self):
        until_s, call.until_s = call.until_s, math.inf
        yield call
        call.until_s = until_s


@bug("a session: a door gets more at once than its window", "client.window:Window.departing")
def _(departing, self):
    with patch.object(self, "size", 1 << 30):
        yield from departing(self)


@bug("a session: what has no outcome is confirmed", "client.window:Window.open_calls")
def _(open_calls, self):
    return []


@bug("a session: what waits to be said again is confirmed", "client.window:Window.open_calls")
def _(open_calls, self):
    return list(self.flight.values())


@bug("a session: nothing is said again after a line broke", "client.session:Session.connected")
def _(connected, self, shard):
    with patch.object(self, "greeting", None):
        connected(self, shard)


@bug("a session: what a busy door refused is forgotten", "client.window:Window.refused")
def _(refused, self, numbers, now_s, drawn):
    for number in numbers:
        self.take(number)
    refused(self, numbers, now_s, drawn)


@bug(
    "a session: what waits for a refused request leaves it no room", "client.window:Window.refused"
)
def _(refused, self, numbers, now_s, drawn):
    put_back = self.put_back
    with patch.object(self, "put_back", lambda _: put_back(numbers)):
        refused(self, numbers, now_s, drawn)


@bug("a session: a door that was busy is asked again at once", "client.window:Window.refused")
def _(refused, self, numbers, now_s, drawn):
    until_s = self.paused_until_s
    refused(self, numbers, now_s, drawn)
    self.paused_until_s = until_s


@bug(
    "a session: as long as anything is overdue, more of it is said with every tick",
    "client.window:Window.put_back_overdue",
)
def _(put_back_overdue, self, now_s):
    said = put_back_overdue(self, now_s)
    self.again_at_s = min(self.again_at_s, now_s)
    return said


@bug("a session: who takes long is asked again, all of it", "client.window:Window.put_back_overdue")
def _(put_back_overdue, self, now_s):
    with patch.object(window, "AGAIN_MAX", 1 << 30):
        return put_back_overdue(self, now_s)


@bug("a session: who waits when it closes is told nothing", "client.session:Session.close")
def _(close, self):
    with patch.object(self, "_finish", lambda call, outcome: None):
        close(self)


@bug("a session: what was never said and given up is kept", "client.session:Session._expire")
def _(expire, self, now_s):
    waiting = {each: deque(each.waiting) for each in self._all_windows()}
    expire(self, now_s)
    for each, calls in waiting.items():
        each.waiting = calls


@bug(
    "a session: a run takes in a request that stands behind another of its slot",
    "client.pending:_alike",
)
def _(alike, calls):
    runs = {}
    for call in calls:
        runs.setdefault((call.kind, call.first_ns), []).append(call)
    return list(runs.values())


@bug(
    "a session: requests to one entity do not name the one before",
    "client.pending:Numbering.number",
)
def _(number, self, call, in_flight, now_ns):
    number(self, call, in_flight, now_ns)
    call.previous = 0


@bug(
    "a session: a named request gets a number like any other",
    "client.pending:Numbering.number",
)
def _(number, self, call, in_flight, now_ns):
    number(self, call, in_flight, now_ns)
    if call.named:
        call.number = self.newest = self.newest + 1


@bug(
    "a session: what goes to new owners is said door by door, not in the order of its numbers",
    "client.session:Session._deal_anew",
)
def _(deal_anew, self):
    windows = enumerate(self._all_windows())
    at = {call.number: place for place, each in windows for call in each.open_calls()}
    deal_anew(self)
    for each in self._windows.values():
        each.waiting = deque(sorted(each.waiting, key=lambda call: at.get(call.number, len(at))))


@bug(
    "a session: what goes to new owners is said behind what was never said",
    "client.session:Session._deal_anew",
)
def _(deal_anew, self):
    deal_anew(self)
    for each in self._windows.values():
        each.waiting = deque(sorted(each.waiting, key=lambda call: call.number > 0))


@bug(
    "a session: what was under way at a restore is said again to the restored app",
    "client.session:Session._start_anew",
)
def _(start_anew, self, incarnation):
    def say_again(call, outcome):
        call.number = call.previous = 0
        self._owners[call.slot].waiting.append(call)

    with patch.object(self, "_finish", say_again):
        start_anew(self, incarnation)


@bug(
    "a session: what was under way at a restore is forgotten, and nobody is told",
    "client.session:Session._start_anew",
)
def _(start_anew, self, incarnation):
    with patch.object(self, "_finish", lambda call, outcome: None):
        start_anew(self, incarnation)


@bug(
    "a connection: a busy loop is not heard before more is said",
    "client.session:Session.full_shards",
)
def _(full_shards, self):
    return []


@bug("a page begins its slot anew", "client.walk:Walk.took")
def _(took, self, read, last=None):
    took(self, read)


@bug("a question goes on asking an owner that has nothing", "client.questions:Questions.ask_owner")
async def _(ask_owner, self, kind, question, *, moved=lambda value: value is None, timeout_s=30.0):
    first = question()
    return await ask_owner(self, kind, lambda: first, moved=moved, timeout_s=timeout_s)


@bug(
    "a session: one slot on its way holds up all requests to its door", "client.window:Window.moved"
)
def _(moved, self, numbers, now_s):
    moved(self, numbers, now_s)
    self.paused_until_s = self.wake_s


@bug(
    "a session: what goes to a slot on its way is said again at once", "client.window:Window.moved"
)
def _(moved, self, numbers, now_s):
    moved(self, numbers, now_s)
    self._held.clear()


@bug(
    "a session: what stays with its door is said again with each change of owners",
    "client.window:Window.take_lost",
)
def _(take_lost, self, owners):
    return self.take_open()


@bug(
    "a session: what is held is held until a door tells who owns it", "client.window:Window.let_go"
)
def _(let_go, self, now_s):
    pass
