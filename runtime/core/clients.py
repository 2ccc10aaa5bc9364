"""Requests of clients: judged, run together where that is safe, remembered, answered.

    Requested -> all of it new, in order, for this shard?  one loop, one reply, one row per slot
              -> else request by request: answered before? its turn? -> run | hold | answer

Most requests are new, and most come in runs of one handler. A few set operations say of such
a run as a whole that none of it was seen before and that none has to wait. Any other run is
judged request by request; the rules are the same.

A reply waits until the commit is durable that it was in, or that it read.
No I/O, no clock. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import msgspec
import xxhash
from msgspec import Raw

from skerry.arguments import Args
from skerry.errors import InvalidMessage
from skerry.handler import Handler
from skerry.limits import MESSAGE_BYTES_MAX
from skerry.runtime.core.events import (
    Outcome,
    Reply,
    Request,
    Requested,
    RequestRun,
    Told,
)
from skerry.runtime.core.executor import Executor, Mode
from skerry.runtime.core.loops import Shape, Waits
from skerry.runtime.core.ownership import Ownership, slot_of, slots_of
from skerry.runtime.core.results import Broke, Done, Raised, outcome_of
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.names import Names
from skerry.runtime.core.tables.requests import Requests
from skerry.runtime.core.tables.sessions import Session

REQUEST = 1 << 32
"""The identity of a request begins with this: see `Identity`."""

IMMUTABLE = frozenset({int, float, str, bool, bytes, type(None)})
"""Types of replies that no later turn can change."""

NOTHING = Raw(b"\x90")
"""No bodies, as a reply of `busy` has none."""

_encode = msgspec.msgpack.Encoder().encode


class Clients:
    """The requests of a batch."""

    def __init__(
        self,
        ownership: Ownership,
        executor: Executor,
        requests: Requests,
        names: Names,
        dead: DeadLetters,
    ) -> None:
        self._ownership, self._executor = ownership, executor
        self._requests, self._names, self._dead = requests, names, dead
        self._types = {name: cached.type for name, cached in executor.cache.types.items()}
        self._columns: dict[int, Callable[[Raw], list[tuple[Any, ...]]]] = {}
        self.full = ""
        """Why no new request is accepted; empty: they are."""
        self.replies: list[Reply | Told] = []
        """Sent when the batch's commit is durable."""

    def run(self, event: Requested) -> None:
        """Run the requests of a message, or answer them, or hold them back. Raises Raised."""
        if event.named:
            for request in chain.from_iterable(map(event.each, event.runs)):
                self._name(request)
            return
        session = None
        for run in event.runs:
            if self._only_reads(run):
                for request in event.each(run):
                    self._read(request)
                if self._requests.knows(event.session):
                    self._settle(event.session, run.numbers)
                continue
            if session is None:
                if not self._requests.admits(event.session, event.caller):
                    self.replies.append(Reply(event.caller, "busy", run.numbers, NOTHING))
                    continue
                session = self._requests.session(event.session, caller=event.caller)
            if not self._together(event, session, run):
                for request in event.each(run):
                    self._one(session, request)

    def _only_reads(self, run: RequestRun) -> bool:
        """Whether these are queries that wait for nothing: they leave nothing behind, so nothing
        needs to be known of their session."""
        handler = self._offered(run.type, run.handler)
        return handler is not None and handler.query and not any(run.previous)

    def _read(self, request: Request) -> None:
        if self._ownership.serves(slot_of(request.type, request.key)):
            outcome, _ = self._run(request)
        else:
            outcome = self._moved()
        self._answer(request, outcome)

    def _settle(self, id: bytes, numbers: list[int]) -> None:
        """Let nothing wait for these queries: a client of another release may not know that they
        are queries."""
        session = self._requests.session(id)
        for number in numbers:
            self._requests.settle(session, number)
            for request in self._requests.following(session, number):
                self._one(session, request)

    def _moved(self) -> Outcome:
        return Outcome("moved", _encode(self._ownership.version))

    def undo(self) -> None:
        """Throw the open batch away."""
        self.replies.clear()

    # ── together ──

    def _together(self, event: Requested, session: Session, run: RequestRun) -> bool:
        """Run requests in one loop. False: they must be judged one by one. Raises Raised."""
        requests, handler = self._requests, self._offered(run.type, run.handler)
        if handler is None or self.full or not self._executor.optimistic(handler):
            return False
        slots = slots_of(run.type, run.keys)
        if not self._ownership.serves_all(slots):
            return False
        if not requests.fresh(session, run, slots, self._executor.turn.now_ns):
            return False
        column = self._column(handler, run.args)
        if column is None:
            return False
        shape = (Shape.NOTHING, Shape.VALUE, Shape.VALUES)[min(handler.arity, 2)]
        replies, bodies = self._replies(handler, run.keys, column, shape, wanted=run.reply)
        requests.ran(session, "done", run.numbers, slots, replies)
        self.replies.append(Reply(event.caller, "done", run.numbers, Raw(bodies)))
        if session.held:
            for number in run.numbers:
                for request in requests.following(session, number):
                    self._one(session, request)
        return True

    def _column(self, handler: Handler, args: Raw) -> Sequence[Any] | None:
        """Decode the arguments of requests as a column; None: not all are as this release binds
        them."""
        decode = self._columns.get(handler.id)
        if decode is None:
            types = tuple(param.annotation for param in handler.params)
            one = tuple[types] if types else tuple[()]  # type: ignore[valid-type]
            decode = msgspec.msgpack.Decoder(list[one]).decode  # type: ignore[valid-type]
            self._columns[handler.id] = decode
        try:
            rows = decode(args)
        except (msgspec.MsgspecError, RecursionError):
            return None
        return list(chain.from_iterable(rows)) if handler.arity == 1 else rows

    def _replies(
        self,
        handler: Handler,
        keys: list[str],
        column: Sequence[Any],
        shape: Shape,
        *,
        wanted: bool,
    ) -> tuple[list[Any], bytes]:
        """Run turns together; return their replies, and all of them encoded. Raises Raised.

        A reply that no later turn can change is encoded with the others, any other in its turn.
        """
        executor, replies = self._executor, list[Any]()
        in_turn = handler.returns not in IMMUTABLE
        if not wanted:
            executor.together(handler, keys, column, shape)
            replies = [None] * len(keys)
        elif in_turn:
            encode, add = handler.encode_reply, replies.append

            def tell(reply: Any) -> None:
                add(Raw(encode(reply)))

            executor.together(handler, keys, column, shape, waits=Waits.CALLER, tell=tell)
        else:
            add = replies.append
            executor.together(handler, keys, column, shape, waits=Waits.CALLER, tell=add)
            if not handler.replies_hold(replies):  # Run isolated, the one is found that does not.
                raise Raised(handler.entity)
        try:
            bodies = _encode(replies)
        except (ValueError, OverflowError) as error:  # Beyond 64 bits, or half a character.
            raise Raised(handler.entity) from error
        if len(bodies) > MESSAGE_BYTES_MAX and _one_is_too_large(replies):
            raise Raised(handler.entity)
        return replies, bodies

    # ── one by one ──

    def _name(self, request: Request) -> None:
        """Judge and answer a request that has an idempotency key."""
        slot = slot_of(request.type, request.key)
        if not self._ownership.serves(slot):
            self._answer(request, self._moved())
            return
        outcome = self._names.judge(request, slot, self._executor.turn.now_ns)
        if outcome is None:
            outcome, remembered = self._run(request)
            if remembered:
                self._names.ran(request, slot, outcome)
        self._answer(request, outcome)

    def _one(self, session: Session, first: Request) -> None:
        """Judge and answer a request, then those that have waited for it."""
        waiting = deque((first,))
        while waiting:
            request = waiting.popleft()
            slot = slot_of(request.type, request.key)
            if not self._ownership.serves(slot):
                self._answer(request, self._moved())
                continue
            outcome = self._requests.judge(session, request, slot, self._executor.turn.now_ns)
            if outcome is None:
                continue
            if outcome is False:
                if not self._requests.waiting.hold(session, request):
                    self._answer(request, Outcome("busy"))
                continue
            if outcome is True:
                outcome, remembered = self._run(request)
                if remembered:
                    kind, body = outcome.kind, Raw(outcome.body)
                    self._requests.ran(session, kind, (request.number,), (slot,), (body,))
                else:
                    self._requests.settle(session, request.number)
            assert isinstance(outcome, Outcome), "a verdict is an outcome, or whether it runs"
            self._answer(request, outcome)
            waiting += self._requests.following(session, request.number)

    def _offered(self, type_name: str, name: str) -> Handler | None:
        """The handler that clients may call by this name; None: there is none."""
        kind = self._types.get(type_name)
        handler = kind.handlers.get(name) if kind else None
        return None if handler is None or handler.private else handler

    def _run(self, request: Request) -> tuple[Outcome, bool]:
        """Run a request; return its outcome, and whether it must be remembered. Raises Raised."""
        if self._executor.mode is Mode.QUARANTINE:
            session = xxhash.xxh3_64_intdigest(request.session)
            self._executor.announce((REQUEST, session, request.number))
        handler = self._offered(request.type, request.handler)
        if handler is None:
            what = "UnknownHandler" if request.type in self._types else "UnknownEntity"
            text = f"This app has no {request.type}.{request.handler} for clients."
            return Outcome("invalid", _encode([what, text])), False
        if self.full and not handler.query:
            # Remembered like any outcome: a copy that comes when there is room again must not run.
            # A request with an idempotency key is asked again under it, to run then.
            outcome = Outcome("invalid", _encode(["StoreFull", self.full]))
            return outcome, not request.named
        try:
            args: Args = handler.unpack(bytes(request.args))
        except (InvalidMessage, RecursionError) as error:
            return Outcome("invalid", _encode(["InvalidMessage", str(error)])), False
        if self._executor.optimistic(handler):
            alone = [request.key], [args], Shape.VALUES
            (reply,), _ = self._replies(handler, *alone, wanted=request.reply)
            return Outcome("done", _encode(reply)), True
        result = self._executor.alone(handler, request.key, args, wanted=request.reply)
        if not isinstance(result, Done):
            if isinstance(result, Broke) or not request.reply:
                self._dead.failed(handler, request.key, args, result, answered=request.reply)
            if not request.reply:
                return Outcome("done"), True
        return outcome_of(result), not handler.query

    def _answer(self, request: Request, outcome: Outcome) -> None:
        bodies = Raw(b"\x91" + outcome.body)
        self.replies.append(Reply(request.caller, outcome.kind, [request.number], bodies))


def _one_is_too_large(replies: Sequence[Any]) -> bool:
    """Whether one reply is, and not only all of them together."""
    return any(len(_encode(reply)) > MESSAGE_BYTES_MAX for reply in replies)
