"""Bugs of the worker's side of its callers."""

from msgspec.structs import replace

from tests.mutants.bugs import bug


@bug("a state is told before it is durable", "gateway.inquiries:Inquiries._hold")
def _(hold, self, looks, n, value, size):
    hold(self, looks, n, value, size)
    looks.held[-1] = replace(looks.held[-1], no=self._shard.durable)
