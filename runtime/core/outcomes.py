"""From an ask to its outcome, and from the outcome to the handler that waits for it.

    asked:   turn -> result -> outcome message to the asker, behind what the turn has sent (I2)
    asker:   outcome message -> the ask's row, which is gone then -> handler, or a dead letter

The first outcome of an ask takes its row; any later one finds none and is dropped.

No I/O, no clock. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from skerry.arguments import Args
from skerry.handler import Handler
from skerry.runtime.core.buffer import OUTCOMES, Extra, Runs
from skerry.runtime.core.executor import Executor
from skerry.runtime.core.handlers import Handlers
from skerry.runtime.core.intentions import Intentions
from skerry.runtime.core.loops import Shape
from skerry.runtime.core.results import Broke, OutcomeArgs, Result, error_of, outcome_of
from skerry.runtime.core.tables.asks import Ask, Asks
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.timers import Timers


class Distinct:
    """Turns of one handler on different entities, gathered to run together; nobody awaits them.

    No two are of one entity, since what the first one leaves may undo the reason for the other:
    `forget()` ends the asks of its entity, and its timers.
    """

    def __init__(self, executor: Executor, dead: DeadLetters) -> None:
        self._executor, self._dead = executor, dead
        self._handler: Handler | None = None
        self._together = False
        """Whether turns of the handler run together now."""
        self._calls: dict[str, bytes | OutcomeArgs] = {}

    def before(self, key: str) -> None:
        """Run the turn that is gathered for this key, since the key's next one may depend on it."""
        if key in self._calls:
            self.run()

    def add(self, handler: Handler, key: str, args: bytes | OutcomeArgs) -> None:
        """Gather a turn; where turns run alone it runs at once."""
        if handler is not self._handler:
            self.run()
            self._handler, self._together = handler, self._executor.optimistic(handler)
        self._calls[key] = args
        if not self._together:
            self.run()

    def run(self) -> None:
        """Run what is gathered. Raises Raised."""
        handler, calls = self._handler, self._calls
        self._handler = None
        if handler is None:
            return
        self._calls = {}
        executor = self._executor
        if self._together:
            args = list(calls.values())
            shape = Shape.OUTCOME if isinstance(args[0], OutcomeArgs) else Shape.PACKED
            executor.together(handler, list(calls), args, shape)
            return
        for key, each in calls.items():
            self._dead.failed(handler, key, each, executor.alone(handler, key, each, wanted=False))


class Outcomes:
    """The outcomes of a batch: those that its turns come to, and those that asks have waited for."""

    def __init__(
        self,
        executor: Executor,
        intentions: Intentions,
        asks: Asks,
        timers: Timers,
        handlers: Handlers,
        left: Runs,
        dead: DeadLetters,
    ) -> None:
        self._executor, self._intentions, self._handlers = executor, intentions, handlers
        self._asks, self._timers, self._left, self._dead = asks, timers, left, dead
        self._turns = Distinct(executor, dead)

    # ── of the asked ──

    def teller(self, handler: Handler) -> Callable[[Any, Extra], None]:
        """Return what sends the replies of a handler to their askers, each behind what its turn has
        sent and before what the next one sends (I2)."""
        turn, left, apply = self._executor.turn, self._left, self._intentions.apply
        encode = handler.encode_reply

        def tell(reply: Any, asker: Extra) -> None:
            body = encode(reply)
            if turn.intentions:
                assert turn.entity is not None, "a turn has an entity"
                apply(turn.entity)
            to_type, to_key, id = asker
            head = OUTCOMES[to_type]
            if left.head is not head:
                left.open(head)
            left.keys.append(to_key)
            left.extras.append((id, "done", body))

        return tell

    def answer(self, handler: Handler, key: str, args: Args, asker: Extra, result: Result) -> None:
        """Send the result of a turn that ran alone to its asker."""
        outcome = outcome_of(result)
        if isinstance(result, Broke):
            self._dead.failed(handler, key, args, result, answered=True)
        to_type, to_key, id = asker
        extra = id, outcome.kind, outcome.body
        self._left.add(OUTCOMES[to_type], to_key, None, extra)

    # ── of the asker ──

    def run(self, type_name: str, outcomes: Iterable[tuple[str, Extra]]) -> None:
        """Run the handlers that wait for outcomes, in order. Raises Raised.

        Args:
            outcomes: (key of the asker, (ask id, kind, body)) of each.
        """
        for key, (id, kind, body) in outcomes:
            self._turns.before(key)
            ask = self._asks.take(type_name, key, id)
            if ask is not None:
                if ask.timer:
                    self._timers.cancel(ask.timer)
                self._run(ask, kind, body)
        self._turns.run()

    def late(self, type_name: str, key: str, id: bytes) -> bool:
        """Whether a time-out is the first outcome of its ask, which it takes."""
        return self._asks.take(type_name, key, id) is not None

    def _run(self, ask: Ask, kind: str, body: bytes) -> None:
        first: bytes | Exception
        if kind == "done":
            first, then = body, ask.then
        else:
            first = error_of(kind, body)
            then = ask.rejected if kind == "rejected" else ask.failed
        if then is not None:
            id, params, rest = then
            handler = self._handlers.by_id.get(id)
            if handler is None:
                self._dead.unknown(ask.type, ask.key, id, params, rest)
                return
            with_first = kind != "done" or ask.replies
            rest = self._handlers.arguments(handler, params, rest, skip=int(with_first))
            self._turns.add(handler, ask.key, OutcomeArgs(first, rest, with_first))
        elif isinstance(first, Exception):
            self._dead.bury(ask.type, ask.key, f"{kind}: {first}", answered=True)
