"""Bugs of moving slots: marks, stops, waits, chunks, parked messages, versions."""

from unittest import mock

from msgspec.structs import replace

from skerry.runtime.core import moves, wire
from skerry.runtime.core.buffer import SENDS, Messages
from skerry.runtime.core.events import Table
from skerry.runtime.core.progress import Tally
from tests.mutants.bugs import bug

# What comes before the rows leave.


@bug("a slot stops before the marks of all members have come", "core.moves:Moves._may_stop")
def _(may_stop, self):
    return bool(self._now.leaving) and len(self._now.marked) >= len(self._now.awaited) - 1


@bug("the own mark is not awaited", "core.moves:Moves._may_stop")
def _(may_stop, self):
    marked = {*self._now.marked, self._ownership.me}
    return bool(self._now.leaving) and marked.issuperset(self._now.awaited)


@bug("a mark leaves before the last frame", "core.moves:Moves._adopt")
def _(adopt, self):
    self._open = replace(self._now, marked=list(self._now.awaited))
    adopt(self)
    self._open = replace(self._open, marked=self._open.awaited[1:])


@bug("a slot's rows leave though what it has sent is not acked", "core.moves:Moves._may_send")
def _(may_send, self):
    with mock.patch.object(self, "_now", replace(self._now, sealed={})):
        return may_send(self)


@bug("the wait for acks forgets the own stream", "core.moves:Moves._may_send")
def _(may_send, self):
    others = {peer: seq for peer, seq in self._now.sealed.items() if peer != self._ownership.me}
    with mock.patch.object(self, "_now", replace(self._now, sealed=others)):
        return may_send(self)


@bug("what turns send to a leaving slot still runs here", "core.routing:Routing.staying")
def _(staying, self, messages):
    return messages


@bug(
    "frames run that left by a version which is not adopted yet",
    "core.streams.arrivals:Arrivals.wait",
)
def _(wait, self, stream):
    self.ready.append(stream)


@bug("a shard that is not told of a version skips one", "app.scaling:Scaling.finished")
def _(finished, self, placement, standings):
    return all(shard in standings for shard in placement.members)


@bug("a version that is known is adopted again", "core.moves:Moves.offer")
def _(offer, self, placement):
    self._next = placement


@bug("the next version is made before the last one is durable", "core.shard:Shard.standing")
def _(standing, self):
    return replace(standing(self), settled=True)


# What memory holds of a slot.


@bug("live entities of a slot that has left stay in memory", "core.cache:Cache.drop")
def _(drop, self, slots):
    pass


@bug("timers of a slot that has left stay in memory", "core.tables.timers:Timers.drop")
def _(drop, self, slot):
    pass


@bug("asks of a slot that has left stay in memory", "core.tables.asks:Asks.drop")
def _(drop, self, slot):
    pass


@bug("outcomes of a slot that has left stay in memory", "core.tables.requests:Requests.drop")
def _(drop, self, slot):
    pass


@bug("items of a slot that has left are still handed out", "core.tables.outputs:Outputs.drop")
def _(drop, self, slot):
    pass


@bug("a slot leaves while a sink is being handed its items", "core.tables.outputs:Outputs.writing")
def _(writing, self, slots):
    return False


@bug("a slot that leaves begins to hand out items", "core.tables.outputs:Outputs.offer")
def _(offer, self, durable, leaving):
    return offer(self, durable)


@bug("the old owner sends a dead letter anew", "core.operations:Operations.find")
def _(find, self, id):
    with mock.patch.object(self._ownership, "serves", lambda slot: True):
        return find(self, id)


@bug("rows of a slot that is on its way are loaded at a start", "core.progress:Progress.ownership")
def _(ownership, self, me):
    found = ownership(self, me)
    found.served = found._owned(self.placement) | found.leaving
    return found


@bug("a partition that has left is read on", "worker.driver:Driver._adopt")
def _(adopt, self, slots, positions):
    adopt(self, slots | self.__dict__.get("_once", frozenset()), positions)
    self._once = slots | self.__dict__.get("_once", frozenset())


# The rows.


