"""Dead letters: messages that were refused or failed with nobody to tell.

A dead letter is a row of its entity's slot. It holds all that is needed to send the
message anew. One whose asker was given an outcome can be shown and dropped, not retried:
the asker has acted on that outcome (a refund), and both would count.

No I/O, no clock. Idea: docs/entities.md.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Row, Table
from skerry.runtime.core.ownership import slot_of
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
    """What the open batch adds to the dead letters, and takes away.

    Args:
        turn: knows what time it is.
        new_id: makes 24 bytes that are never used again.
    """

    def __init__(self, turn: Turn, new_id: Callable[[], bytes]) -> None:
        self._turn, self._new_id = turn, new_id
        self.rows: list[Row] = []
        self.gone: set[bytes] = set()
        """Those that it takes away."""
        self.names: dict[int, str] = {}
        """Of handlers by id, as far as a release has written them down, this one or one before."""

    def begin(self) -> None:
        """A batch begins, or begins again."""
        self.rows.clear()
        self.gone.clear()

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
        """A message that left no trace: nothing is lost without a word.

        Args:
            handler: its name, its id and its parameters' id, as far as there is one.
            answered: it can't be retried.
        """
        letter = DeadLetter(
            self._turn.now_ns, type_name, key, *handler, args, error, traceback, answered
        )
        row_key = slot_prefix(slot_of(type_name, key)) + self._new_id()
        self.rows.append((Table.DEAD, row_key, _encode(letter)))

    def unknown(self, type_name: str, key: str, handler: int, params: int, args: bytes) -> None:
        """A message to a handler that this release does not have."""
        name = self.names.get(handler, "")
        error = (
            f"UnknownHandler: this release has no handler {type_name}.{name or f'{handler:016x}'}; "
            f"one that has it can retry this message"
        )
        self.bury(type_name, key, error, handler=(name, handler, params), args=args)

    def remove(self, row_key: bytes) -> None:
        """It was retried or dropped. It is there, and this is said once in a batch."""
        assert row_key not in self.gone, "of a letter that is gone nothing is left to be done"
        self.gone.add(row_key)
        self.rows.append((Table.DEAD, row_key, None))

    @property
    def buried(self) -> int:
        """How many the batch adds."""
        return sum(row is not None for _, _, row in self.rows)
