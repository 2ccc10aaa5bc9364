"""One message to its entity, and what becomes of it: sends, outcomes, dead letters.

What turns leave behind gathers in one queue, in order. `drain` routes it, run by run: a message
to an entity of this shard runs in the same batch, any other joins the buffer of its shard's
stream. Everything stays in this object until the batch is sealed, so that throwing a batch away
is clearing it.

While the shard's own stream holds messages that wait, what is sent locally joins it behind
them, so that no later message overtakes an earlier one of the same sender (I2).

No I/O, no clock. Idea: docs/entities.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from typing import Any

import msgspec

from skerry.arguments import Args
from skerry.entity import Entity, EntityType
from skerry.errors import Failed, InvalidMessage, Rejected
from skerry.handler import Handler
from skerry.runtime.core import wire
from skerry.runtime.core.buffer import Buffer, Extra, Messages, Runs
from skerry.runtime.core.events import Outcome
from skerry.runtime.core.ownership import Ownership, slot_of
from skerry.runtime.core.settings import TURN_ERRORS
from skerry.runtime.core.tables.asks import Ask, Asks, Continuation
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.outputs import Outputs, home, partition_of
from skerry.runtime.core.tables.timers import Timer, Timers, timer_key, unnamed_key
from skerry.runtime.core.turns import (
    Broke,
    Calling,
    Done,
    Given,
    Kept,
    Place,
    Raised,
    Refused,
    Result,
    Turns,
    broke,
)
from skerry.runtime.core.wire import Call
from skerry.stream.compile import Exit
from skerry.turn import Turn

_ID = struct.Struct(">IQQI")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.decode


class Delivery:
    """The open batch: who gets which message, and what the turns leave behind."""

    def __init__(
        self,
        ownership: Ownership,
        types: dict[str, EntityType],
        *,
        timers: Timers,
        asks: Asks,
        outputs: Outputs,
        turn: Turn,
        turn_errors: tuple[type[BaseException], ...] = TURN_ERRORS,
        verdict: str = "",
    ) -> None:
        self.me = ownership.me
        self.types = types
        self.handlers = {h.id: h for t in types.values() for h in t.handlers.values()}
        self.timers, self.asks, self.turn = timers, asks, turn
        self.outputs = outputs
        self.turns: Turns
        self.old_params: dict[int, list[str]] = {}
        """Parameter names of argument lists of earlier releases, by their ids."""
        self.left = Runs()
        """What turns have left and nobody has routed yet, in order."""
        self.filled: dict[int, Buffer] = {}
        """Buffers of the shards that this batch has messages for."""
        self._buffers: dict[int, Buffer] = {}
        self.dead = DeadLetters(turn, self.new_id)
        self.queueing = False
        """Whether local messages must join the shard's own stream."""
        self.careful = False
        self.poison = False
        """The message that runs next has ended workers before: a dead letter instead of a turn."""
        self._verdict, self._turn_errors = verdict, turn_errors
        self._epoch = self._commit = self._index = 0
        self._ownership = ownership
        turn.timer_set = self._timer_set

    def elsewhere(self, slot: int) -> Buffer | None:
        """The buffer of the shard that a slot belongs to; None when it is ours."""
        owner = self._ownership.owner(slot)
        return None if owner == self.me else self.buffer(owner)

    def _place(self, type_name: str, key: str) -> Buffer | None:
        """The same for a key, looked up where most are known; of any type, entities' or not."""
        kept = self.turns.kept.get(type_name)
        place = None if kept is None else kept.places.get(key)
        if place is None:
            return self.elsewhere(slot_of(type_name, key))
        return place if isinstance(place, Buffer) else None

    # ── the batch ──

    def begin(self, epoch: int, commit: int, *, careful: bool) -> None:
        """The batch begins, or begins again."""
        self.left.reset()
        for buffer in self.filled.values():
            buffer.reset()
        self.filled.clear()
        self._epoch, self._commit, self._index = epoch, commit, 0
        self.careful = careful

    def new_id(self) -> bytes:
        """24 bytes that are never used again: (shard, epoch, commit, index)."""
        self._index += 1
        return _ID.pack(self.me, self._epoch, self._commit, self._index)

    def buffer(self, shard: int) -> Buffer:
        """Where messages to this shard are collected."""
        found = self._buffers.get(shard)
        if found is None:
            found = self._buffers[shard] = Buffer(shard, self.filled)
        return found

    def drain(self, turns_max: int) -> None:
        """Route what turns have left: what is for this shard runs, so many turns; the rest of it
        joins the shard's own stream."""
        while runs := self.left.take():
            for messages in runs:
                if len(messages.keys) > turns_max > 0 and not self.queueing:
                    messages, rest = messages.split(turns_max)
                    self._route(messages, queueing=False)
                    messages, turns_max = rest, 0
                self._route(messages, queueing=self.queueing or turns_max <= 0)
                turns_max -= len(messages.keys)

    def _route(self, messages: Messages, *, queueing: bool) -> None:
        assert queueing or not self.queueing, "I2: a message overtakes the shard's own stream"
        call, handler, keys = messages.call, messages.handler, messages.keys
        if handler is not None and handler.entity not in self.types:
            raise Raised  # Run carefully, the turn that sent it is found.
        if call == Call.SEND and handler is not None:
            run = self.join if queueing else self.columns
            run(handler, keys, messages.column)
            return
        if not queueing and self._together(
            call, handler, messages.type, keys, messages.column, messages.extras
        ):
            return
        each = repeat(()) if handler is None else handler.each(messages.column, len(keys))
        entries: Iterable[Any] = messages.column or repeat(None)
        extras: Iterable[Extra | None] = messages.extras or repeat(None)
        own = self.buffer(self.me) if queueing else None
        for key, args, entry, extra in zip(keys, each, entries, extras):
            buffer = self._place(messages.type, key) or own
            if buffer is None:
                self.deliver(call, handler, messages.type, key, args, extra)
            else:
                buffer.add(call, handler, messages.type, key, entry, extra)

    def one_by_one(self, kept: Kept) -> bool:
        """Whether turns of this type run one by one now: one of them may raise or hang."""
        return self.careful or self.poison or kept.careful > 0

    # ── what a turn leaves ──

    def leave(self, entity: Entity) -> None:
        """Take what the turn of `entity` sent, asked and set."""
        turn = self.turn
        if not turn.extra:
            self.collect()
            return
        if turn.forgotten:
            self._forget(entity)
        add = self.left.add
        for place, (handler, key, args, asked) in enumerate(turn.sends):
            entry = handler.entry(args)
            if asked is None or place < turn.forgotten_sends:
                add(Call.SEND, handler, handler.entity, key, entry, None)
            else:
                add(Call.ASK, handler, handler.entity, key, entry, self._ask(entity, asked))
        if turn.laters or turn.timers or turn.emits:
            self._leave_extra(entity)
        turn.end()

    def collect(self) -> None:
        """Take what turns have sent that need no look at who they were."""
        sends = self.turn.sends
        if not sends:
            return
        for handler, messages in groupby(sends, itemgetter(0)):
            _, keys, args, _ = zip(*messages)
            self.left.extend(handler, keys, handler.column(args))
        sends.clear()

    def _forget(self, entity: Entity) -> None:
        """What stood before this turn; what it has set and asked since is not here yet."""
        name, key = entity.__skerry__.name, entity.key
        self.turns.forget(self.turns.kept[name], entity)
        self.timers.cancel_all(name, key)
        for ask in self.asks.take_all(name, key):
            if ask.timer:
                self.timers.cancel(ask.timer)

    def _leave_extra(self, entity: Entity) -> None:
        turn, timers = self.turn, self.timers
        name, key = entity.__skerry__.name, entity.key
        for timer_name, timer in turn.timers.items():
            row_key = timer_key(name, key, timer_name)
            if timer is None:
                timers.cancel(row_key)
                continue
            delay, handler, args = timer
            due = turn.now_ns + delay
            row = Timer("named", due, name, key, timer_name, handler.id, handler.params_id, args)
            timers.set(row_key, row)
        for delay, handler, target, args in turn.laters:
            if handler.entity not in self.types:
                raise Raised
            id = self.new_id()
            later = Timer(
                "later",
                turn.now_ns + delay,
                name,
                key,
                "",
                handler.id,
                handler.params_id,
                args,
                target,
                handler.entity,
                id,
            )
            timers.set(unnamed_key(name, key, id), later)
        for output, item in turn.emits:
            self.emit(output.name, [partition_of(name, key, output.partitions)], [item])

    def _ask(self, entity: Entity, asked: Any) -> tuple[str, str, bytes]:
        name, key = entity.__skerry__.name, entity.key
        id = self.new_id()
        timer = b""
        then, rejected, failed, timeout = asked.outcomes
        if timeout is not None:
            delay, late, args = timeout
            timer = unnamed_key(name, key, id)
            due = self.turn.now_ns + delay
            row = Timer("timeout", due, name, key, "", late.id, late.params_id, args, id=id)
            self.timers.set(timer, row)
        ask = Ask(
            name,
            key,
            id,
            asked.replies,
            _continuation(then),
            _continuation(rejected),
            _continuation(failed),
            timer,
        )
        self.asks.add(ask)
        return name, key, id

    def _timer_set(self, entity: Entity, timer_name: str) -> bool:
        row_key = timer_key(entity.__skerry__.name, entity.key, timer_name)
        return self.timers.stands(row_key) is not None

    # ── one message ──

    def deliver(
        self,
        call: int,
        handler: Handler | None,
        type_name: str,
        key: str,
        args: Args,
        extra: tuple[Any, ...] | None,
    ) -> None:
        """Run the turn of one message, and send its outcome where it belongs."""
        if call == Call.OUTCOME:
            assert extra is not None, "an outcome names its ask"
            self._outcome(type_name, key, *extra)
            return
        if call == Call.EMIT:
            assert extra is not None, "an item is emitted with its message"
            self._emitted(type_name, key, *extra)
            return
        assert handler is not None, "only outcomes name no handler"
        result = self.run_one(handler, key, args, wanted=call == Call.ASK)
        if call == Call.ASK:
            assert extra is not None, "an ask names its asker"
            self._answer(extra, handler, key, args, result)
        elif not isinstance(result, Done):
            self.bury(handler, key, args, result)

    def run_one(self, handler: Handler, key: str, args: Given, *, wanted: bool) -> Result:
        """Run one turn, or what poison becomes instead."""
        if self.poison:
            self.poison = False
            return Broke(f"the handler {self._verdict}", "")
        kept = self.turns.kept[handler.entity]
        return self.turns.run(kept, handler, key, args, wanted=wanted, careful=self.careful)

    def _answer(
        self, asker: tuple[Any, ...], handler: Handler, key: str, args: Args, result: Result
    ) -> None:
        outcome = outcome_of(result)
        if isinstance(result, Broke):
            self.bury(handler, key, args, result, answered=True)
        asker_type, asker_key, id = asker
        extra = (id, outcome.kind, outcome.body)
        self.left.add(Call.OUTCOME, None, asker_type, asker_key, None, extra)

    def _outcome(self, type_name: str, key: str, id: bytes, kind: str, body: bytes) -> None:
        ask = self._taken(type_name, key, id)
        if ask is None:
            return
        first: bytes | Exception = body if kind == "done" else error_of(kind, body)
        then = {"done": ask.then, "rejected": ask.rejected, "failed": ask.failed}[kind]
        if then is not None:
            self._continue(then, type_name, key, first, with_first=kind != "done" or ask.replies)
        elif isinstance(first, Exception):
            self.dead.bury(type_name, key, f"{kind}: {first}", answered=True)

    def _taken(self, type_name: str, key: str, id: bytes) -> Ask | None:
        """The ask that an outcome is for; nothing else will be its outcome."""
        ask = self.asks.take(type_name, key, id)
        if ask is not None and ask.timer:
            self.timers.cancel(ask.timer)
        return ask

    def _continue(
        self, then: Continuation, type_name: str, key: str, first: Any, *, with_first: bool
    ) -> None:
        """Run an outcome's handler with the outcome before its own arguments."""
        found = self._handler_of(then, type_name, key, with_first=with_first)
        if found is None:
            return
        handler, rest = found
        # Made anew for each try: a handler may change what it was given and then raise.
        result = self.run_one(
            handler, key, lambda: handler.outcome(first, rest, with_first), wanted=False
        )
        if not isinstance(result, Done):
            self.bury(handler, key, then[2], result)

    def _handler_of(
        self, then: Continuation, type_name: str, key: str, *, with_first: bool
    ) -> tuple[Handler, bytes] | None:
        """An outcome's handler, and its own arguments as this release orders them. None: there is no
        such handler any more, and the outcome is a dead letter."""
        id, params, rest = then
        handler = self.handlers.get(id)
        if handler is None:
            self.dead.unknown(type_name, key, id, params, rest)
            return None
        return handler, self.by_name(handler, params, rest, skip=int(with_first))

    def _emitted(self, type_name: str, partition: str, item: bytes) -> None:
        """An item has come to its output: its stages run now. One that raises harms only itself."""
        try:
            if self.poison:
                self.poison = False
                raise RuntimeError(f"a stage {self._verdict}")
            self.outputs.take(type_name.removeprefix(home("")), partition, item)
        except self._turn_errors as error:
            failure = broke(error)
            self.dead.bury(
                type_name,
                partition,
                f"an emitted item: {failure.error}",
                args=_encode([_shown(item)]),
                traceback=failure.traceback,
                answered=True,
            )

    def fire(self, row_key: bytes, candidate: Timer) -> None:
        """A due timer: nothing happens unless the row that was seen still stands."""
        if self.timers.stands(row_key) is not candidate:
            return
        early_ns = candidate.due_ns - self.turn.now_ns
        assert early_ns <= 0, f"I10: a timer fires {early_ns} ns before its time"
        self.timers.cancel(row_key)
        handler = self.handlers.get(candidate.handler)
        if handler is None:
            self.dead.unknown(
                candidate.type, candidate.key, candidate.handler, candidate.params, candidate.args
            )
            return
        args = self.by_name(handler, candidate.params, candidate.args)
        if candidate.kind == "later":
            try:
                entry = handler.stored_entry(args)
            except InvalidMessage as error:  # An older release set it.
                self.bury(handler, candidate.to, args, broke(error))
                return
            self.left.add(Call.SEND, handler, candidate.to_type, candidate.to, entry, None)
        elif candidate.kind == "named" or self._late(candidate):
            result = self.run_one(handler, candidate.key, args, wanted=False)
            if not isinstance(result, Done):
                self.bury(handler, candidate.key, args, result)

    def _late(self, timeout: Timer) -> bool:
        """Whether no outcome came before: then this is the outcome."""
        return self.asks.take(timeout.type, timeout.key, timeout.id) is not None

    # ── frames and sources ──

    def run(self, run: wire.Run) -> None:
        """The messages of a run, in order."""
        if run.call in (Call.OUTCOME, Call.EMIT):
            extras = run.extras or []
            if not self._together(run.call, None, run.type, run.keys, (), extras):
                for key, its_own in zip(run.keys, extras):
                    self.deliver(run.call, None, run.type, key, (), its_own)
            return
        handler = self.handlers.get(run.handler)
        if handler is None or run.type != handler.entity:
            for key, blob in zip(run.keys, wire.blobs_of(run)):
                self.dead.unknown(run.type, key, run.handler, run.params, blob)
            return
        column = wire.column_of(run, handler)
        if column is not None and run.call == Call.SEND:
            self.columns(handler, run.keys, column)
            return
        if column is not None and self._together(
            run.call, handler, run.type, run.keys, column, run.extras or []
        ):
            return
        each: Iterable[Args] = (
            self._older(handler, run) if column is None else handler.each(column, len(run.keys))
        )
        askers: Iterable[Extra | None] = run.extras or repeat(None)
        for key, args, asker in zip(run.keys, each, askers):
            self.deliver(run.call, handler, run.type, key, args, asker)

    def _older(self, handler: Handler, run: wire.Run) -> list[bytes]:
        """Arguments that an older release has sent. What does not decode, its turn refuses."""
        blobs = wire.blobs_of(run)
        try:
            return [self.by_name(handler, run.params, blob) for blob in blobs]
        except (TypeError, *wire.UNREADABLE):
            return blobs

    def _together(
        self,
        call: int,
        handler: Handler | None,
        type_name: str,
        keys: list[str],
        column: Sequence[Any],
        extras: list[Extra],
    ) -> bool:
        """Run asks, or replies to askers, as one loop; those for other shards join their buffers.
        False: something about them must be looked at one by one."""
        kept = self.turns.kept.get(type_name)
        if kept is None or self.one_by_one(kept):
            return False
        if call == Call.ASK and handler is not None and not handler.query:
            places = self.turns.places(kept, keys)
            self.turns.answer_columns(kept, handler, keys, places, column, extras, self.left)
            return True
        if call == Call.OUTCOME and all(kind == "done" for _, kind, _ in extras):
            places = self.turns.places(kept, keys)
            self.turns.run_each(kept, self._replies(type_name, keys, places, extras))
            return True
        return False

    def _replies(
        self, type_name: str, keys: list[str], places: list[Place], extras: list[Extra]
    ) -> Iterator[Calling]:
        """The turns that replies are to their askers, while they are run one after the other."""
        for key, place, extra in zip(keys, places, extras):
            if isinstance(place, Buffer):
                place.add(Call.OUTCOME, None, type_name, key, None, extra)
                continue
            id, _, body = extra
            ask = self._taken(type_name, key, id)
            if ask is None or ask.then is None:
                continue
            found = self._handler_of(ask.then, type_name, key, with_first=ask.replies)
            if found is None:
                continue
            handler, rest = found
            if handler.query:
                raise Raised(type_name)  # Run alone, it is seen to change nothing.
            yield key, place, handler, handler.outcome(body, rest, ask.replies)

    def columns(self, handler: Handler, keys: list[str], column: Sequence[Any]) -> None:
        """Messages to one handler that nobody waits for, in order: those for this shard run now,
        others join their buffers. `column`: as `Handler.column`."""
        kept = self.turns.kept[handler.entity]
        if handler.query or self.one_by_one(kept):
            for key, args in zip(keys, handler.each(column, len(keys))):
                if buffer := self._place(handler.entity, key):
                    entry = handler.entry(args)
                    buffer.add(Call.SEND, handler, handler.entity, key, entry, None)
                else:
                    self.deliver(Call.SEND, handler, handler.entity, key, args, None)
            return
        places = self.turns.places(kept, keys)
        self.turns.run_columns(kept, handler, keys, places, column)
        self.collect()

    def join(self, handler: Handler, keys: list[str], column: Sequence[Any]) -> None:
        """The same, but those for this shard join its own stream, and nothing runs."""
        name, own = handler.entity, self.buffer(self.me)
        known = self.turns.kept[name].places.get
        buffers = [
            place
            if isinstance(place, Buffer)
            else (place is None and self._place(name, key)) or own
            for key, place in zip(keys, map(known, keys))
        ]
        self.turns.spread(handler, keys, buffers, column)

    def emit(self, output: str, partitions: Iterable[str], items: Sequence[bytes]) -> None:
        """Items on their way to where their partitions of an output live, in order."""
        for partition, item in zip(partitions, items):
            self.left.add(Call.EMIT, None, home(output), partition, None, (item,))

    def exit(self, end: Exit, slot: int, keys: list[str], items: Sequence[bytes]) -> None:
        """Items that leave a source's stream by a sink: dealt by their keys, else by the slot."""
        mine = str(slot % end.partitions)
        of_keys = [partition_of("", key, end.partitions) for key in keys]
        self.emit(end.output, of_keys or repeat(mine), items)

    def spread(self, handler: Handler, keys: list[str], column: Sequence[Any]) -> None:
        """Messages from a source."""
        messages = Messages(Call.SEND, handler, handler.entity, keys, column, [])
        self._route(messages, queueing=self.queueing)

    def by_name(self, handler: Handler, params: int, blob: bytes, *, skip: int = 0) -> bytes:
        """Arguments as this release orders them: what an older one stored is mapped by name.
        `skip`: so many stand before them, as an outcome does."""
        if params == handler.params_id or params not in self.old_params:
            return blob
        return handler.reordered(self.old_params[params], blob, skip=skip)

    # ── dead letters ──

    def bury(
        self, handler: Handler, key: str, args: Args, result: Result, *, answered: bool = False
    ) -> None:
        """A message whose turn left no trace: nothing is lost without a word."""
        if isinstance(result, Refused):
            error, trace = f"rejected: {result.text}", ""
        else:
            assert isinstance(result, Broke), "a turn that is done has no dead letter"
            error, trace = result.error, result.traceback
        try:
            body = args if isinstance(args, bytes) else _encode(args)
        except (ValueError, OverflowError) as unfit:  # Sent in this batch; run carefully, not sent.
            raise Raised from unfit
        self.dead.bury(
            handler.entity,
            key,
            error,
            handler=(handler.name, handler.id, handler.params_id),
            args=body,
            traceback=trace,
            answered=answered,
        )


def outcome_of(result: Result) -> Outcome:
    """What an asker is told."""
    match result:
        case Done(reply):
            return Outcome("done", b"\xc0" if reply is None else reply)
        case Refused(_, body):
            return Outcome("rejected", body)
        case Broke(error, trace):
            return Outcome("failed", _encode([error, trace]))


def _shown(item: bytes) -> Any:
    """An emitted item, as a dead letter has it."""
    try:
        return _decode(item)
    except wire.UNREADABLE:  # A peer's, that no release of ours has encoded.
        return item


def error_of(kind: str, body: bytes) -> Rejected | Failed:
    """The exception that an outcome's bytes stand for."""
    first, second = _decode(body)
    return Rejected(first, **second) if kind == "rejected" else Failed(first, second)


def _continuation(then: tuple[Handler, bytes] | None) -> Continuation | None:
    return None if then is None else (then[0].id, then[0].params_id, then[1])
