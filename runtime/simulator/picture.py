"""A simulated run as a picture: a lane per shard, time to the right, in one SVG file.

Frames are lines from sender to receiver (dashed and red when lost), commits are dots that are
filled when durable, and what went wrong stands where it happened. Meant for a run that was
made small first: a person can then see which packet met which crash.

Knows what a cluster noted and nothing of shards.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from msgspec import Struct

from skerry.runtime.core import wire

STEP_PX, LANE_PX, LEFT_PX, TOP_PX = 6, 90, 90, 60

COLOURS = {"HELLO": "#888", "RESUME": "#c80", "FRAME": "#06c", "ACK": "#6b6", "FENCED": "#c0c"}


class Note(Struct, frozen=True):
    """One thing that happened."""

    step: int
    shard: int
    kind: str
    """The name of a packet's kind, 'commit', 'durable', or a fault's name."""
    text: str = ""
    peer: int | None = None
    until: int | None = None
    """The step in which a packet arrives, or a fault ends; None: a packet that was lost."""


class Diary:
    """What happens in a simulated run, once `notes` is a list."""

    def __init__(self, step_no: Callable[[], int]) -> None:
        self._step_no = step_no
        self.notes: list[Note] | None = None

    def note(self, shard: int, kind: str, text: str = "") -> None:
        """Note what happens to a shard."""
        if self.notes is not None:
            self.notes.append(Note(self._step_no(), shard, kind, text))

    def packet(self, raw: bytes, arrivals: Sequence[int | None]) -> None:
        """Note a packet, and the steps in which copies of it arrive; None: it is lost."""
        if self.notes is not None:
            packet = wire.unpack(raw)
            text = f"{packet.src} to {packet.dst}, number {packet.seq}, {packet.count} messages"
            kind = wire.Kind(packet.kind).name
            for until in arrivals:
                note = Note(self._step_no(), packet.src, kind, text, packet.dst, until)
                self.notes.append(note)

    def picture(self, shards: int, title: str) -> str:
        """What was noted, as an SVG document."""
        notes = self.notes or []
        # Packets may go on for ever; what decides has happened before.
        last = 30 + max((note.step for note in notes if note.peer is None), default=0)
        return svg(notes, shards, title=title, last=last)


def svg(notes: Sequence[Note], shards: int, *, title: str, first: int = 0, last: int = 0) -> str:
    """The notes from step `first` to step `last` (0: the end) as an SVG document."""
    last = last or max((note.step for note in notes), default=0)
    shown = [note for note in notes if first <= note.step <= last]
    width = LEFT_PX + (last - first + 20) * STEP_PX
    height = TOP_PX + shards * LANE_PX
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="20" font-size="14">{escape(title)}</text>',
    ]
    for shard in range(shards):
        y = _y(shard)
        parts.append(f'<text x="10" y="{y + 4}">shard {shard}</text>')
        parts.append(f'<path d="M{LEFT_PX} {y}H{width}" stroke="#ddd"/>')
    parts += [_part(note, first) for note in shown]
    return "\n".join([*parts, "</svg>"])


def _x(step: int, first: int) -> int:
    return LEFT_PX + (step - first) * STEP_PX


def _y(shard: int) -> int:
    return TOP_PX + shard * LANE_PX + LANE_PX // 2


def _part(note: Note, first: int) -> str:
    x, y = _x(note.step, first), _y(note.shard)
    told = f"<title>step {note.step}: {escape(note.kind)} {escape(note.text)}</title>"
    if note.peer is not None and note.kind in COLOURS:
        lost = note.until is None
        x2 = _x(note.until or note.step + 3, first)
        y2 = _y(note.peer) if not lost else y + (_y(note.peer) - y) // 3
        style = 'stroke="red" stroke-dasharray="3"' if lost else f'stroke="{COLOURS[note.kind]}"'
        return f'<path d="M{x} {y}L{x2} {y2}" {style}>{told}</path>'
    if note.kind in ("commit", "durable"):
        fill = "black" if note.kind == "durable" else "white"
        return f'<circle cx="{x}" cy="{y}" r="3" fill="{fill}" stroke="black">{told}</circle>'
    line = f'<path d="M{x} {y - 30}V{y + 30}" stroke="red" stroke-width="2">{told}</path>'
    return line + f'<text x="{x + 3}" y="{y - 24}" fill="red">{escape(note.kind)}</text>'
