"""Messages that wait for a time: named timers, send_later, ask time-outs.

A timer is a row of its entity's slot. When it is due it is only a candidate: its turn
runs if the very row that was seen still stands, and the same commit deletes the row, so
a timer that was cancelled or set again never runs, and none runs twice (I10).

What a batch sets or cancels is staged, and counts from its sealing on. Reads no clock:
the time comes in. Idea: docs/entities.md.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import msgspec
import xxhash
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.ownership import slot_of

STALE_MIN = 64
"""Entries of the heap whose timers stand no more, that are let be: a few are not worth a look."""


class Timer(Struct, array_like=True, frozen=True):
    """A row of the TIMER table."""

    kind: str
    """'named' (a handler of the entity), 'later' (a message to `to`), 'timeout' (of the ask `id`)."""
    due_ns: int
    type: str
    key: str
    name: str
    """The timer's name; for an ask's time-out empty."""
    handler: int
    params: int
    args: bytes
    to: str = ""
    """For 'later': the key of the target, whose type is `to_type`."""
    to_type: str = ""
    id: bytes = b""


_row = msgspec.msgpack.Decoder(Timer)
_encode = msgspec.msgpack.Encoder().encode


def timer_key(type_name: str, key: str, name: str) -> bytes:
    """The row of an entity's named timer: setting it again replaces the row."""
    identity = _encode((type_name, key, name))
    return slot_prefix(slot_of(type_name, key)) + xxhash.xxh3_128_digest(identity)


def unnamed_key(type_name: str, key: str, id: bytes) -> bytes:
    """The row of a send_later or a time-out, by an id that is never used again."""
    return slot_prefix(slot_of(type_name, key)) + xxhash.xxh3_128_digest(id)


class Timers:
    """All timers of a shard, and those that the open batch changes."""

    def __init__(self) -> None:
        self._standing: dict[bytes, Timer] = {}
        self._named: dict[tuple[str, str], dict[str, bytes]] = {}
        self._heap: list[tuple[int, int, bytes, Timer]] = []
        """What stands, by time; and what was cancelled or set again, until it is cleared out."""
        self._order = 0
        self._staged: dict[bytes, Timer | None] = {}
        self._staged_named: dict[tuple[str, str], dict[bytes, None]] = {}
        """Rows of named timers that the open batch has set, by entity."""
        self._emptied: set[tuple[str, str]] = set()
        """Entities whose standing timers the open batch has cancelled, all of them."""

    def load(self, rows: Iterator[tuple[bytes, bytes]]) -> None:
        """From the store's rows, as a restart finds them."""
        for key, value in rows:
            self._stand(bytes(key), _row.decode(value))

    # ── within a batch ──

    def set(self, row_key: bytes, timer: Timer) -> None:
        """Set or replace a timer."""
        self._staged[row_key] = timer
        if timer.kind == "named":
            self._staged_named.setdefault((timer.type, timer.key), {})[row_key] = None

    def cancel(self, row_key: bytes) -> bool:
        """Whether it stood."""
        stood = self.stands(row_key) is not None
        if stood:
            self._staged[row_key] = None
        return stood

    def stands(self, row_key: bytes) -> Timer | None:
        """The timer in this row, as the open batch sees it."""
        if row_key in self._staged:
            return self._staged[row_key]
        return self._standing.get(row_key)

    def cancel_all(self, type_name: str, key: str) -> None:
        """Cancel an entity's named timers (`forget`)."""
        entity = type_name, key
        for row_key in self._staged_named.pop(entity, ()):
            self._staged[row_key] = None
        if entity not in self._emptied:
            self._emptied.add(entity)
            for row_key in self._named.get(entity, {}).values():
                self._staged[row_key] = None

    def undo(self) -> None:
        """The batch is thrown away."""
        self._staged.clear()
        self._staged_named.clear()
        self._emptied.clear()

    def rows(self) -> list[Row]:
        """What the batch's commit says of timers."""
        return [
            (Table.TIMER, key, None if timer is None else _encode(timer))
            for key, timer in self._staged.items()
        ]

    def sealed(self) -> None:
        """The batch counts from now on."""
        for row_key, timer in self._staged.items():
            self._fall(row_key)
            if timer is not None:
                self._stand(row_key, timer)
        self.undo()
        if len(self._heap) > 2 * len(self._standing) + STALE_MIN:
            self._clear_out()

    # ── between batches ──

    def due(self, now_ns: int, most: int) -> list[tuple[bytes, Timer]]:
        """Candidates that are due, earliest first. Each is handed out once."""
        found: list[tuple[bytes, Timer]] = []
        while self._heap and self._heap[0][0] <= now_ns and len(found) < most:
            _, _, row_key, timer = heapq.heappop(self._heap)
            if self._standing.get(row_key) is timer:
                found.append((row_key, timer))
        return found

    @property
    def next_ns(self) -> int | None:
        """When the next candidate is due."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._standing)

    def _clear_out(self) -> None:
        """Leave in the heap what stands: a timer that is set again and again, long before it is due,
        must not take more memory each time (I7)."""
        stands = self._standing.get
        self._heap = [entry for entry in self._heap if stands(entry[2]) is entry[3]]
        heapq.heapify(self._heap)

    def _stand(self, row_key: bytes, timer: Timer) -> None:
        self._order += 1
        self._standing[row_key] = timer
        if timer.kind == "named":
            self._named.setdefault((timer.type, timer.key), {})[timer.name] = row_key
        heapq.heappush(self._heap, (timer.due_ns, self._order, row_key, timer))

    def _fall(self, row_key: bytes) -> None:
        timer = self._standing.pop(row_key, None)
        if timer is not None and timer.kind == "named":
            names = self._named[(timer.type, timer.key)]
            del names[timer.name]
            if not names:
                del self._named[(timer.type, timer.key)]
