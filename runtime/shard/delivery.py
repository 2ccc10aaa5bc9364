"""One message to its entity, and what becomes of it: sends, outcomes, dead letters.

What a turn leaves behind is routed here: to this shard's own queue, or into the buffer of
another shard's stream. Everything stays in this object until the batch is sealed, so that
throwing a batch away is clearing it.

While the shard's own stream holds messages that wait, what is sent locally joins it behind
them, so that no later message overtakes an earlier one of the same sender (I2).

No I/O, no clock. Idea: docs/entities.md.
"""

from __future__ import annotations

import struct
import traceback
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import compress, repeat
from typing import Any

import msgspec

from skerry.entity import Entity, EntityType
from skerry.errors import Failed, InvalidMessage, Rejected
from skerry.message import MESSAGE_BYTES_MAX, Args, Handler
from skerry.runtime.shard import wire
from skerry.runtime.shard.asks import Ask, Asks, Continuation
from skerry.runtime.shard.dead import DeadLetter, dead_key
from skerry.runtime.shard.events import Outcome, Placement, Request, Row, ShardId, Table
from skerry.runtime.shard.outputs import Outputs, home, partition_of
from skerry.runtime.shard.placement import Routes
from skerry.runtime.shard.timers import Timer, Timers, timer_key, unnamed_key
from skerry.runtime.shard.turns import Broke, Done, Given, Raised, Refused, Result, Turns
from skerry.runtime.shard.wire import Call
from skerry.stream import Exit
from skerry.turn import Turn

_ID = struct.Struct(">IQQI")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.decode

Local = tuple[int, Handler | None, str, str, Args, tuple[Any, ...] | None]
"""(call, handler, type, key, args, extra): a message of this shard to itself."""


def encode_reply(reply: Any) -> bytes:
    """A handler's result as bytes, made in the turn: no object is shared with what comes after."""
    body = _encode(reply)
    if len(body) > MESSAGE_BYTES_MAX:
        raise ValueError(f"its reply has {len(body)} bytes, more than {MESSAGE_BYTES_MAX}")
    return body


class Buffer:
    """Messages to one shard, in order, as open runs of one handler."""

    __slots__ = ("args", "call", "count", "extras", "handler", "keys", "runs", "type")

    def __init__(self) -> None:
        self.runs: list[wire.Run] = []
        self.count = 0
        self.call = -1
        self.handler: Handler | None = None
        self.type = ""
        self.keys: list[str] = []
        self.args: list[Args] = []
        self.extras: list[tuple[Any, ...]] = []

    def add(
        self, call: int, handler: Handler | None, type_name: str, key: str, args: Args, extra: Any
    ) -> None:
        """One message behind the others."""
        if handler is not self.handler or call != self.call or type_name != self.type:
            self._open(call, handler, type_name)
        self.keys.append(key)
        self.args.append(args)
        if extra is not None:
            self.extras.append(extra)

    def extend(self, handler: Handler, keys: list[str], args: Sequence[Args]) -> None:
        """Many messages to one handler that nobody waits for."""
        if handler is not self.handler or self.call != Call.SEND:
            self._open(Call.SEND, handler, handler.entity)
        self.keys.extend(keys)
        self.args.extend(args)

    def _open(self, call: int, handler: Handler | None, type_name: str) -> None:
        self._close()
        self.call, self.handler, self.type = call, handler, type_name

    def _close(self) -> None:
        if not self.keys:
            return
        extras = self.extras or None
        if self.handler is None:
            run = wire.Run(self.call, self.type, 0, 0, self.keys, wire.NO_COLUMNS, None, extras)
        else:
            run = wire.run_of(self.call, self.handler, self.keys, self.args, extras)
        self.runs.append(run)
        self.count += len(self.keys)
        self.keys, self.args, self.extras = [], [], []

    def add_run(self, run: wire.Run) -> None:
        """Messages that are encoded already."""
        self._close()
        self.handler, self.call = None, -1
        self.runs.append(run)
        self.count += len(run.keys)

    def frames(self, *, each: bool) -> list[tuple[bytes, int]]:
        """(body, messages) of the frames that carry all of this. `each`: one message a frame."""
        self._close()
        return wire.bodies(self.runs, each=each)


