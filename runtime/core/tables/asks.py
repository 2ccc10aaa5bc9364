"""What an entity has asked and not been told yet.

An ask is a row of its asker's slot. The first outcome (reply, refusal, failure, time-out)
removes it in the turn that runs the outcome's handler; any later one finds no row and is
dropped and counted. Ids come from (shard, epoch, commit, index), never from the entity:
a late outcome of an ask before `forget()` can't be taken for one after it.

What a batch adds or removes is staged until it is sealed. Idea: docs/entities.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.ownership import slot_of

Continuation = tuple[int, int, bytes]
"""(handler id, params id, the arguments behind the first)."""


class Ask(Struct, array_like=True, frozen=True, gc=False):
    """A row of the ASK table."""

    type: str
    key: str
    id: bytes
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


def _row_key(asker: Asker, id: bytes) -> bytes:
    return slot_prefix(slot_of(*asker)) + id


class Asks:
    """All pending asks of a shard's entities, and those that the open batch changes."""

    def __init__(self) -> None:
        self._pending: dict[Asker, dict[bytes, Ask]] = {}
        self._count = 0
        self._new: dict[Asker, dict[bytes, Ask]] = {}
        """What the open batch has asked and not been told in it."""
        self._gone: dict[bytes, Asker] = {}
        """What the open batch was told, asked before it."""
        self._emptied: set[Asker] = set()
        """Who forgot in the open batch all that it had asked before it."""
        self.late = 0
        """Outcomes that came after another outcome of the same ask."""

    def load(self, rows: Iterator[tuple[bytes, bytes]]) -> None:
        """From the store's rows, as a restart finds them."""
        for _, value in rows:
            ask = _row.decode(value)
            self._pending.setdefault((ask.type, ask.key), {})[ask.id] = ask
            self._count += 1

    def add(self, ask: Ask) -> None:
        """The batch asks."""
        asker = ask.type, ask.key
        asked = self._new.get(asker)
        if asked is None:
            self._new[asker] = {ask.id: ask}
        else:
            asked[ask.id] = ask

    def take(self, type_name: str, key: str, id: bytes) -> Ask | None:
        """The entity's pending ask of this id, which is pending no more; None when an outcome came
        before."""
        asker = type_name, key
        asked = self._new.get(asker)
        if asked is not None and id in asked:
            return asked.pop(id)  # Nobody ever hears of it: no row.
        known = self._pending.get(asker)
        if known is None or id not in known or id in self._gone:
            self.late += 1
            return None
        self._gone[id] = asker
        return known[id]

    def take_all(self, type_name: str, key: str) -> list[Ask]:
        """An entity's pending asks, pending no more (`forget`)."""
        asker = type_name, key
        ids = list(self._new.get(asker, ()))
        if asker not in self._emptied:
            self._emptied.add(asker)
            ids += [id for id in self._pending.get(asker, ()) if id not in self._gone]
        asks = [self.take(type_name, key, id) for id in sorted(ids)]
        return [ask for ask in asks if ask is not None]

    def undo(self) -> None:
        """The batch is thrown away."""
        self._new.clear()
        self._gone.clear()
        self._emptied.clear()

    def rows(self) -> Iterator[Row]:
        """What the batch's commit says of asks."""
        for asker, asked in self._new.items():
            for id, ask in asked.items():
                yield Table.ASK, _row_key(asker, id), _encode(ask)
        for id, asker in self._gone.items():
            yield Table.ASK, _row_key(asker, id), None

    def sealed(self) -> None:
        """The batch counts from now on."""
        pending = self._pending
        for id, asker in self._gone.items():
            known = pending[asker]
            del known[id]
            if not known:
                del pending[asker]
        for asker, asked in self._new.items():
            if asked:
                self._count += len(asked)
                if asker in pending:
                    pending[asker].update(asked)
                else:
                    pending[asker] = asked
        self._count -= len(self._gone)
        self.undo()

    def __len__(self) -> int:
        return self._count
