"""Dead letters: messages that were refused or failed with nobody to tell.

A dead letter is a row of its entity's slot. It holds all that is needed to send the
message anew. One whose asker was given an outcome can be shown and dropped, not retried:
the asker has acted on that outcome (a refund), and both would count.

No I/O, no clock. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct

from skerry.arguments import Args
from skerry.handler import Handler
from skerry.runtime.core.commit import slot_in, slot_prefix
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.results import Done, OutcomeArgs, Raised, Refused, Result
from skerry.runtime.core.tables.table import Stamp, StoredRow
from skerry.turn import Turn

_encode = msgspec.msgpack.Encoder().encode

NO_ARGS = b"\x90"


class DeadLetter(Struct, array_like=True, frozen=True):
    """A row of the DEAD table."""

    time_ns: int
    type: str
    key: str
    handler: str
    """Its name; empty when no release has written it down."""
    handler_id: int
    params: int
    args: bytes
    error: str
    traceback: str
    answered: bool


class DeadLetters:
    """How many dead letters each slot has, and those that the open batch adds and removes.

    The letters themselves stay in the store. Their number has a row of its own, so that nobody
    has to count them.

    Args:
        turn: knows what time it is.
        new_id: makes 24 bytes that are never used again.
        names: names of handlers by id, of this release and of those before it.
    """

    ids = (Table.DEAD_COUNT,)

    def __init__(self, turn: Turn, new_id: Callable[[], bytes], names: Mapping[int, str]) -> None:
        self._turn, self._new_id, self._names = turn, new_id, names
        self._counts: dict[int, int] = {}
        """Dead letters by slot."""
        self._rows: dict[bytes, bytes | None] = {}
        """Letters that the open batch adds, and None for those that it removes."""
        self.added = 0
        """Letters added since the start."""

    def load(self, rows: Iterable[StoredRow]) -> None:
        """Take stored rows into memory."""
        for _, key, value in rows:
            self._counts[slot_in(key)] = int.from_bytes(value, "big")

    def bury(
        self,
        type_name: str,
        key: str,
        error: str,
        *,
        handler: tuple[str, int, int] = ("", 0, 0),
        args: bytes = NO_ARGS,
        traceback: str = "",
        answered: bool = False,
    ) -> None:
        """Keep a message that left no trace: nothing is lost silently.

        Args:
            handler: its name, its id and its parameters' id, as far as there is one.
            answered: it can't be retried.
        """
        letter = DeadLetter(
            self._turn.now_ns, type_name, key, *handler, args, error, traceback, answered
        )
        row_key = slot_prefix(slot_of(type_name, key)) + self._new_id()
        self._rows[row_key] = _encode(letter)

    def failed(
        self,
        handler: Handler,
        key: str,
        args: Args | OutcomeArgs,
        result: Result,
        *,
        answered: bool = False,
    ) -> None:
        """Keep a message whose turn was refused or broke. Raises Raised."""
        if isinstance(result, Done):
            return
        if isinstance(result, Refused):
            error, trace = f"rejected: {result.text}", ""
        else:
            error, trace = result.error, result.traceback
        if isinstance(args, OutcomeArgs):
            args = args.rest
        try:
            body = args if isinstance(args, bytes) else _encode(args)
        except (ValueError, OverflowError) as unfit:  # Sent in this batch; run isolated, it is not.
            raise Raised from unfit
        self.bury(
            handler.entity,
            key,
            error,
            handler=(handler.name, handler.id, handler.params_id),
            args=body,
            traceback=trace,
            answered=answered,
        )

    def unknown(self, type_name: str, key: str, handler: int, params: int, args: bytes) -> None:
        """Keep a message to a handler that this release does not have."""
        name = self._names.get(handler, "")
        error = (
            f"UnknownHandler: this release has no handler {type_name}.{name or f'{handler:016x}'}; "
            f"one that has it can retry this message"
        )
        self.bury(type_name, key, error, handler=(name, handler, params), args=args)

    def is_gone(self, row_key: bytes) -> bool:
        """Whether the open batch removes this letter."""
        return row_key in self._rows

    def remove(self, row_key: bytes) -> None:
        """Remove a stored letter that was retried or dropped."""
        assert row_key not in self._rows, "of a letter that is gone nothing is left to be done"
        self._rows[row_key] = None

    def rows(self, stamp: Stamp) -> Iterator[Row]:
        """Return the batch's changes."""
        for row_key, letter in self._rows.items():
            yield Table.DEAD, row_key, letter
        for slot, count in self._changed().items():
            yield Table.DEAD_COUNT, slot_prefix(slot), count.to_bytes(8, "big") if count else None

    def _changed(self) -> dict[int, int]:
        """The numbers of the slots that the open batch has changed."""
        counts: dict[int, int] = {}
        for row_key, letter in self._rows.items():
            slot = slot_in(row_key)
            before = counts.get(slot, self._counts.get(slot, 0))
            counts[slot] = before + (-1 if letter is None else 1)
        return counts

    def sealed(self, stamp: Stamp) -> None:
        """Let the batch's changes count."""
        for slot, count in self._changed().items():
            if count:
                self._counts[slot] = count
            else:
                self._counts.pop(slot, None)
        self.added += sum(letter is not None for letter in self._rows.values())
        self._rows.clear()

    def undo(self) -> None:
        """Forget the batch's changes."""
        self._rows.clear()

    def drop(self, slot: int) -> None:
        """Forget the number of a slot's letters."""
        self._counts.pop(slot, None)

    def stats(self) -> dict[str, int]:
        """Return how many dead letters there are, and how many came since the start."""
        return {"dead": len(self), "dead_since_start": self.added}

    def __len__(self) -> int:
        return sum(self._counts.values())
