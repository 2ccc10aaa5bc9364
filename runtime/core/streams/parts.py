"""A frame that is run in parts: its messages, cut so that no part costs a look at all of them.

A batch takes a large frame in parts, so that many slow messages in one frame do not hold
their shard for all of it.

Pure. Idea: docs/streams.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core import wire
from skerry.runtime.core.wire import Packet, Run

RUN_MESSAGES = 256
"""Messages of the runs that a frame is cut into: a part that ends within one encodes it anew."""


OPEN_BYTES = 4 << 20
"""Bodies of frames that wait decoded, which takes several times as much memory."""


class Part(Struct, frozen=True, gc=False):
    """The messages of a frame that one batch takes."""

    packet: Packet
    start: int
    end: int

    @property
    def count(self) -> int:
        """How many messages."""
        return self.end - self.start

    @property
    def ends(self) -> bool:
        """Whether nothing of the frame is left behind it."""
        return self.end == self.packet.count


class CutFrame:
    """The messages of a frame, of which any part can be had."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = [short for run in runs for short in _short_runs(run)]
        self._ends = list(accumulate(len(run.keys) for run in self._runs))

    def part(self, start: int, end: int) -> list[Run]:
        """The messages from `start` up to `end`."""
        runs = []
        for place in range(bisect_right(self._ends, start), bisect_left(self._ends, end) + 1):
            run, behind = self._runs[place], self._ends[place]
            before = behind - len(run.keys)
            if start > before or end < behind:
                run = wire.part(run, max(start - before, 0), min(end, behind) - before)
            runs.append(run)
        return runs


class OpenFrames:
    """Messages of frames that wait, as far as they were decoded already."""

    def __init__(self) -> None:
        self._runs: dict[tuple[int, int], list[Run]] = {}
        """By peer and number; those of other frames are decoded again."""
        self._bytes = 0
        self._cut: dict[tuple[int, int], CutFrame] = {}
        """Frames of which a part has run: one of each stream at most."""

    def keep(self, packet: Packet, runs: list[Run]) -> None:
        """Keep what a frame was decoded to when it was judged, while few wait."""
        if self._bytes < OPEN_BYTES:
            self._bytes += len(packet.body)
            self._runs[packet.src, packet.seq] = runs

    def messages_of(self, part: Part) -> list[Run]:
        """The messages of a part that a batch has taken."""
        packet = part.packet
        where = packet.src, packet.seq
        frame = self._cut.get(where)
        if frame is None:
            runs = self._runs.pop(where, None)
            if runs is None:
                runs = wire.decode_runs(packet.body)
            else:
                self._bytes -= len(packet.body)
            if part.count == packet.count:
                return runs
            frame = self._cut[where] = CutFrame(runs)
        if part.ends:
            del self._cut[where]
        return frame.part(part.start, part.end)


def _short_runs(run: Run) -> list[Run]:
    """A run as runs of no more than `RUN_MESSAGES`."""
    count = len(run.keys)
    try:
        msgspec.msgpack.decode(run.columns)
    except wire.UNREADABLE:  # Its turns refuse them, each alone.
        blobs = [Raw(wire.UNREAD)] * count
        about = run.call, run.type, run.handler, run.params, run.keys
        run = Run(*about, wire.NO_COLUMNS, blobs, run.extras)
    return list(wire.dealt(run, [place // RUN_MESSAGES for place in range(count)]).values())