class Delivery:
    """The open batch: who gets which message, and what the turns leave behind."""

    def __init__(
        self,
        me: int,
        types: dict[str, EntityType],
        *,
        placement: Placement,
        timers: Timers,
        asks: Asks,
        outputs: Outputs,
        turn: Turn,
    ) -> None:
        self.me = me
        self.types = types
        self.handlers = {h.id: h for t in types.values() for h in t.handlers.values()}
        self.timers, self.asks, self.turn = timers, asks, turn
        self.outputs = outputs
        self.turns: Turns
        self.old_params: dict[int, list[str]] = {}
        """Parameter names of argument lists of earlier releases, by their ids."""
        self.local: deque[Local] = deque()
        self.buffers: dict[int, Buffer] = {}
        self.rows: list[Row] = []
        self.queueing = False
        """Whether local messages must join the shard's own stream."""
        self.careful = False
        self.poison = False
        """The message that runs next hung a worker before: a dead letter instead of a turn."""
        self.full = ""
        """Why nothing new is taken from clients; empty: it is."""
        self._epoch = self._commit = self._index = 0
        self.place(placement)
        turn.timer_set = self._timer_set

    def place(self, placement: Placement) -> None:
        """Adopt a placement."""
        self.routes = {name: Routes(name, placement) for name in self.types}
        self._placement = placement

    def route(self, type_name: str) -> Routes:
        """Routes of a type, also of one that this app has no more."""
        found = self.routes.get(type_name)
        if found is None:
            found = self.routes[type_name] = Routes(type_name, self._placement)
        return found

    # ── the batch ──

    def begin(self, epoch: int, commit: int, *, careful: bool) -> None:
        """The batch begins, or begins again."""
        self.local.clear()
        self.buffers.clear()
        self.rows.clear()
        self._epoch, self._commit, self._index = epoch, commit, 0
        self.careful = careful

    def new_id(self) -> bytes:
        """24 bytes that are never used again: (shard, epoch, commit, index)."""
        self._index += 1
        return _ID.pack(self.me, self._epoch, self._commit, self._index)

    def buffer(self, shard: int) -> Buffer:
        """Where messages to this shard are collected."""
        found = self.buffers.get(shard)
        if found is None:
            found = self.buffers[shard] = Buffer()
        return found

    def put(
        self, call: int, handler: Handler | None, type_name: str, key: str, args: Args, extra: Any
    ) -> None:
        """A message on its way to its entity's shard."""
        owner = self.route(type_name)[key]
        if owner != self.me or self.queueing:
            self.buffer(owner).add(call, handler, type_name, key, args, extra)
        else:
            self.local.append((call, handler, type_name, key, args, extra))

    def drain(self, turns_max: int) -> None:
        """Run local messages; what does not fit in the batch joins the shard's own stream."""
        local = self.local
        assert not (local and self.queueing), "I2: a local message overtakes the shard's own stream"
        while local and turns_max > 0:
            turns_max -= 1
            self.deliver(*local.popleft())
        while local:
            self.buffer(self.me).add(*local.popleft())

    # ── what a turn leaves ──

    def leave(self, entity: Entity) -> None:
        """Route what the turn of `entity` sent, asked and set."""
        turn = self.turn
        if turn.extra:
            self._leave_extra(entity)
        for handler, key, args, asked in turn.sends:
            if asked is None:
                self.put(Call.SEND, handler, handler.entity, key, args, None)
            else:
                extra = self._ask(entity, asked)
                self.put(Call.ASK, handler, handler.entity, key, args, extra)
        turn.sends.clear()

    def _leave_extra(self, entity: Entity) -> None:
        turn, timers = self.turn, self.timers
        name, key = entity.__skerry__.name, entity.key
        sends = list(turn.sends)
        if turn.forgotten:
            # Also what this turn itself set or asked: nobody is left to hear of it.
            turn.timers.clear()
            sends = [(handler, to, args, None) for handler, to, args, _ in sends]
            timers.cancel_all(name, key)
            for ask in self.asks.take_all(name, key):
                if ask.timer:
                    timers.cancel(ask.timer)
            self.turns.forget(self.turns.kept[name], key)
        for timer_name, timer in turn.timers.items():
            row_key = timer_key(name, key, timer_name)
            if timer is None:
                timers.cancel(row_key)
                continue
            delay, handler, args = timer
            due = turn.now_ns + delay
            row = Timer(
                "named", due, name, key, timer_name, handler.id, handler.params_id, _blob(args)
            )
            timers.set(row_key, row)
        for delay, handler, target, args in turn.laters:
            id = self.new_id()
            later = Timer(
                "later",
                turn.now_ns + delay,
                name,
                key,
                "",
                handler.id,
                handler.params_id,
                _blob(args),
                target,
                handler.entity,
                id,
            )
            timers.set(unnamed_key(name, key, id), later)
        for output, item in turn.emits:
            self.emit(output.name, [partition_of(name, key, output.partitions)], [item])
        turn.clear()
        turn.sends.extend(sends)

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
        result = self._turn(handler, key, args, wanted=call == Call.ASK)
        if call == Call.ASK:
            assert extra is not None, "an ask names its asker"
            self._answer(extra, handler, key, args, result)
        elif not isinstance(result, Done):
            self.bury(handler, key, args, result)

    def _turn(self, handler: Handler, key: str, args: Given, *, wanted: bool) -> Result:
        if self.poison:
            self.poison = False
            return Broke("the handler did not return and its worker was killed, twice", "")
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
        self.put(Call.OUTCOME, None, asker_type, asker_key, (), extra)

    def _outcome(self, type_name: str, key: str, id: bytes, kind: str, body: bytes) -> None:
        ask = self.asks.take(id)
        if ask is None:
            return
        if ask.timer:
            self.timers.cancel(ask.timer)
        first: bytes | Exception = body if kind == "done" else error_of(kind, body)
        then = {"done": ask.then, "rejected": ask.rejected, "failed": ask.failed}[kind]
        if then is not None:
            self._continue(then, type_name, key, first, with_first=kind != "done" or ask.replies)
        elif isinstance(first, Exception):
            letter = DeadLetter(
                self.turn.now_ns, type_name, key, "", 0, 0, b"\x90", f"{kind}: {first}", "", True
            )
            self.rows.append((Table.DEAD, dead_key(type_name, key, self.new_id()), _encode(letter)))

    def _continue(
        self, then: Continuation, type_name: str, key: str, first: Any, *, with_first: bool
    ) -> None:
        """Run an outcome's handler with the outcome before its own arguments."""
        handler = self.handlers.get(then[0])
        if handler is None:
            self.bury_unknown(type_name, key, then[0], then[1], then[2])
            return
        # Made anew for each try: a handler may change what it was given and then raise.
        rest = self.by_name(handler, then[1], then[2])
        result = self._turn(
            handler, key, lambda: handler.outcome(first, rest, with_first), wanted=False
        )
        if not isinstance(result, Done):
            self.bury(handler, key, then[2], result)

    def _emitted(self, type_name: str, partition: str, item: bytes) -> None:
        """An item has come to its output: its stages run now. One that raises harms only itself."""
        try:
            if self.poison:
                self.poison = False
                raise RuntimeError("its stages did not return and the worker was killed, twice")
            self.outputs.take(type_name.removeprefix(home("")), partition, item)
        except (Exception, SystemExit) as error:
            text = f"an emitted item: {type(error).__name__}: {error}"
            letter = DeadLetter(
                self.turn.now_ns, type_name, partition, "", 0, 0, _encode([_decode(item)]), text,
                traceback.format_exc(), True,
            )  # fmt: skip
            key = dead_key(type_name, partition, self.new_id())
            self.rows.append((Table.DEAD, key, _encode(letter)))

    def fire(self, row_key: bytes, candidate: Timer) -> None:
        """A due timer: nothing happens unless the row that was seen still stands."""
        if self.timers.stands(row_key) is not candidate:
            return
        early_ns = candidate.due_ns - self.turn.now_ns
        assert early_ns <= 0, f"I10: a timer fires {early_ns} ns before its time"
        self.timers.cancel(row_key)
        handler = self.handlers.get(candidate.handler)
        if handler is None:
            self.bury_unknown(
                candidate.type, candidate.key, candidate.handler, candidate.params, candidate.args
            )
            return
        args = self.by_name(handler, candidate.params, candidate.args)
        if candidate.kind == "later":
            values = handler.unpack(args) if handler.scalar else args
            self.put(Call.SEND, handler, candidate.to_type, candidate.to, values, None)
        elif candidate.kind == "named" or self.asks.take(candidate.id) is not None:
            result = self._turn(handler, candidate.key, args, wanted=False)
            if not isinstance(result, Done):
                self.bury(handler, candidate.key, args, result)

    # ── frames and sources ──

    def run(self, run: wire.Run) -> None:
        """The messages of a run, in order."""
        if run.call in (Call.OUTCOME, Call.EMIT):
            for key, extra in zip(run.keys, run.extras or ()):
                self.deliver(run.call, None, run.type, key, (), extra)
            return
        handler = self.handlers.get(run.handler)
        if handler is None:
            for key, blob in zip(run.keys, wire.blobs_of(run)):
                self.bury_unknown(run.type, key, run.handler, run.params, blob)
            return
        rows = self._rows_of(handler, run)
        if run.call == Call.SEND:
            self.columns(handler, run.keys, rows)
        else:
            for key, args, extra in zip(run.keys, rows, run.extras or ()):
                self.deliver(run.call, handler, run.type, key, args, extra)

    def _rows_of(self, handler: Handler, run: wire.Run) -> Sequence[Args]:
        if run.params == handler.params_id:
            if run.blobs is not None:
                return [bytes(blob) for blob in run.blobs]
            if handler.arity == 0:
                return list(repeat((), len(run.keys)))
            try:
                return list(zip(*handler.columns.decode(run.columns)))
            except msgspec.MsgspecError:
                pass  # Sent by an older release with other types: each message is judged alone.
        return [self.by_name(handler, run.params, blob) for blob in wire.blobs_of(run)]

    def columns(self, handler: Handler, keys: list[str], rows: Sequence[Args]) -> None:
        """Messages to one handler that nobody waits for, in order."""
        kept = self.turns.kept[handler.entity]
        if self.careful or kept.careful or handler.query or self.poison:
            for key, args in zip(keys, rows):
                self.deliver(Call.SEND, handler, handler.entity, key, args, None)
            return
        if handler.scalar and (not rows or type(rows[0]) is tuple):
            self.turns.run_columns(kept, handler, keys, rows)  # type: ignore[arg-type]
            return
        try:
            values = [handler.unpack(a) if isinstance(a, bytes) else a for a in rows]
        except InvalidMessage as error:
            raise Raised(handler.entity) from error
        self.turns.run_columns(kept, handler, keys, values)

    def emit(self, output: str, partitions: Iterable[str], items: Sequence[bytes]) -> None:
        """Items on their way to where their partitions of an output live, in order."""
        for partition, item in zip(partitions, items):
            self.put(Call.EMIT, None, home(output), partition, (), (item,))

    def exit(self, end: Exit, slot: int, keys: list[str], items: Sequence[bytes]) -> None:
        """Items that leave a source's stream by a sink: dealt by their keys, else by the slot."""
        mine = str(slot % end.partitions)
        of_keys = [partition_of("", key, end.partitions) for key in keys]
        self.emit(end.output, of_keys or repeat(mine), items)

    def spread(self, handler: Handler, keys: list[str], rows: Sequence[Args]) -> None:
        """Messages from a source: those for this shard run now, others join their streams."""
        owners = list(map(self.route(handler.entity).__getitem__, keys))
        for owner, own_keys, own_rows in _dealt(owners, keys, rows):
            if owner == self.me and not self.queueing:
                self.columns(handler, own_keys, own_rows)
            else:
                self.buffer(owner).extend(handler, own_keys, own_rows)

    def by_name(self, handler: Handler, params: int, blob: bytes) -> bytes:
        """Arguments as this release orders them: what an older one stored is mapped by name."""
        names = self.old_params.get(params)
        if params == handler.params_id or names is None:
            return blob
        return _encode(dict(zip(names, _decode(blob))))

    # ── dead letters ──

    def bury(
        self, handler: Handler, key: str, args: Args, result: Result, *, answered: bool = False
    ) -> None:
        """A message whose turn left no trace: nothing is lost without a word."""
        if isinstance(result, Refused):
            error, trace = f"rejected: {result.rejected}", ""
        else:
            assert isinstance(result, Broke), "a turn that is done has no dead letter"
            error, trace = result.error, result.traceback
        letter = DeadLetter(
            self.turn.now_ns,
            handler.entity,
            key,
            handler.name,
            handler.id,
            handler.params_id,
            _blob(args),
            error,
            trace,
            answered,
        )
        self.rows.append(
            (Table.DEAD, dead_key(handler.entity, key, self.new_id()), _encode(letter))
        )

    def bury_unknown(
        self, type_name: str, key: str, handler: int, params: int, args: bytes
    ) -> None:
        """A message to a handler that this release does not have."""
        error = (
            f"UnknownHandler: {type_name} has no handler with the id {handler:016x} in this release"
        )
        letter = DeadLetter(
            self.turn.now_ns, type_name, key, "", handler, params, args, error, "", False
        )
        self.rows.append((Table.DEAD, dead_key(type_name, key, self.new_id()), _encode(letter)))

    # ── clients ──

    def request(self, request: Request) -> tuple[Outcome, bool]:
        """Run a client's request; its outcome, and whether it must be remembered."""
        kind = self.types.get(request.type)
        handler = kind.handlers.get(request.handler) if kind else None
        if kind is None or handler is None or handler.private:
            what = "UnknownHandler" if kind else "UnknownEntity"
            text = f"This app has no {request.type}.{request.handler} for clients."
            return Outcome("invalid", _encode([what, text])), False
        if self.full and not handler.query:
            # Remembered like any outcome: a copy that comes when there is room again must not run.
            # What has a name is asked again under it, to run then.
            outcome = Outcome("invalid", _encode(["StoreFull", self.full]))
            return outcome, not request.named
        try:
            args: Args = handler.unpack(request.args)
        except InvalidMessage as error:
            return Outcome("invalid", _encode(["InvalidMessage", str(error)])), False
        result = self._turn(handler, request.key, args, wanted=request.reply)
        if not isinstance(result, Done):
            if isinstance(result, Broke) or not request.reply:
                self.bury(handler, request.key, args, result, answered=request.reply)
            if not request.reply:
                return Outcome("done"), True
        return outcome_of(result), not handler.query


