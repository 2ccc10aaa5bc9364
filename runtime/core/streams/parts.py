"""A frame that is run in parts: its messages, decoded once, of which each part is a slice.

A batch takes a large frame in parts, so that many slow messages in one frame do not hold
their shard for all of it. A part costs what it holds, however large its frame is.

Pure. Idea: docs/ideas/streams.md.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import Any

from msgspec import Raw, Struct

from skerry.runtime.core import wire
from skerry.runtime.core.wire import Packet, Run

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
        self._runs = [_decoded(run) for run in runs]
        self._ends = list(accumulate(len(run.keys) for run in runs))

    def part(self, start: int, end: int) -> list[Run]:
        """The messages from `start` up to `end`."""
        runs = []
        for place in range(bisect_right(self._ends, start), bisect_left(self._ends, end) + 1):
            (run, columns), behind = self._runs[place], self._ends[place]
            before = behind - len(run.keys)
            if start > before or end < behind:
                run = wire.part(run, columns, max(start - before, 0), min(end, behind) - before)
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


def _decoded(run: Run) -> tuple[Run, list[list[Any]]]:
    """A run and its columns. Those that do not decode become arguments that their turns refuse, each
    alone."""
    try:
        return run, wire.plain_columns(run)
    except wire.UNREADABLE:
        blobs = [Raw(wire.UNREAD)] * len(run.keys)
        about = run.call, run.type, run.handler, run.params, run.keys
        return Run(*about, wire.NO_COLUMNS, blobs, run.extras), []
