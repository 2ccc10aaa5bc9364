"""Requests with an idempotency key: the first outcome of each, kept for a day.

A name is looked up in the store each time, since the request behind it comes once, or again
long after. Nothing confirms it, and nothing waits for it: so memory holds nothing but what the
open batch adds.

No I/O but the store's reads; no clock. Idea: docs/ideas/clients.md. Asserts I1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Raw, Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Outcome, Request, Row, Table
from skerry.runtime.core.tables.retention import looked_through, too_old
from skerry.runtime.core.tables.table import Stamp, StoredRow
from skerry.runtime.ports import Committed


class NameRow(Struct, array_like=True, frozen=True):
    """A row of the NAME table."""

    kind: str
    time_ns: int
    body: Raw


_row = msgspec.msgpack.Decoder(NameRow)
_encode = msgspec.msgpack.Encoder().encode


def _key(request: Request, slot: int) -> bytes:
    return slot_prefix(slot) + request.session


class Names:
    """The named requests that the open batch answers."""

    ids: tuple[int, ...] = ()

    def __init__(self, store: Committed) -> None:
        self._store = store
        self._new: dict[bytes, Outcome] = {}
        self._expired: list[Row] = []

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take nothing into memory."""

    # ── within a batch ──

    def judge(self, request: Request, slot: int, now_ns: int) -> Outcome | None:
        """Return what a request is answered without a turn; None: it runs."""
        key = _key(request, slot)
        if (outcome := self._new.get(key)) is not None:
            return outcome
        if (value := self._store.read(Table.NAME, key)) is not None:
            row = _row.decode(value)
            return Outcome(row.kind, bytes(row.body))
        return Outcome("late") if too_old(request.first_ns, now_ns) else None

    def ran(self, request: Request, slot: int, outcome: Outcome) -> None:
        """Remember the first outcome of a request."""
        key = _key(request, slot)
        assert key not in self._new, f"I1: of {request.session!r} one ran twice in one batch"
        self._new[key] = outcome

    def expire(self, slot: int, now_ns: int) -> None:
        """Look for old rows in a slot."""
        found = looked_through(self._store, Table.NAME, slot, now_ns)
        self._expired = [(Table.NAME, key, None) for key, expired in found if expired]

    # ── the end of a batch ──

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes."""
        for key, outcome in self._new.items():
            row = NameRow(outcome.kind, stamp.time_ns, Raw(outcome.body))
            yield Table.NAME, key, _encode(row)
        yield from self._expired

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count: the store has them."""
        self.undo()

    def undo(self) -> None:
        """Forget the batch's changes."""
        self._new.clear()
        self._expired = []

    def drop(self, slot: int) -> None:
        """Forget nothing, as memory holds nothing."""

    def stats(self) -> dict[str, int]:
        """Return no numbers: nobody counts the rows."""
        return {}
