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

from skerry.runtime.shard.commit import slot_prefix
from skerry.runtime.shard.events import Row, Table
from skerry.runtime.shard.placement import slot_of

Continuation = tuple[int, int, bytes]
"""(handler id, params id, the arguments behind the first)."""


class Ask(Struct, array_like=True, frozen=True):
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


_row = msgspec.msgpack.Decoder(Ask)
_encode = msgspec.msgpack.Encoder().encode


def ask_key(ask: Ask) -> bytes:
    """The key of an ask's row."""
    return slot_prefix(slot_of(ask.type, ask.key)) + ask.id


class Asks:
    """All pending asks of a shard's entities, and those that the open batch changes."""

    def __init__(self) -> None:
        self._pending: dict[bytes, Ask] = {}
        self._by_entity: dict[tuple[str, str], set[bytes]] = {}
        self._staged: dict[bytes, Ask | None] = {}
        self._removed: dict[bytes, Ask] = {}
        self.late = 0
        """Outcomes that came after another outcome of the same ask."""

    def load(self, rows: Iterator[tuple[bytes, bytes]]) -> None:
        """From the store's rows, as a restart finds them."""
        for _, value in rows:
            self._add(_row.decode(value))

    def add(self, ask: Ask) -> None:
        """The batch asks."""
        self._staged[ask.id] = ask

    def take(self, id: bytes) -> Ask | None:
        """The pending ask of this id, which is pending no more; None when an outcome came before."""
        ask = self._staged[id] if id in self._staged else self._pending.get(id)
        if ask is None:
            self.late += 1
            return None
        self._staged[id] = None
        self._removed[id] = ask
        return ask

    def take_all(self, type_name: str, key: str) -> list[Ask]:
        """An entity's pending asks, pending no more (`forget`)."""
        ids = set(self._by_entity.get((type_name, key), ()))
        ids |= {a.id for a in self._staged.values() if a and (a.type, a.key) == (type_name, key)}
        asks = [self.take(id) for id in sorted(ids) if self._staged.get(id, True) is not None]
        return [ask for ask in asks if ask is not None]

    def undo(self) -> None:
        """The batch is thrown away."""
        self._staged.clear()
        self._removed.clear()

    def rows(self) -> Iterator[Row]:
        """What the batch's commit says of asks."""
        for id, ask in self._staged.items():
            if ask is not None:
                yield Table.ASK, ask_key(ask), _encode(ask)
            else:
                yield Table.ASK, ask_key(self._removed[id]), None

    def sealed(self) -> None:
        """The batch counts from now on."""
        for id, ask in self._staged.items():
            if ask is not None:
                self._add(ask)
            elif (gone := self._pending.pop(id, None)) is not None:
                ids = self._by_entity[(gone.type, gone.key)]
                ids.discard(id)
                if not ids:
                    del self._by_entity[(gone.type, gone.key)]
        self.undo()

    def _add(self, ask: Ask) -> None:
        self._pending[ask.id] = ask
        self._by_entity.setdefault((ask.type, ask.key), set()).add(ask.id)

    def __len__(self) -> int:
        return len(self._pending)
