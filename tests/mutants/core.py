"""Bugs of the core's batches: what is taken in, how turns run, what they leave, what may leave."""

from collections import deque
from unittest.mock import patch

from msgspec.structs import replace

from skerry.runtime.core import clients
from skerry.runtime.core.events import SLOTS, Requested, Written
from skerry.runtime.core.results import Refused
from skerry.turn import Turn
from tests.mutants.bugs import bug

ALL_SLOTS = frozenset(range(SLOTS))


class Anything:
    """Contains whatever is asked for."""

    def __contains__(self, value):
        return True


# Rows that an older release stored.


@bug("a large map in a deep row is stepped over as half a map", "core.stored:_step")
def _(step, data, at):
    end, values = step(data, at)
    return end, values // 2 if data[at] in (0xDE, 0xDF) else values


# The life of a batch.


@bug("a reply leaves before its commit is durable", "core.gate:Gate.hold")
def _(hold, self, held):
    return [*held.replies, *hold(self, replace(held, replies=[]))]


@bug("a shard opens in its old epoch", "core.shard:Shard.__init__")
def _(init, self, settings, store, last, watch=lambda _: None, observer=None):
    init(self, settings, store, replace(last, epoch=max(0, last.epoch - 1)), watch, observer)


@bug("a look for old outcomes counts though its batch was thrown away", "core.shard:Shard._expire")
def _(expire, self):
    expire(self)
    self._looks += 1


@bug("time goes back", "core.shard:Shard._tick")
def _(tick, self, now_ns, steady_ns):
    tick(self, now_ns, steady_ns)
    self.now_ns = self.streams.now_ns = now_ns


@bug("a batch that is thrown away leaves its timers", "core.shard:Shard._undo")
def _(undo, self):
    with patch.object(self.timers, "undo", lambda: None):
        undo(self)


@bug("a batch that is thrown away leaves its asks", "core.shard:Shard._undo")
def _(undo, self):
    with patch.object(self.asks, "undo", lambda: None):
        undo(self)


@bug("an app is over before its sinks have everything", "core.shard:Shard.quiet")
def _(quiet, self):
    with patch.object(self.outputs, "unwritten", 0):
        return quiet(self)


# What the next batch takes.


@bug("more requests are taken in than there is room for", "core.schedule:Schedule.has_room")
def _(has_room, self):
    return True


@bug("what a sink has written waits behind requests", "core.schedule:Schedule.add")
def _(add, self, event):
    add(self, event)
    if isinstance(event, Written):
        self._outside.append(self._outside.popleft())


@bug("requests are taken in however much is inside", "core.schedule:Schedule._many")
def _(many, self, now_ns, turns_max):
    take_outside = self._take_outside
    most = min(turns_max, self._limits.requests_per_batch_max)
    with patch.object(self, "_take_outside", lambda _: take_outside(most)):
        return many(self, now_ns, turns_max)


@bug("the rest of a message that is cut is forgotten", "core.schedule:Schedule._take_outside")
def _(take_outside, self, most):
    split = Requested.split

    def cut(event, count):
        first, rest = split(event, count)
        return first, replace(rest, runs=[])

    with patch.object(Requested, "split", cut):
        return take_outside(self, most)


@bug("of a peer's frames that wait only the first is run", "core.schedule:Schedule._next_part")
def _(next_part, self, messages_max):
    part = next_part(self, messages_max)
    ready = self._frames.ready
    if part.ends and ready and ready[-1].peer == part.packet.src:
        ready.pop()
    return part


@bug("a large frame holds its shard until it has run whole", "core.schedule:Schedule._next_part")
def _(next_part, self, messages_max):
    return next_part(self, 1 << 30)


@bug("local messages overtake the shard's own stream", "core.dispatch:Dispatch.execute")
def _(execute, self, work):
    with patch.object(self._streams.own, "waiting", deque()):
        execute(self, work)


@bug("items are taken whatever they follow", "core.items:SourceItems.run")
def _(run, self, event):
    newest = self._positions.newest(event.source, event.partition)
    return run(self, replace(event, after=newest))


