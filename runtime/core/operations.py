"""An operator's commands on dead letters: retry or drop, in one commit with what follows.

No I/O but `Committed`; no clock. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from skerry.errors import InvalidMessage
from skerry.runtime.core.buffer import SENDS, Runs
from skerry.runtime.core.commit import slot_of_letter
from skerry.runtime.core.events import Operated, Outcome, Table, Told
from skerry.runtime.core.handlers import Handlers
from skerry.runtime.core.ownership import Ownership
from skerry.runtime.core.tables.dead_letters import DeadLetter, DeadLetters

_encode = msgspec.msgpack.Encoder().encode


class Operations:
    """The commands of a batch."""

    def __init__(
        self,
        read: Callable[[int, bytes], bytes | None],
        ownership: Ownership,
        handlers: Handlers,
        left: Runs,
        dead: DeadLetters,
    ) -> None:
        self._read, self._ownership = read, ownership
        self._handlers, self._left, self._dead = handlers, left, dead

    def find(self, id: bytes) -> DeadLetter | None:
        """Return a dead letter; None: there is none, or an earlier command has removed it."""
        row = self._read(Table.DEAD, id)
        if row is None or not self._serves(id) or self._dead.is_gone(id):
            return None
        return msgspec.msgpack.decode(row, type=DeadLetter)

    def _serves(self, id: bytes) -> bool:
        # What is no id may begin with the number of no slot: any shard can say so.
        return self._ownership.serves(slot_of_letter(id))

    def run(self, event: Operated) -> Told:
        """Retry or drop a dead letter; what the operator is told. `moved`: ask its owner."""
        if not self._serves(event.id):
            return Told(event.caller, event.number, Outcome("moved"))
        letter = self.find(event.id)
        if letter is None:
            return _refused(event, "There is no dead letter with this id here.")
        if event.action == "retry":
            handler = self._handlers.by_id.get(letter.handler_id)
            if letter.answered or handler is None:
                return _refused(event, _why_not_again(letter))
            args = self._handlers.arguments(handler, letter.params, letter.args)
            try:
                entry = handler.stored_entry(args)
            except InvalidMessage as error:
                return _refused(event, f"{error}. Start a release that takes it, or drop it.")
            self._left.add(SENDS[handler], letter.key, entry, None)
        self._dead.remove(event.id)
        return Told(event.caller, event.number, Outcome("done"))


def _refused(event: Operated, text: str) -> Told:
    outcome = Outcome("invalid", _encode(["InvalidMessage", text]))
    return Told(event.caller, event.number, outcome)


def _why_not_again(letter: DeadLetter) -> str:
    """Why a dead letter can't be sent again, and what can be done."""
    if letter.answered and not letter.handler_id:
        return "It is no message that could be sent anew; it can be dropped, not retried."
    if letter.answered:
        return "Its asker was given an outcome and has acted on it; it can be dropped, not retried."
    return "This release does not have its handler; start one that has, or drop it."
