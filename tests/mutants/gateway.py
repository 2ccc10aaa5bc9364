"""Bugs of the worker's side of its callers."""

from msgspec.structs import replace

from tests.mutants.bugs import bug


@bug("a state is told before it is durable", "gateway.inquiries:Inquiries._hold")
def _(hold, self, looks, n, value, size):
    hold(self, looks, n, value, size)
    looks.held[-1] = replace(looks.held[-1], no=self._shard.durable)


@bug("a page has slots that are not served", "gateway.looks:_Walk.here")
def _(here, self):
    self._here = sorted(self._left)
    return self._here


@bug("a slot that leaves in the middle is counted here and there", "gateway.looks:_Walk.lost")
def _(lost, self, slot):
    self._ownership.serves(slot) or self._left.discard(slot)
    return False
