"""Bugs of moving slots: marks, stops, waits, chunks, parked messages, versions."""

from unittest import mock

from msgspec.structs import replace

from skerry.runtime.core import moves, wire
from skerry.runtime.core.buffer import SENDS, Messages
from skerry.runtime.core.events import Table
from skerry.runtime.core.progress import END, START, Tally
from tests.mutants.bugs import bug

# What comes before the rows leave.


@bug("a slot stops before the marks of all members have come", "core.moves:Moves._may_stop")
def _(may_stop, self):
    missing = len(self._now.awaited) - len(self._now.marked)
    return self._ownership.leaving if missing <= 1 else frozenset()


@bug("the own mark is not awaited", "core.moves:Moves._may_stop")
def _(may_stop, self):
    marked = {*self._now.marked, self._ownership.me}
    with mock.patch.object(self, "_now", replace(self._now, marked=list(marked))):
        return may_stop(self)


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
    return set()


@bug("a sink that hangs holds up all slots that leave", "core.moves:Moves._may_stop")
def _(may_stop, self):
    return frozenset() if self._writing(self._ownership.leaving) else may_stop(self)


@bug("a slot that leaves begins to hand out items", "core.tables.outputs:Outputs.offer")
def _(offer, self, durable, leaving):
    return offer(self, durable)


@bug("the old owner sends a dead letter anew", "core.operations:Operations._serves")
def _(serves, self, id):
    return True


@bug("rows of a slot that is on its way are loaded at a start", "core.progress:Progress.ownership")
def _(ownership, self, me):
    found = ownership(self, me)
    found.served = frozenset(self.placement.of(me)) | found.leaving
    return found


@bug("a partition that has left is read on", "worker.driver:Driver._adopt")
def _(adopt, self, slots, positions):
    adopt(self, slots | self.__dict__.get("_once", frozenset()), positions)
    self._once = slots | self.__dict__.get("_once", frozenset())


# The rows.


@bug("rows of slots that have left stay where they were", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[2] is not None]


@bug("the outcomes of requests are left behind", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[0] != Table.REQUEST]


@bug("low-water marks are left behind", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[0] != Table.FLOOR]


@bug("timers are left behind", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[0] != Table.TIMER]


@bug("positions of sources are left behind", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[0] != Table.POSITION]


@bug("outcomes under idempotency keys are left behind", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[0] != Table.NAME]


@bug("states of slots that have left stay where they were", "core.handover:groups")
def _(groups, changes):
    return groups([(place, value) for place, value in changes if value is not None])


@bug("the numbers of outputs are left behind", "core.handover:others")
def _(others, changes):
    return [row for row in others(changes) if row[0] != Table.OUTPUT_NUMBER]


@bug("a chunk begins with the first row", "core.handover:cut")
def _(cut, store, types, slot, after, bytes_max):
    return cut(store, types, slot, after if after == END else START, bytes_max)


# Copies that are made while a slot is served.


@bug("changes of states that are copied do not follow", "core.handover:changes_of")
def _(changes_of, copies, states, rows):
    return changes_of(copies, [], rows)


@bug("changes of rows that are copied do not follow", "core.handover:changes_of")
def _(changes_of, copies, states, rows):
    return changes_of(copies, states, [])


@bug("what is forgotten after it was copied comes back", "core.handover:changes_of")
def _(changes_of, copies, states, rows):
    found = changes_of(copies, states, rows)
    return {
        slot: kept
        for slot, changes in found.items()
        if (kept := [(place, value) for place, value in changes if value is not None])
    }


@bug("a slot that is copied to its end is not followed", "core.handover:changes_of")
def _(changes_of, copies, states, rows):
    growing = {slot: copy for slot, copy in copies.items() if copy.upto != END}
    return changes_of(growing, states, rows)


@bug("changes that follow are not counted", "core.copying:Copying.follow")
def _(follow, self, sent, states, rows, time_ns):
    return sent, follow(self, sent, states, rows, time_ns)[1]


@bug("a chunk of a copy that was given up is taken", "core.moves:Moves._take_chunk")
def _(take_chunk, self, slot, chunk):
    if slot in self._open.taken:
        chunk = replace(chunk, since=self._open.taken[slot].since)
    take_chunk(self, slot, chunk)


@bug("rows of a copy that was given up stay", "core.moves:Moves._adopt")
def _(adopt, self):
    adopt(self)
    self._open = replace(self._open, gone=[])


@bug("a copy goes on though the slot goes elsewhere", "core.progress:Progress.copies")
def _(copies, self, ownership, coming):
    placement = ownership.placement
    coming = {slot: placement.coming.get(slot, placement.slots[slot]) for slot in self.sent}
    return copies(self, ownership, coming)


@bug("a copy that was made is made again", "core.progress:Progress.copies")
def _(copies, self, ownership, coming):
    sent, taken = copies(self, ownership, coming)
    return {slot: replace(copy, upto=START) for slot, copy in sent.items()}, taken


@bug("a version is finished before the slots to come are copied", "core.progress:Progress.busy")
def _(busy, self):
    return self.moving or bool(self.gone)


@bug("a slot moves and is named to move next in one version", "app.placer:_coming")
def _(coming, slots, members, slots_max, moved):
    return coming(slots, members, slots_max, ())


@bug("a slot is copied however much waits to be acked", "core.moves:Moves._may_copy")
def _(may_copy, self):
    with mock.patch.object(moves, "COPY_AHEAD_BYTES", 1 << 60):
        return may_copy(self)


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
    found = stored(store, placement)
    anew = {slot: replace(copy, tally=Tally()) for slot, copy in found.sent.items()}
    return replace(found, sent=anew)


@bug("what was taken of a slot is counted anew after a crash", "core.progress:stored")
def _(stored, store, placement):
    progress = stored(store, placement)
    anew = {slot: replace(copy, tally=Tally()) for slot, copy in progress.taken.items()}
    return replace(progress, taken=anew)


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


@bug("a member leaves though slots are copied to it", "app.placer:towards")
def _(towards, old, members, slots_max):
    found = towards(old, members, slots_max)
    if found is None or found.coming or found.slots != old.slots:
        return found
    return replace(found, members=sorted(members))


@bug(
    "frames that a kill brought back end their shard once their peer has left",
    "core.streams.speech:Speech.forget",
)
def _(forget, self, peer):
    self.outbound[peer].recovered = 0
    return forget(self, peer)


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
