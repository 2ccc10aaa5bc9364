"""What an entity has asked and not been told yet.

An ask is a row of its asker's slot. The first outcome (reply, refusal, failure, time-out)
removes it in the turn that runs the outcome's handler; any later one finds no row and is
dropped and counted. An id is the key of the row: the asker's slot, then (shard, epoch, commit,
index). So a late outcome of an ask before `forget()` can't be taken for one after it.

What a batch adds or removes is staged until it is sealed. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.tables.table import Stamp, StoredRow

Continuation = tuple[int, int, bytes]
"""(handler id, params id, the arguments behind the first)."""


class Ask(Struct, array_like=True, frozen=True, gc=False):
    """A row of the ASK table."""

    type: str
    key: str
    id: bytes
    """The key of the row."""
    replies: bool
    then: Continuation | None
    rejected: Continuation | None
    failed: Continuation | None
    timer: bytes = b""
    """The row of its time-out, or empty."""


Asker = tuple[str, str]
"""(type, key) of the entity that asked."""

_row = msgspec.msgpack.Decoder(Ask)
_encode = msgspec.msgpack.Encoder().encode


class Asks:
    """All pending asks of a shard's entities, and those that the open batch changes."""

    ids = (Table.ASK,)

    def __init__(self) -> None:
        self._pending: defaultdict[bytes, dict[Asker, dict[bytes, Ask]]] = defaultdict(dict)
        """Asks of earlier batches without an outcome, by slot, as their ids have it, then by asker
        and id."""
        self._new: dict[Asker, dict[bytes, Ask]] = {}
        """Asks of the open batch without an outcome."""
        self._gone: dict[bytes, Ask] = {}
        """Asks of earlier batches that the open batch gave an outcome."""
        self._count = 0
        self.late = 0
        """Outcomes that came after another outcome of the same ask."""

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory."""
        for _, _, value in rows:
            self._await(_row.decode(value))
            self._count += 1

    def add(self, ask: Ask) -> None:
        """Add a new ask."""
        asker = ask.type, ask.key
        asked = self._new.get(asker)
        if asked is None:
            self._new[asker] = {ask.id: ask}
        else:
            asked[ask.id] = ask

    def take(self, type_name: str, key: str, id: bytes) -> Ask | None:
        """Take the entity's pending ask of this id; None: it has had an outcome."""
        asker = type_name, key
        asked = self._new.get(asker)
        if asked is not None and id in asked:
            return asked.pop(id)  # Nobody ever hears of it: no row.
        pending = self._pending.get(id[:2], {})
        known = pending.get(asker)
        if known is None or id not in known:
            self.late += 1
            return None
        ask = self._gone[id] = known.pop(id)
        if not known:
            del pending[asker]
        return ask

    def take_all(self, type_name: str, key: str) -> list[Ask]:
        """Take all pending asks of an entity (`forget`)."""
        asker, slot = (type_name, key), slot_prefix(slot_of(type_name, key))
        taken = self._pending[slot].pop(asker, {})
        self._gone.update(taken)
        taken |= self._new.pop(asker, {})
        return [taken[id] for id in sorted(taken)]

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes."""
        for asked in self._new.values():
            for id, ask in asked.items():
                yield Table.ASK, id, _encode(ask)
        for id in self._gone:
            yield Table.ASK, id, None

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for asker, asked in self._new.items():
            if asked:
                pending = self._pending[next(iter(asked))[:2]]
                self._count += len(asked)
                if asker in pending:
                    pending[asker].update(asked)
                else:
                    pending[asker] = asked
        self._count -= len(self._gone)
        self._clear()

    def undo(self) -> None:
        """Forget the batch's changes."""
        for ask in self._gone.values():
            self._await(ask)
        self._clear()

    def drop(self, slot: int) -> None:
        """Forget the asks of a slot."""
        self._count -= sum(map(len, self._pending.pop(slot_prefix(slot), {}).values()))

    def stats(self) -> dict[str, int]:
        """Return how many asks are pending."""
        return {"asks": self._count}

    def __len__(self) -> int:
        return self._count

    def _await(self, ask: Ask) -> None:
        self._pending[ask.id[:2]].setdefault((ask.type, ask.key), {})[ask.id] = ask

    def _clear(self) -> None:
        self._new.clear()
        self._gone.clear()
