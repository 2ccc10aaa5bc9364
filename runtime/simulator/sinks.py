"""Simulated sinks: what came out of each output, and whether its numbers hold together.

A sink has items at once; that it has them, the shard hears late, or never when it is killed.
Checks I1 for what leaves: numbers leave no gap, and one number is one item, however often it
comes. Shares no code with the core.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from skerry.runtime.core.events import Table, Write, Written
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.network import Network
from skerry.stream.outlet import Outlet

End = tuple[str, int, str]
"""(output, which of its sinks, partition)."""


class Shore:
    """Where everything comes out, of all shards."""

    def __init__(self, points: Counter[str]) -> None:
        self._points = points
        self.emitted: dict[tuple[str, int], list[Any]] = {}
        """What came out at each sink of each output, in the order in which it came."""
        self.out: dict[End, list[Any]] = {}
        """What came out at each partition of a sink, by number."""
        self.sinks: dict[tuple[str, int], Any] = {}
        """Sinks of a test, which are written to as well."""

    def came_out(self, output: str, sink: int) -> list[Any]:
        """Everything that came out at a sink, partition by partition, in the order of its number."""
        ends = sorted(end for end in self.out if end[:2] == (output, sink))
        return [item for end in ends for item in self.out[end]]

    def known_to(self, disks: Iterable[MemoryStore]) -> dict[End, list[Any]]:
        """Return the items that came out and that these disks know of; the rest belongs to an earlier
        generation."""
        known = {}
        for disk in disks:
            for _, row in disk.scan(Table.OUTPUT_NUMBER):
                output, sink, partition, number = msgspec.msgpack.decode(row)
                end = output, sink, partition
                known[end] = self.out.get(end, [])[:number]
        return known

    def write(self, write: Write, outlets: Mapping[str, Outlet]) -> None:
        """Take items. Raises AssertionError: they are not what must come."""
        end = write.output, write.sink, write.partition
        items = [msgspec.msgpack.decode(item) for item in write.items]
        out = self.out.setdefault(end, [])
        assert write.sequence <= len(out) + 1, f"I1: {end}: {write.sequence} after {len(out)}"
        known = out[write.sequence - 1 : write.sequence - 1 + len(items)]
        assert known == items[: len(known)], f"I1: {end}: another item {write.sequence}"
        if known:
            self._points["items handed to a sink again"] += len(known)
        out += items[len(known) :]
        self.emitted.setdefault(end[:2], []).extend(items[len(known) :])
        sink = self.sinks.get(end[:2])
        if sink is not None:
            of = outlets[write.output].type_at(write.sink)
            typed = [msgspec.msgpack.decode(item, type=of) for item in write.items]
            sink.write(write.partition, write.sequence, typed)


class Sinks:
    """The way of one shard's process to the shore: a port of its driver."""

    def __init__(
        self,
        shore: Shore,
        outlets: Mapping[str, Outlet],
        network: Network,
        leaves: Callable[[], None],
    ) -> None:
        self._shore, self._outlets, self._network = shore, outlets, network
        self._leaves = leaves
        """Told before anything leaves the process."""
        self._heard: list[Written] = []

    def write(self, write: Write) -> None:
        """Hand items to a sink."""
        self._leaves()
        self._shore.write(write, self._outlets)
        self._network.later(lambda: self._heard.append(write.written))

    def finished(self) -> list[Written]:
        """Return the writes that the shard has heard of since the last call."""
        heard, self._heard = self._heard, []
        return heard