FEW_OWNERS = 3
"""Up to so many, a pass in C for each owner is faster than one in Python for all."""


def _dealt(
    owners: list[ShardId], keys: list[str], rows: Sequence[Args]
) -> Iterable[tuple[int, list[str], list[Args]]]:
    """What belongs to each owner, in order."""
    present = set(owners)
    if len(present) > FEW_OWNERS:
        dealt: dict[int, tuple[list[str], list[Args]]] = {owner: ([], []) for owner in present}
        for owner, key, args in zip(owners, keys, rows):
            own_keys, own_rows = dealt[owner]
            own_keys.append(key)
            own_rows.append(args)
        return [(owner, *own) for owner, own in dealt.items()]
    found = []
    for owner in present:
        chosen = list(map(owner.__eq__, owners))
        found.append((owner, list(compress(keys, chosen)), list(compress(rows, chosen))))
    return found


def outcome_of(result: Result) -> Outcome:
    """What an asker is told."""
    match result:
        case Done(reply):
            return Outcome("done", b"\xc0" if reply is None else reply)
        case Refused(rejected):
            return Outcome("rejected", _encode_details(rejected))
        case Broke(error, trace):
            return Outcome("failed", _encode([error, trace]))


def _encode_details(rejected: Rejected) -> bytes:
    try:
        return _encode([rejected.reason, rejected.details])
    except (TypeError, ValueError, OverflowError):
        return _encode([rejected.reason, {k: repr(v) for k, v in rejected.details.items()}])


def error_of(kind: str, body: bytes) -> Rejected | Failed:
    """The exception that an outcome's bytes stand for."""
    first, second = _decode(body)
    return Rejected(first, **second) if kind == "rejected" else Failed(first, second)


def _blob(args: Args) -> bytes:
    return args if type(args) is bytes else _encode(args)


def _continuation(then: tuple[Handler, bytes] | None) -> Continuation | None:
    return None if then is None else (then[0].id, then[0].params_id, then[1])
