"""Bugs of the tables of a shard: requests, asks, timers, outputs, dead letters."""

from collections import defaultdict
from unittest.mock import patch

from msgspec.structs import replace

from skerry.runtime.core.events import Table
from skerry.runtime.core.tables import requests, retention
from tests.mutants.bugs import bug

# Requests that were seen before.


@bug(
    "requests are looked up without those of the open batch",
    "core.tables.requests:Requests.judge",
)
def _(judge, self, session, request, slot, now_ns):
    with patch.object(session, "new", {}):
        return judge(self, session, request, slot, now_ns)


@bug("a run of requests is not compared with those that ran", "core.tables.requests:Requests.fresh")
def _(fresh, self, session, run, slots, now_ns):
    others = {number: row for number, row in session.rows.items() if number not in run.numbers}
    with patch.object(session, "rows", others):
        return fresh(self, session, run, slots, now_ns)


@bug("a run of requests is not compared with the floors", "core.tables.requests:Requests.fresh")
def _(fresh, self, session, run, slots, now_ns):
    with patch.object(session, "low_water", defaultdict(int)):
        return fresh(self, session, run, slots, now_ns)


@bug("a run of requests does not wait for those before it", "core.tables.requests:Requests.fresh")
def _(fresh, self, session, run, slots, now_ns):
    return fresh(self, session, replace(run, previous=[]), slots, now_ns)


@bug("a confirm forgets rows and raises no floor", "core.tables.requests:Requests.judge")
def _(judge, self, session, request, slot, now_ns):
    verdict = judge(self, session, request, slot, now_ns)
    if verdict is not None:
        return verdict
    floors = defaultdict(int)
    with patch.object(session, "low_water", floors), patch.object(session, "raised", floors):
        return judge(self, session, replace(request, previous=0), slot, now_ns)


@bug("a request does not wait for the one before it", "core.tables.requests:Requests.judge")
def _(judge, self, session, request, slot, now_ns):
    return judge(self, session, replace(request, previous=0), slot, now_ns)


@bug("a request waits for one that was refused as too old", "core.tables.requests:Requests.judge")
def _(judge, self, session, request, slot, now_ns):
    with patch.object(self, "settle", lambda session, number: None):
        return judge(self, session, request, slot, now_ns)


@bug(
    "requests that waited for one are forgotten when it has run",
    "core.tables.requests:Requests.following",
)
def _(following, self, session, number):
    following(self, session, number)
    return []


@bug("what waits for an earlier request is kept without bound", "core.tables.waiting:Waiting.hold")
def _(hold, self, session, request):
    limits = replace(self._limits, held_requests_max=1 << 62, held_bytes_max=1 << 62)
    with patch.object(self, "_limits", limits):
        return hold(self, session, request)


@bug("answers without a row are remembered without bound", "core.tables.requests:Requests.settle")
def _(settle, self, session, number):
    with patch.object(requests, "SETTLED_MAX", 1 << 62):
        settle(self, session, number)


@bug("the floor is raised past what has no outcome", "core.tables.requests:Requests.confirm")
def _(confirm, self, confirmed):
    confirm(self, confirmed)
    session = self._open.get(confirmed.session)
    for slot in session.raised if session else ():
        session.raised[slot] += 3


@bug("what waits for a confirmed request is kept for good", "core.tables.requests:Requests.confirm")
def _(confirm, self, confirmed):
    session = self._sessions.get(confirmed.session)
    if session is None:
        confirm(self, confirmed)
        return
    with patch.object(session, "held", {}):
        confirm(self, confirmed)


@bug("a row of outcomes goes when the first of them is over", "core.tables.requests:Requests.rows")
def _(rows, self, stamp):
    yield from rows(self, stamp)
    for session in self._open.values():
        for slot, floor in session.raised.items():
            for kept in session.kept[slot]:
                if min(kept.numbers) <= floor:
                    key = requests._request_key(slot, session.id, kept.numbers[0])
                    yield Table.REQUEST, key, None


@bug("a session that was silent for long is unknown", "core.tables.requests:Requests._evict")
def _(evict, self, session):
    evict(self, session)
    self._away.pop(session.id, None)


@bug("a restart does not know which sessions have outcomes", "core.tables.requests:Requests.load")
def _(load, self, rows):
    pass


@bug("outcomes that nobody confirms are kept for a minute", "core.tables.requests:Requests.expire")
def _(expire, self, slot, now_ns):
    with patch.object(retention, "LIFETIME_NS", requests.IDLE_NS):
        expire(self, slot, now_ns)


@bug("a named request that ran before runs again", "core.tables.names:Names.judge")
def _(judge, self, request, slot, now_ns):
    outcome = judge(self, request, slot, now_ns)
    return outcome if outcome is None or outcome.kind == "late" else None


# Asks and timers.


@bug("an ask keeps its row after its first outcome", "core.tables.asks:Asks.take")
def _(take, self, type_name, key, id):
    ask = take(self, type_name, key, id)
    self._gone.pop(id, None)
    return ask


@bug("an ask has two outcomes in one batch", "core.tables.asks:Asks.take")
def _(take, self, type_name, key, id):
    if id in self._gone:
        self._await(self._gone.pop(id))
    return take(self, type_name, key, id)


@bug("asks are not loaded at a restart", "core.tables.asks:Asks.load")
def _(load, self, rows):
    pass


@bug("a timer is not loaded at a restart", "core.tables.timers:Timers.load")
def _(load, self, rows):
    pass


@bug(
    "a timer that is set again leaves more behind each time", "core.tables.timers:Timers._clear_out"
)
def _(clear_out, self):
    pass


# Positions of sources.


@bug("a position is not in the commit of its items", "core.tables.positions:Positions.rows")
def _(rows, self, stamp):
    return []


# What goes out to sinks.


@bug("an item is handed to its sink before it is durable", "core.tables.outputs:Outputs.offer")
def _(offer, self, durable, leaving=frozenset()):
    return offer(self, 1 << 62, leaving)


@bug("the row of an item goes when it is handed over", "core.tables.outputs:Outputs.offer")
def _(offer, self, durable, leaving=frozenset()):
    writes = offer(self, durable, leaving)
    for write in writes:
        where = write.output, write.sink, write.partition
        self._changed[where] = end = self._ends[where]
        end.gone = end.writing
    return writes


@bug("items are numbered anew after a restart", "core.tables.outputs:Outputs.load")
def _(load, self, rows):
    load(self, rows)
    for end in self._ends.values():
        end.number = 0


@bug("what waits for a sink is forgotten by a restart", "core.tables.outputs:Outputs.load")
def _(load, self, rows):
    load(self, (row for row in rows if row[0] == Table.OUTPUT_NUMBER))


# Dead letters.


@bug(
    "dead letters of a batch that was thrown away are kept",
    "core.tables.dead_letters:DeadLetters.undo",
)
def _(undo, self):
    pass
