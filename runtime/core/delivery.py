"""Brings each message to its turn, whatever way it came: frames, timers, sources, other turns.

    run      messages of one kind of call -> turns, outcomes, or items of outputs
    receive  a run of a frame, as bytes   -> run, or dead letters when no handler is known
    fire     a due timer                  -> a turn, if its row still stands
    _stage   messages of a stage          -> turns, and their replies to the stages behind it
    drain    what turns have left         -> run, or the buffers of streams

What turns leave behind gathers in `left`, in order, and is routed run by run. All of it stays
in memory until the batch is sealed, so that throwing a batch away is clearing it.

No I/O, no clock. Idea: docs/ideas/entities.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from skerry.arguments import Args
from skerry.errors import InvalidMessage
from skerry.handler import Handler
from skerry.limits import check_keys
from skerry.runtime.core import wire
from skerry.runtime.core.buffer import HEADS, SENDS, Extra, Messages, Runs
from skerry.runtime.core.executor import Executor
from skerry.runtime.core.flows import Flows
from skerry.runtime.core.handlers import Handlers
from skerry.runtime.core.loops import Shape, Waits, shape_of
from skerry.runtime.core.outcomes import Distinct, Outcomes
from skerry.runtime.core.results import Done, Raised, broke
from skerry.runtime.core.routing import Routing
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.outputs import Outputs, home
from skerry.runtime.core.tables.timers import Timer, Timers
from skerry.runtime.core.wire import Call

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.decode


class Delivery:
    """The messages of the open batch."""

    def __init__(
        self,
        routing: Routing,
        executor: Executor,
        outcomes: Outcomes,
        timers: Timers,
        outputs: Outputs,
        flows: Flows,
        handlers: Handlers,
        left: Runs,
        dead: DeadLetters,
    ) -> None:
        self._cache, self._routing, self._executor = executor.cache, routing, executor
        self._outcomes, self._flows, self._handlers = outcomes, flows, handlers
        self._timers, self._outputs, self._left, self._dead = timers, outputs, left, dead
        self._due = Distinct(executor, dead)

    # ── messages of one kind of call ──

    def run(self, messages: Messages, shape: Shape | None = None) -> None:
        """Run messages, in order; those for other shards join their buffers. Raises Raised.

        Args:
            shape: that of the column, unless it is as `Handler.column` makes it.
        """
        handler = messages.head.handler
        if handler is not None:
            self._turns(handler, messages, shape or shape_of(handler))
            return
        ours = self._sort_out(messages)
        if messages.head.call == Call.OUTCOME:
            self._outcomes.run(messages.head.type, ours)
        else:
            for partition, (item,) in ours:
                self._emitted(messages.head.type, partition, item)

    def _turns(self, handler: Handler, messages: Messages, shape: Shape) -> None:
        head, executor, asked = messages.head, self._executor, messages.head.call == Call.ASK
        if handler.behind is not None and executor.optimistic(handler):
            self._stage(handler, messages, shape)
            return
        if executor.optimistic(handler):
            executor.together(
                handler,
                messages.keys,
                messages.column,
                shape,
                head=head,
                extras=messages.extras,
                waits=Waits.ASKER if asked else Waits.NOBODY,
                tell=self._outcomes.teller(handler) if asked else None,
            )
            return
        buffers = self._cache.buffers_of(handler.entity, messages.keys)
        for (key, entry, extra), buffer in zip(messages.each(), buffers):
            if buffer is not None:
                buffer.add(head, key, entry, extra)
                continue
            args: Args = entry
            if shape in (Shape.NOTHING, Shape.VALUE):
                args = (entry,) if shape is Shape.VALUE else ()
            result = executor.alone(handler, key, args, wanted=asked or handler.behind is not None)
            if asked:
                assert extra is not None, "an ask names its asker"
                self._outcomes.answer(handler, key, args, extra, result)
                continue
            self._dead.failed(handler, key, args, result)
            if isinstance(result, Done) and result.reply is not None:
                self._flows.alone(handler, key, result.reply)

    def _stage(self, handler: Handler, messages: Messages, shape: Shape) -> None:
        """Run turns of a stage together, and let their replies flow on. Raises Raised."""
        assert messages.head.call == Call.SEND, "nobody asks what a stage alone sends to"
        replies = list[Any]()
        self._executor.together(
            handler,
            messages.keys,
            messages.column,
            shape,
            head=messages.head,
            waits=Waits.CALLER,
            tell=self._flows.collector(handler, replies),
        )
        keys = messages.keys
        if len(replies) < len(keys):
            buffers = self._cache.buffers_of(handler.entity, keys)
            keys = [key for key, buffer in zip(keys, buffers) if buffer is None]
        self._flows.together(handler, keys, replies)

    def _sort_out(self, messages: Messages) -> list[tuple[str, Extra]]:
        """The (key, extra) of messages for this shard; the others join their buffers."""
        head, ours = messages.head, list[tuple[str, Extra]]()
        buffers = self._cache.buffers_of(head.type, messages.keys)
        for key, extra, buffer in zip(messages.keys, messages.extras, buffers):
            if buffer is None:
                ours.append((key, extra))
            else:
                buffer.add(head, key, None, extra)
        return ours

    def _emitted(self, type_name: str, partition: str, item: bytes) -> None:
        """Run the stages of an output on an item. One that raises harms only its own item."""
        output = type_name.removeprefix(home(""))
        failure = self._executor.poison("a stage")
        if failure is None:
            _, error = self._executor.call(None, self._outputs.take, output, partition, item)
            if error is None:
                return
            failure = broke(error)
        self._dead.bury(
            type_name,
            partition,
            f"an emitted item: {failure.error}",
            args=_encode([_shown(item)]),
            traceback=failure.traceback,
            answered=True,
        )

    # ── frames ──

    def receive(self, run: wire.Run) -> None:
        """Run the messages of a run as it came in a frame. Raises Raised."""
        extras = run.extras or []
        if run.call in (Call.OUTCOME, Call.EMIT):
            self.run(Messages(HEADS[run.call][run.type], run.keys, (), extras))
            return
        handler = self._handlers.by_id.get(run.handler)
        if handler is None or run.type != handler.entity:
            for key, blob in zip(run.keys, wire.blobs_of(run)):
                self._dead.unknown(run.type, key, run.handler, run.params, blob)
            return
        head, column = HEADS[run.call][handler], wire.column_of(run, handler)
        if column is not None:
            self.run(Messages(head, run.keys, column, extras))
        else:
            self.run(Messages(head, run.keys, self._older(handler, run), extras), Shape.PACKED)

    def _older(self, handler: Handler, run: wire.Run) -> list[bytes]:
        """Arguments that an older release has sent. Those that do not decode, their turns refuse."""
        blobs = wire.blobs_of(run)
        try:
            return [self._handlers.arguments(handler, run.params, blob) for blob in blobs]
        except (TypeError, *wire.UNREADABLE):
            return blobs

    # ── timers ──

    def fire(self, due: list[tuple[bytes, Timer]]) -> None:
        """Run due timers. One whose row has gone since, or was set again, does nothing."""
        for row_key, timer in due:
            self._due.before(timer.key)
            if self._timers.stands(row_key) is timer:
                self._fire(row_key, timer)
        self._due.run()

    def _fire(self, row_key: bytes, timer: Timer) -> None:
        early_ns = timer.due_ns - self._executor.turn.now_ns
        assert early_ns <= 0, f"I10: a timer fires {early_ns} ns before its time"
        self._timers.cancel(row_key)
        handler = self._handlers.by_id.get(timer.handler)
        if handler is None:
            self._dead.unknown(timer.type, timer.key, timer.handler, timer.params, timer.args)
            return
        args = self._handlers.arguments(handler, timer.params, timer.args)
        if timer.kind == "later":
            try:
                entry = handler.stored_entry(args)
            except InvalidMessage as error:  # An older release set it.
                self._dead.failed(handler, timer.to, args, broke(error))
                return
            self._left.add(SENDS[handler], timer.to, entry, None)
        elif timer.kind == "named" or self._outcomes.late(timer.type, timer.key, timer.id):
            self._due.add(handler, timer.key, args)

    # ── what turns have left ──

    def drain(self, turns_max: int) -> None:
        """Route what turns have left: messages for this shard run, so many of them; the rest joins
        the shard's own stream. Raises Raised."""
        queueing = self._routing.queueing
        while runs := self._left.take():
            for messages in runs:
                if len(messages.keys) > turns_max > 0 and not queueing:
                    messages, rest = messages.split(turns_max)
                    self._route(messages, queueing=False)
                    messages, turns_max = rest, 0
                self._route(messages, queueing=queueing or turns_max <= 0)
                turns_max -= len(messages.keys)

    def queue(self) -> None:
        """Route what is left behind all turns of the batch. Raises Raised."""
        for messages in self._left.take():
            self._route(messages, queueing=True)

    def send(self, handler: Handler, keys: list[str], column: Sequence[Any]) -> None:
        """Route messages of a source. Raises Raised."""
        queueing = self._routing.queueing
        # Else a key is looked at when its entity is looked up.
        if queueing or self._routing.diverting:
            try:
                check_keys(keys)
            except (TypeError, ValueError) as unfit:
                raise Raised from unfit
        self._route(Messages(SENDS[handler], keys, column, []), queueing=queueing)

    def _route(self, messages: Messages, *, queueing: bool) -> None:
        assert queueing or not self._routing.queueing, "I2: a message overtakes the own stream"
        messages = self._routing.staying(messages)
        handler = messages.head.handler
        if handler is not None and handler.entity not in self._cache.types:
            raise Raised  # Run isolated, the turn is found that sent it.
        if queueing:
            self._queue(messages)
        else:
            self.run(messages)

    def _queue(self, messages: Messages) -> None:
        head, own = messages.head, self._routing.own
        buffers = self._cache.buffers_of(head.type, messages.keys)
        for (key, entry, extra), buffer in zip(messages.each(), buffers):
            (buffer or own).add(head, key, entry, extra)


def _shown(item: bytes) -> Any:
    """An emitted item, as a dead letter has it."""
    try:
        return _decode(item)
    except wire.UNREADABLE:  # A peer's, that no release of ours has encoded.
        return item
