"""Keeps its own books of what was sent and what was run, and compares them: once, and in order.

It shares no code and no data with the core: it listens where turns leave their messages and
where messages reach their handlers, notes both with the commit they belong to, and forgets
the notes of commits that a crash took back. When all is quiet, every message that a commit
sent must have run in exactly one commit; and of two messages from one entity to another, the
earlier must have run first. (Of messages that several entities sent alike, nobody can tell
which is which: these are counted, not ordered.)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from skerry.arguments import Args
from skerry.entity import Entity
from skerry.handler import Handler
from skerry.runtime.core.buffer import Messages
from skerry.runtime.core.demand import ALL, Batch, Budget
from skerry.runtime.core.events import Operated, Table, Told
from skerry.runtime.core.loops import Shape
from skerry.runtime.core.results import Raised
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.turn import Turn

_encode = msgspec.msgpack.Encoder().encode

Message = tuple[str, str, str, bytes]
"""(entity type, key, handler, arguments)."""


class Books:
    """What one shard did, by commit."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, str, Message]] = []
        """(commit, sender, message)."""
        self.run: list[tuple[int, Message]] = []
        self._open_sent: list[tuple[str, Message]] = []
        self._open_run: list[Message] = []

    def follow(self, shard: Shard) -> None:
        """Listen to a shard that has just been opened."""
        dispatch = shard.dispatch
        executor, delivery, operations = dispatch.executor, dispatch._delivery, dispatch._operations
        intentions, turn = executor._intentions, executor.turn
        apply, collect, undo = intentions.apply, intentions.collect, dispatch.undo
        turns, send, operate = delivery._turns, delivery.send, operations.run
        turn.intentions = left = _Intentions(turn)

        def note() -> None:
            for sender, (tag, *given) in zip(left.senders, left):
                if tag in ("send", "ask"):
                    self._open_sent.append((sender, _message(*given[:3])))
                elif tag == "later":
                    self._open_sent.append((f"{sender} later", _message(*given[1:])))

        def collected() -> None:
            note()
            collect()

        def applied(entity: Entity) -> None:
            if turn.extra:  # Else it collects.
                note()
            apply(entity)

        def undone() -> None:
            self._open_sent.clear()
            self._open_run.clear()
            undo()

        def turned(handler: Handler, messages: Messages, shape: Shape) -> None:
            named = handler.each(messages.column, len(messages.keys))
            each = messages.column if shape is Shape.PACKED else named
            for key, args in zip(messages.keys, each):
                if dispatch.cache.buffer_of(handler.entity, key) is None:
                    self._open_run.append(_message(handler, key, args))
            turns(handler, messages, shape)

        def sent(handler: Handler, keys: list[str], column: Sequence[Any]) -> None:
            for key, args in zip(keys, handler.each(column, len(keys))):
                self._open_sent.append(("a source", _message(handler, key, args)))
            send(handler, keys, column)

        def operated(event: Operated) -> Told:
            row = operations._read(Table.DEAD, event.id)
            answer = operate(event)
            if event.action == "retry" and row is not None and answer.outcome.kind == "done":
                letter = msgspec.msgpack.decode(row, type=DeadLetter)
                message = letter.type, letter.key, letter.handler, letter.args
                self._open_sent.append(("an operator later", message))
            return answer

        operations.run = operated  # type: ignore[method-assign]
        dispatch.undo = undone  # type: ignore[method-assign]
        intentions.apply, intentions.collect = applied, collected  # type: ignore[method-assign]
        delivery._turns, delivery.send = turned, sent  # type: ignore[method-assign]
        run = shard.run

        def ran(budget: Budget = ALL) -> Batch | None:
            batch = run(budget)
            if batch is not None:
                self.sealed(None if batch.commit is None else batch.commit.no)
            return batch

        shard.run = ran  # type: ignore[method-assign]

    def sealed(self, no: int | None) -> None:
        """The batch became this commit, or none."""
        assert no is not None or not self._open_sent, "a batch that sends has a commit"
        if no is not None:
            self.sent += [(no, sender, message) for sender, message in self._open_sent]
            self.run += [(no, message) for message in self._open_run]
        self._open_sent.clear()
        self._open_run.clear()

    def go_on(self, other: Books, upto: int) -> None:
        """From what another's books hold up to this commit."""
        self.sent = [entry for entry in other.sent if entry[0] <= upto] + self.sent
        self.run = [entry for entry in other.run if entry[0] <= upto] + self.run

    def crashed(self, durable: int) -> None:
        """What came after this commit never was."""
        self._open_sent.clear()
        self._open_run.clear()
        self.sent = [entry for entry in self.sent if entry[0] <= durable]
        self.run = [entry for entry in self.run if entry[0] <= durable]


class _Intentions(list[Any]):
    """What turns leave, and beside it who left it: the core itself has no need to know."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn
        self.senders: list[str] = []

    def append(self, item: Any) -> None:
        entity = self._turn.entity
        assert entity is not None, "who sends has a turn"
        self.senders.append(_name(entity))
        super().append(item)

    def clear(self) -> None:
        self.senders.clear()
        super().clear()


def _name(entity: Entity) -> str:
    return f"{entity.__skerry__.name}/{entity.key}"


def _message(handler: Handler, key: str, args: Args) -> Message:
    try:
        values = args if isinstance(args, bytes) else _encode(args)
    except (ValueError, OverflowError) as error:
        # Within a shard a value that does not encode would pass. Between two it does not, and no
        # test should hide that by running on one.
        raise Raised from error
    return handler.entity, key, handler.name, values


def compare(books: Iterable[Books]) -> list[str]:
    """A sentence for each message that was lost, doubled or overtaken."""
    books = list(books)
    sent = Counter(message for book in books for _, _, message in book.sent)
    run = Counter(message for book in books for _, message in book.run)
    wrong = [f"I1: {_text(m)} was sent and not run ({n} times)" for m, n in (sent - run).items()]
    wrong += [f"I1: {_text(m)} ran {n} times too often" for m, n in (run - sent).items()]
    return wrong or _overtaken(books)


def _overtaken(books: list[Books]) -> list[str]:
    senders: dict[Message, set[str]] = defaultdict(set)
    orders: dict[tuple[str, str, str], list[Message]] = defaultdict(list)
    for book in books:
        for _, sender, message in book.sent:
            senders[message].add(sender)
            if not sender.endswith(" later") and sender != "a source":
                orders[(sender, *message[:2])].append(message)
    runs: dict[tuple[str, str], list[Message]] = defaultdict(list)
    for book in books:
        for _, message in book.run:
            runs[message[:2]].append(message)
    wrong = []
    for (sender, *receiver), order in orders.items():
        ours = [m for m in order if senders[m] == {sender}]
        ran = [m for m in runs[receiver[0], receiver[1]] if senders[m] == {sender}]
        if ours != ran:
            at = next(n for n, (a, b) in enumerate(zip(ours, ran)) if a != b)
            wrong.append(f"I2: from {sender}, {_text(ran[at])} ran before {_text(ours[at])}")
    return wrong


def _text(message: Message) -> str:
    type_name, key, handler, args = message
    return f"{type_name}/{key}.{handler}{tuple(msgspec.msgpack.decode(args))}"