@bug("what is sent stays where it was", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [] if gone else others(self)


@bug("the outcomes of requests are left behind", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [row for row in others(self, gone=gone) if row[0] != Table.REQUEST]


@bug("low-water marks are left behind", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [row for row in others(self, gone=gone) if row[0] != Table.FLOOR]


@bug("timers are left behind", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [row for row in others(self, gone=gone) if row[0] != Table.TIMER]


@bug("positions of sources are left behind", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [row for row in others(self, gone=gone) if row[0] != Table.POSITION]


@bug("outcomes under idempotency keys are left behind", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [row for row in others(self, gone=gone) if row[0] != Table.NAME]


@bug("states stay where they were", "core.handover:Chunk.groups")
def _(groups, self, *, gone=False):
    return [] if gone else groups(self)


@bug("the numbers of outputs are left behind", "core.handover:Chunk.others")
def _(others, self, *, gone=False):
    return [row for row in others(self, gone=gone) if row[0] != Table.OUTPUT_NUMBER]


@bug("a chunk begins with the last row of the one before", "core.moves:Moves._send")
def _(send, self, time_ns):
    self._after = (0, "", b"")
    rows, self._rows = self._rows, []
    send(self, time_ns)
    self._rows = rows + self._rows[:-1]


@bug("a slot is served before its last chunk", "core.moves:Moves._take_chunk")
def _(take_chunk, self, slot, chunk):
    take_chunk(self, slot, chunk)
    if slot not in self._open.complete:
        self._open = replace(self._open, complete=[*self._open.complete, slot])


@bug("a row that was lost on its way is not missed", "core.handover:check")
def _(check, slot, taken, whole):
    pass


@bug("the new owner is not told what ids in the rows mean", "core.moves:Moves._take_chunk")
def _(take_chunk, self, slot, chunk):
    take_chunk(self, slot, replace(chunk, schemas=[]))


@bug("what ids in rows mean is read at the start only", "core.schemas:Schemas.load")
def _(load, self, handlers):
    if "started" not in vars(self):
        self.started = True
        load(self, handlers)


@bug("the new owner is behind the time of the old one", "core.moves:Moves._take_chunk")
def _(take_chunk, self, slot, chunk):
    take_chunk(self, slot, replace(chunk, time_ns=0))


@bug("chunks are cut however many wait to be acked", "core.moves:Moves._may_send")
def _(may_send, self):
    with mock.patch.object(moves, "AHEAD_BYTES", 1 << 60):
        return may_send(self)


@bug("the tally starts anew after a crash of the sender", "core.progress:stored")
def _(stored, store, placement):
    return replace(stored(store, placement), sent=Tally())


@bug("what was taken of a slot is counted anew after a crash", "core.progress:stored")
def _(stored, store, placement):
    progress = stored(store, placement)
    return replace(progress, arriving=dict.fromkeys(progress.arriving, Tally()))


# What was parked.


@bug("parked messages are wiped when a slot has come", "core.moves:Moves._serve")
def _(serve, self, tables):
    serve(self, tables)
    self.released.clear()


@bug("parked messages stay when they were released", "core.moves:Moves._serve")
def _(serve, self, tables):
    serve(self, tables)
    self._rows = [row for row in self._rows if row[0] != Table.PARKED]


@bug("parked messages have no row", "core.moves:Moves.park")
def _(park, self, no):
    for messages in self._routing.parked.take():
        messages.encoded()


@bug("parked messages run in the order of their bytes", "core.moves:Moves._serve")
def _(serve, self, tables):
    serve(self, tables)
    self.released.sort(key=lambda run: wire.encode_runs([run]))


@bug("frames of peers run beside what was parked", "core.streams.arrivals:Arrivals.run_own_first")
def _(run_own_first, self):
    pass


@bug("a version without a member forgets frames that are unacked", "app.scaling:_apart")
def _(apart, leave, standings):
    return True


@bug(
    "a slot that comes back meets the sessions of its first stay",
    "core.tables.requests:Requests.load",
)
def _(load, self, rows):
    for _, key, _ in rows:
        self._away.setdefault(bytes(key[2:18]), set()).add(int.from_bytes(key[:2], "big"))


@bug("a source's key for a leaving slot is not looked at", "core.delivery:Delivery.send")
def _(send, self, handler, keys, column):
    if self._routing.queueing:
        send(self, handler, keys, column)
    else:
        self._route(Messages(SENDS[handler], keys, column, []), queueing=False)
