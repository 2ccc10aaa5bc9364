"""A dispatch that tells an observer which messages are sent and which run; production has none.

The simulator's checkers listen here, and so share no code with what they check. The parts that
turns pass through are replaced once, when a shard is made: what nobody observes costs nothing.

An observer is told while a batch runs, and then what became of the batch. No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from skerry.arguments import Args
from skerry.entity import Entity
from skerry.handler import Handler
from skerry.runtime.core.buffer import Messages
from skerry.runtime.core.delivery import Delivery
from skerry.runtime.core.events import Operated, Told
from skerry.runtime.core.flows import Flows
from skerry.runtime.core.intentions import Intentions
from skerry.runtime.core.loops import Shape
from skerry.runtime.core.operations import Operations
from skerry.runtime.core.results import Raised
from skerry.stream.columns import Columns
from skerry.turn import Turn

Message = tuple[str, str, str, bytes]
"""(entity type, key, handler, arguments)."""

_encode = msgspec.msgpack.Encoder().encode


class Observer(Protocol):
    """Listens to the batches of a shard."""

    def sent(self, sender: str, message: Message, /) -> None:
        """A message was sent. `sender`: an entity whose messages keep their order; else empty."""
        ...

    def ran(self, message: Message, /) -> None:
        """A message came to its turn, whatever became of that."""
        ...

    def undone(self) -> None:
        """The batch was thrown away: what was told of it has not happened."""
        ...

    def sealed(self, no: int | None, /) -> None:
        """The batch became this commit; None: it left nothing behind."""
        ...


class Parts(NamedTuple):
    """What turns pass through, and how each is made."""

    intentions: Any = Intentions
    delivery: Any = Delivery
    flows: Any = Flows
    operations: Any = Operations


def parts(observer: Observer | None) -> Parts:
    """Choose the parts of a shard."""
    if observer is None:
        return Parts()

    told: Observer = observer

    class ObservedIntentions(Intentions):
        """Tells what turns send."""

        def __init__(self, turn: Turn, *rest: Any) -> None:
            super().__init__(turn, *rest)
            self._senders = turn.intentions = _Senders(turn)

        def apply(self, entity: Entity) -> None:
            if self._turn.extra:  # Else it collects.
                self._tell()
            super().apply(entity)

        def collect(self) -> None:
            self._tell()
            super().collect()

        def _tell(self) -> None:
            for sender, (tag, *given) in zip(self._senders.names, self._senders):
                if tag in ("send", "ask"):
                    told.sent(sender, _message(*given[:3]))
                elif tag == "later":
                    told.sent("", _message(*given[1:]))

    class ObservedDelivery(Delivery):
        """Tells what runs, and what sources send."""

        def _turns(self, handler: Handler, messages: Messages, shape: Shape) -> None:
            named = handler.each(messages.column, len(messages.keys))
            each = messages.column if shape is Shape.PACKED else named
            buffers = self._cache.buffers_of(handler.entity, messages.keys)
            for key, args, buffer in zip(messages.keys, each, buffers):
                if buffer is None:
                    told.ran(_message(handler, key, args))
            super()._turns(handler, messages, shape)

        def send(self, handler: Handler, keys: list[str], column: Sequence[Any]) -> None:
            for key, args in zip(keys, handler.each(column, len(keys))):
                told.sent("", _message(handler, key, args))
            super().send(handler, keys, column)

    class ObservedFlows(Flows):
        """Tells what replies of stages become."""

        def _leave(self, columns: Sequence[Columns]) -> None:
            for end, keys, column in columns:
                if isinstance(end, Handler):
                    for key, args in zip(keys, end.each(column, len(keys))):
                        told.sent("", _message(end, key, args))
            super()._leave(columns)

    class ObservedOperations(Operations):
        """Tells which dead letters are sent again."""

        def run(self, event: Operated) -> Told:
            letter = self.find(event.id)
            answer = super().run(event)
            if letter is not None and event.action == "retry" and answer.outcome.kind == "done":
                told.sent("", (letter.type, letter.key, letter.handler, letter.args))
            return answer

    return Parts(ObservedIntentions, ObservedDelivery, ObservedFlows, ObservedOperations)


class _Senders(list[Any]):
    """What turns leave, and beside it who left it: the core itself has no need to know."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn
        self.names: list[str] = []

    def append(self, item: Any) -> None:
        entity = self._turn.entity
        assert entity is not None, "what sends has a turn"
        self.names.append(f"{entity.__skerry__.name}/{entity.key}")
        super().append(item)

    def clear(self) -> None:
        self.names.clear()
        super().clear()


def _message(handler: Handler, key: str, args: Args) -> Message:
    try:
        values = args if isinstance(args, bytes) else _encode(args)
    except (ValueError, OverflowError) as error:
        # Within a shard a value that does not encode would pass. Between two it does not, and no
        # test should hide that by running on one.
        raise Raised from error
    return handler.entity, key, handler.name, values