@bug("a dead letter that two operators retry at once runs twice", "core.operations:Operations.run")
def _(run, self, event):
    with patch.object(self._dead, "is_gone", lambda row_key: False):
        return run(self, event)


# Requests of clients.


@bug("a run of requests is not remembered", "core.clients:Clients._together")
def _(together, self, event, session, run):
    with patch.object(self._requests, "ran", lambda *args: None):
        return together(self, event, session, run)


@bug("a request that is run alone is not remembered", "core.clients:Clients._one")
def _(one, self, session, first):
    with patch.object(self._requests, "ran", lambda *args: None):
        one(self, session, first)


@bug("a request waits for one that was answered and left no row", "core.clients:Clients._one")
def _(one, self, session, first):
    judge, settle = self._requests.judge, self._requests.settle

    def judge_and_settle(*args):
        with patch.object(self._requests, "settle", settle):
            return judge(*args)

    with (
        patch.object(self._requests, "judge", judge_and_settle),
        patch.object(self._requests, "settle", lambda session, number: None),
    ):
        one(self, session, first)


@bug("a request for another's slot is served, one by one", "core.clients:Clients._one")
def _(one, self, session, first):
    with patch.object(self._ownership, "served", ALL_SLOTS):
        one(self, session, first)


@bug("a request for another's slot is served, in a run", "core.clients:Clients._together")
def _(together, self, event, session, run):
    with patch.object(self._ownership, "served", ALL_SLOTS):
        return together(self, event, session, run)


@bug("what a client was told has failed can be retried", "core.clients:Clients._run")
def _(run, self, request):
    failed = self._dead.failed
    with patch.object(self._dead, "failed", lambda *message, answered=False: failed(*message)):
        return run(self, request)


@bug("a refusal by a full store is not remembered", "core.clients:Clients._run")
def _(run, self, request):
    outcome, remembered = run(self, request)
    return outcome, remembered and not self.full


# How a turn runs.


@bug("what was refused is tried again like what failed", "core.executor:Executor.alone")
def _(alone, self, handler, key, args, *, wanted):
    result = alone(self, handler, key, args, wanted=wanted)
    for _ in range(self._retries):
        if isinstance(result, Refused):
            result = alone(self, handler, key, args, wanted=wanted)
    return result


@bug("a turn that raises leaves its messages", "core.executor:Executor.alone")
def _(alone, self, handler, key, args, *, wanted):
    with patch.object(Turn, "clear", lambda turn: None):
        return alone(self, handler, key, args, wanted=wanted)


@bug("a turn that is tried again draws on behind its first try", "core.executor:Executor._try")
def _(try_, self, cached, handler, entity, args, before, wanted):
    self.turn.draws += self.turn._drew
    self.turn._drew = False
    return try_(self, cached, handler, entity, args, before, wanted)


@bug("what changes after forget is removed without a word", "core.intentions:_changed")
def _(changed, before, entity):
    return []


@bug("a reply that a later turn changes is encoded with the batch", "core.clients:Clients._replies")
def _(replies, self, handler, keys, column, shape, *, wanted):
    with patch.object(clients, "IMMUTABLE", Anything()):
        return replies(self, handler, keys, column, shape, wanted=wanted)


@bug("a reply overtakes what its turn has sent", "core.outcomes:Outcomes.teller")
def _(teller, self, handler):
    with patch.object(self._intentions, "apply", lambda entity: None):
        return teller(self, handler)


@bug("a batch that is thrown away leaves its live objects", "core.cache:Cache.undo")
def _(undo, self):
    locations = {name: dict(cached.locations) for name, cached in self.types.items()}
    undo(self)
    for name, cached in self.types.items():
        cached.locations.update(locations[name])


@bug("a changed state is not in its commit", "core.cache:Cache._states_of")
def _(states_of, self, cached, live):
    if len(cached.dirty) > 3:
        live.remove(cached.dirty.popitem()[1])
    return states_of(self, cached, live)


