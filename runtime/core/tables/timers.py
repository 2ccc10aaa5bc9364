"""Messages that wait for a time: named timers, send_later, ask time-outs.

A timer is a row of its entity's slot. When it is due it is only a candidate: its turn
runs if the very row that was seen still stands, and the same commit deletes the row, so
a timer that was cancelled or set again never runs, and none runs twice (I10).

What a batch sets or cancels is staged, and counts from its sealing on. Reads no clock:
the time comes in. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
import xxhash
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.tables.table import Stamp, StoredRow

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

    ids = (Table.TIMER,)

    def __init__(self) -> None:
        self._standing: defaultdict[bytes, dict[bytes, Timer]] = defaultdict(dict)
        """Timers by slot, which row keys begin with, then by row key."""
        self._count = 0
        self._heap: list[tuple[int, int, bytes, Timer]] = []
        """Standing timers by time, and those that fell, until they are cleared out."""
        self._order = 0
        self._staged: dict[bytes, Timer | None] = {}
        """Rows that the open batch sets, and those that it cancels."""
        self._named: dict[tuple[str, str], dict[bytes, None]] = {}
        """Rows of an entity's named timers, as the open batch sees them."""

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory."""
        for _, key, value in rows:
            row_key, timer = bytes(key), _row.decode(value)
            self._stand(self._standing[row_key[:2]], row_key, timer)
            self._note(row_key, timer)

    # ── within a batch ──

    def set(self, row_key: bytes, timer: Timer) -> None:
        """Set or replace a timer."""
        self._staged[row_key] = timer
        self._note(row_key, timer)

    def cancel(self, row_key: bytes) -> bool:
        """Cancel a timer. Returns whether it stood."""
        timer = self.stands(row_key)
        if timer is None:
            return False
        self._staged[row_key] = None
        self._unnote(row_key, timer)
        return True

    def stands(self, row_key: bytes) -> Timer | None:
        """Return the timer in this row, as the open batch sees it."""
        if row_key in self._staged:
            return self._staged[row_key]
        return self._standing[row_key[:2]].get(row_key)

    def cancel_all(self, type_name: str, key: str) -> None:
        """Cancel an entity's named timers (`forget`)."""
        for row_key in self._named.pop((type_name, key), ()):
            self._staged[row_key] = None

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes. A timer that came and went in it never had a row."""
        for row_key, timer in self._staged.items():
            if timer is not None:
                yield Table.TIMER, row_key, _encode(timer)
            elif row_key in self._standing[row_key[:2]]:
                yield Table.TIMER, row_key, None

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for row_key, timer in self._staged.items():
            standing = self._standing[row_key[:2]]
            if standing.pop(row_key, None) is not None:
                self._count -= 1
            if timer is not None:
                self._stand(standing, row_key, timer)
        self._staged.clear()
        if len(self._heap) > 2 * self._count + STALE_MIN:
            self._clear_out()

    def undo(self) -> None:
        """Forget the batch's changes."""
        staged, self._staged = self._staged, {}
        for row_key, timer in staged.items():
            if timer is not None:
                self._unnote(row_key, timer)
            if (before := self.stands(row_key)) is not None:
                self._note(row_key, before)

    # ── between batches ──

    def due(self, now_ns: int, most: int) -> list[tuple[bytes, Timer]]:
        """Return the candidates that are due, earliest first. Each is handed out once."""
        found: list[tuple[bytes, Timer]] = []
        while self._heap and self._heap[0][0] <= now_ns and len(found) < most:
            _, _, row_key, timer = heapq.heappop(self._heap)
            if self._standing[row_key[:2]].get(row_key) is timer:
                found.append((row_key, timer))
        return found

    @property
    def next_ns(self) -> int | None:
        """When the next candidate is due."""
        return self._heap[0][0] if self._heap else None

    def drop(self, slot: int) -> None:
        """Forget the timers of a slot. They leave the heap as all do that fell."""
        dropped = self._standing.pop(slot_prefix(slot), {})
        self._count -= len(dropped)
        for row_key, timer in dropped.items():
            self._unnote(row_key, timer)

    def stats(self) -> dict[str, int]:
        """Return how many timers stand."""
        return {"timers": self._count}

    def __len__(self) -> int:
        return self._count

    # ── bookkeeping ──

    def _stand(self, standing: dict[bytes, Timer], row_key: bytes, timer: Timer) -> None:
        standing[row_key] = timer
        self._count += 1
        self._order += 1
        heapq.heappush(self._heap, (timer.due_ns, self._order, row_key, timer))

    def _clear_out(self) -> None:
        """Leave only standing timers in the heap: a timer that is set again and again, long before
        it is due, must not take more memory each time (I7)."""
        standing = self._standing
        self._heap = [e for e in self._heap if standing[e[2][:2]].get(e[2]) is e[3]]
        heapq.heapify(self._heap)

    def _note(self, row_key: bytes, timer: Timer) -> None:
        if timer.kind == "named":
            self._named.setdefault((timer.type, timer.key), {})[row_key] = None

    def _unnote(self, row_key: bytes, timer: Timer) -> None:
        if timer.kind == "named":
            entity = timer.type, timer.key
            rows = self._named.get(entity, {})
            rows.pop(row_key, None)
            if not rows:
                self._named.pop(entity, None)
