"""Bugs of what moves slots by load: how the load is measured, and what is decided by it."""

from unittest import mock

from msgspec.structs import replace

from skerry.runtime.app import balancing, placer
from skerry.runtime.core.demand import Load
from skerry.runtime.core.events import SLOTS
from skerry.runtime.worker import meter
from tests.mutants.bugs import bug

# What is decided.


@bug("one look at an uneven load is enough", "app.balancing:Balancing.look")
def _(look, self, placement, loads):
    with mock.patch.object(balancing, "LOOKS", 1):
        return look(self, placement, loads)


@bug("looks need not be in a row to find the load uneven", "app.balancing:Balancing.look")
def _(look, self, placement, loads):
    before = self._uneven
    found = look(self, placement, loads)
    self._uneven = max(self._uneven, before)
    return found


@bug("slots move though no worker is really busy", "app.balancing:Balancing.look")
def _(look, self, placement, loads):
    with mock.patch.object(balancing, "BUSY", 0.001):
        return look(self, placement, loads)


@bug("slots move though the load is nearly even", "app.balancing:Balancing.look")
def _(look, self, placement, loads):
    with mock.patch.object(balancing, "AHEAD", 1.0):
        return look(self, placement, loads)


@bug("who does not say its load counts as idle", "app.balancing:Balancing.look")
def _(look, self, placement, loads):
    return look(self, placement, {shard: Load(0.0) for shard in placement.members} | dict(loads))


@bug("loads that were measured before a move count behind it", "app.balancing:Balancing.moved")
def _(moved, self, slots, size):
    moved(self, slots, size)
    self._wait_until = self._look


@bug("the bytes that have moved are not counted", "app.balancing:Balancing.moved")
def _(moved, self, slots, size):
    moved(self, slots, 0)


@bug("a slot that has moved does not rest", "app.balancing:Balancing.moved")
def _(moved, self, slots, size):
    moved(self, slots, size)
    self._rest_until.clear()


@bug("a slot moves that carries the hot spot across", "app.balancing:Balancing._chosen")
def _(chosen, self, placement, load, giver, idle):
    return chosen(self, placement, load, giver, -9.0)


@bug("slots move until the idlest is the busiest", "app.balancing:Balancing._chosen")
def _(chosen, self, placement, load, giver, idle):
    with mock.patch.object(balancing, "EVEN", 3.0):
        return chosen(self, placement, load, giver, idle)


@bug("slots that have left their shard move again", "app.balancing:Balancing._chosen")
def _(chosen, self, placement, load, giver, idle):
    return chosen(self, replace(placement, slots=[giver] * SLOTS), load, giver, idle)


@bug("large slots move as many at once as small ones", "app.balancing:Balancing._chosen")
def _(chosen, self, placement, load, giver, idle):
    return chosen(self, placement, replace(load, slot_bytes=0), giver, idle)


@bug("slots move that hardly have a load", "app.balancing:Balancing._chosen")
def _(chosen, self, placement, load, giver, idle):
    with mock.patch.object(balancing, "WORTH", 0.0):
        return chosen(self, placement, load, giver, idle)


@bug("a move by load deals all slots out evenly", "app.scaling:Reassignment._towards")
def _(towards, self, placement):
    return placer.towards(placement, self.goal, 16)


@bug("a change of owners makes no version", "app.placer:reassigned")
def _(reassigned, old, owners):
    found = reassigned(old, owners)
    return found and replace(found, version=old.version)


# What is measured.


@bug("a load never fades", "worker.meter:_faded")
def _(faded, found, left):
    return dict(found)


@bug("an idle hour counts like one batch", "worker.meter:Meter._tick")
def _(tick, self):
    with mock.patch.object(self, "_half_life_s", 1e9):
        tick(self)


@bug("the first seconds count as idle ones before the start", "worker.meter:Meter.look")
def _(look, self, served, stored_bytes=0):
    with mock.patch.object(self, "_began_ns", -(10**18)):
        return look(self, served, stored_bytes)


@bug("time that a batch waits for a core counts", "worker.meter:Meter.took")
def _(took, self, clock_s, own_s, commit, sample, served):
    took(self, clock_s, clock_s, commit, sample, served)


@bug("all turns of a batch count alike, however long they took", "worker.meter:Meter.took")
def _(took, self, clock_s, own_s, commit, sample, served):
    if sample is not None:
        marks = sample.marks
        at = [clock_s * (n + 1) / len(marks) for n in range(len(marks))]
        sample.marks = [(type, keys, when) for (type, keys, _), when in zip(marks, at)]
    took(self, clock_s, own_s, commit, sample, served)


@bug("messages for other shards are a load of this one's slots", "worker.meter:Meter._add")
def _(add, self, spent, served):
    add(self, spent, range(SLOTS))


@bug("the bytes that a state takes count for nothing", "worker.meter:_written")
def _(written, commit, salt):
    return {}


@bug("a slot that has left is told as a load", "worker.meter:Meter.look")
def _(look, self, served, stored_bytes=0):
    return look(self, range(SLOTS), stored_bytes)


@bug("in a crowd the heaviest entities are forgotten, too", "worker.meter:Meter._add")
def _(add, self, spent, served):
    with mock.patch.object(meter, "ENTITIES", 0):
        add(self, spent, served)


@bug("only the first keys of a long run are looked at", "worker.meter:_step")
def _(step, keys):
    return 10**6