@bug("a forgotten entity's state stays in the store", "core.cache:Cache._states_of")
def _(states_of, self, cached, live):
    return replace(states_of(self, cached, live), gone=[])


# What turns leave, and where it goes.


@bug("a run of messages overtakes the one before it", "core.buffer:Runs.close")
def _(close, self):
    before = len(self._closed)
    close(self)
    if len(self._closed) > before > 0:
        self._closed.insert(-1, self._closed.pop())


@bug("what does not fit in a batch is forgotten", "core.delivery:Delivery.drain")
def _(drain, self, turns_max):
    route = self._route

    def forget(messages, *, queueing):
        if not queueing or self._routing.queueing:
            route(messages, queueing=queueing)

    with patch.object(self, "_route", forget):
        drain(self, turns_max)


@bug("what was sent before an ask comes behind it", "core.intentions:Intentions.apply")
def _(apply, self, entity):
    self._turn.intentions.sort(key=lambda intention: intention[0] == "send")
    apply(self, entity)


@bug("forget drops what its turn asks after it", "core.intentions:Intentions.apply")
def _(apply, self, entity):
    self._turn.intentions.sort(key=lambda intention: intention[0] == "forget")
    apply(self, entity)


@bug("forget keeps what its turn has asked before it", "core.intentions:Intentions.apply")
def _(apply, self, entity):
    self._turn.intentions.sort(key=lambda intention: intention[0] != "forget")
    apply(self, entity)


@bug("forget leaves what earlier turns have asked", "core.tables.asks:Asks.take_all")
def _(take_all, self, type_name, key):
    return []


@bug("ids begin anew in each commit of an epoch", "core.ids:Ids.new")
def _(new, self):
    with patch.object(self, "_epoch", 0), patch.object(self, "_commit", 0):
        return new(self)


@bug("a timer fires from memory, not from its row", "core.delivery:Delivery.fire")
def _(fire, self, due):
    stands, seen = self._timers.stands, dict(due)
    with patch.object(self._timers, "stands", lambda key: seen.get(key) or stands(key)):
        fire(self, due)


@bug("a timer that fired keeps its row", "core.delivery:Delivery._fire")
def _(fire, self, row_key, timer):
    cancel = self._timers.cancel
    with patch.object(self._timers, "cancel", lambda key: key != row_key and cancel(key)):
        fire(self, row_key, timer)


@bug("the time-out of an answered ask stays", "core.outcomes:Outcomes.late")
def _(late, self, type_name, key, id):
    return True


@bug("an outcome that nobody handled can be retried", "core.outcomes:Outcomes._run")
def _(run, self, ask, kind, body):
    bury = self._dead.bury
    with patch.object(
        self._dead, "bury", lambda *message, answered=False, **rest: bury(*message, **rest)
    ):
        run(self, ask, kind, body)


# Replies of stages that flow on.


@bug("replies flow on as later turns have left them", "core.flows:Flows.collector")
def _(collector, self, handler, replies):
    return replies.append


@bug("a reply flows on twice", "core.flows:Flows._leave")
def _(_leave, self, columns):
    _leave(self, columns)
    _leave(self, columns)


@bug("a reply that a stage refuses is lost without a word", "core.flows:Flows.alone")
def _(alone, self, handler, key, reply):
    with patch.object(self, "_dead"):
        alone(self, handler, key, reply)


@bug("the replies of a batch flow on under the keys of others", "core.flows:Flows.together")
def _(together, self, handler, keys, replies):
    together(self, handler, keys[::-1], replies)


@bug("the reply of a turn that ran alone flows nowhere", "core.flows:Flows.alone")
def _(alone, self, handler, key, reply):
    pass


@bug("what is forgotten is no change", "core.flows:Flows.changed")
def _(changed, self):
    forgotten = any(cached.forgotten for cached in self._executor.cache.types.values())
    return False if forgotten else changed(self)


@bug("changes go on before the last turn of their batch", "core.delivery:Delivery.queue")
def _(queue, self):
    self.drain(100)
