"""What clients ask: judged, run as one loop where that is safe, remembered, answered.

    Requested -> all of it new, in order, for us?  one loop, one reply, one row per slot
              -> else request by request: answered before? its turn? -> run | hold | answer

Most requests are new, and most come in runs of one handler. Such a run is looked at as a
whole: a few set operations say that none was seen before and that none has to wait. What
can't be said of the whole is looked at one by one; the rules are the same.

What is answered waits for the commit that it was in, or that it read. No I/O, no clock.
Idea: docs/clients.md.
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
    Identity,
    Outcome,
    Reply,
    Request,
    Requested,
    RequestRun,
    Told,
)
from skerry.runtime.core.executor import Executor
from skerry.runtime.core.loops import Shape, Waits
from skerry.runtime.core.ownership import Ownership, slot_of, slots_of
from skerry.runtime.core.results import Broke, Done, Raised, outcome_of
from skerry.runtime.core.tables.dead_letters import DeadLetters
from skerry.runtime.core.tables.names import Names
from skerry.runtime.core.tables.requests import Requests
from skerry.runtime.core.tables.sessions import Session

REQUEST = 1 << 32
"""What the identity of a request begins with, for the poison list."""

IMMUTABLE = frozenset({int, float, str, bool, bytes, type(None)})
"""Types of replies that no later turn can change."""

NOTHING = Raw(b"\x90")
"""No bodies: who is told that we are busy is told no more."""

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
        watch: Callable[[Identity], None],
    ) -> None:
        self._ownership, self._watch = ownership, watch
        self._executor, self._requests, self._names = executor, requests, names
        self._dead = dead
        self._types = {name: cached.type for name, cached in executor.cache.types.items()}
        self._columns: dict[int, Callable[[Raw], list[tuple[Any, ...]]]] = {}
        self.full = ""
        """Why nothing new is taken from clients; empty: it is."""
        self.replies: list[Reply | Told] = []
        """What is told when the batch's commit is durable."""

    def run(self, event: Requested, now_ns: int, *, slow: bool) -> None:
        """Run the requests of a message, or answer them, or keep them for later."""
        if event.named:
            for request in chain.from_iterable(map(event.each, event.runs)):
                self._name(request, now_ns, slow=slow)
            return
        session = None
        for run in event.runs:
            if self._looks(run):
                for request in event.each(run):
                    self._look(request, slow=slow)
                if self._requests.knows(event.session):
                    self._settle(event.session, run.numbers, now_ns, slow=slow)
                continue
            if session is None:
                if not self._requests.admits(event.session, event.caller):
                    self.replies.append(Reply(event.caller, "busy", run.numbers, NOTHING))
                    continue
                session = self._requests.session(event.session, caller=event.caller)
            if slow or not self._together(event, session, run, now_ns):
                for request in event.each(run):
                    self._one(session, request, now_ns, slow=slow)

    def _looks(self, run: RequestRun) -> bool:
        """Whether these are queries that wait for nothing: they leave nothing behind, so nothing
        needs to be known of their session."""
        handler = self._offered(run.type, run.handler)
        return handler is not None and handler.query and not any(run.previous)

    def _look(self, request: Request, *, slow: bool) -> None:
        if not self._ownership.serves(slot_of(request.type, request.key)):
            self._answer(request, self._moved())
            return
        if slow:
            self._watch_request(request)
        outcome, _ = self._run(request)
        self._answer(request, outcome)

    def _settle(self, id: bytes, numbers: list[int], now_ns: int, *, slow: bool) -> None:
        """Let nothing wait for these: a client of another release may not know that they are
        queries."""
        session = self._requests.session(id)
        for number in numbers:
            self._requests.settle(session, number)
            for request in self._requests.following(session, number):
                self._one(session, request, now_ns, slow=slow)

    def _moved(self) -> Outcome:
        return Outcome("moved", _encode(self._ownership.version))

    def _watch_request(self, request: Request) -> None:
        """It runs next."""
        self._watch((REQUEST, xxhash.xxh3_64_intdigest(request.session), request.number))

    def undo(self) -> None:
        """The batch is thrown away."""
        self.replies.clear()

    # ── all at once ──

    def _together(self, event: Requested, session: Session, run: RequestRun, now_ns: int) -> bool:
        """Run requests as one loop. False: something about them must be looked at one by one."""
        requests, handler = self._requests, self._offered(run.type, run.handler)
        if handler is None or self.full or not self._executor.optimistic(handler):
            return False
        slots = slots_of(run.type, run.keys)
        if not self._ownership.serves_all(slots):
            return False
        if not requests.fresh(session, run, slots, now_ns):
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
                    self._one(session, request, now_ns, slow=False)
        return True

    def _column(self, handler: Handler, args: Raw) -> Sequence[Any] | None:
        """The column of requests' arguments; None: not all of them are as this release binds them."""
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
        """Run turns together: their replies, ready to be encoded, and all of them encoded. Raises
        Raised. A reply that no later turn can change is encoded with the others."""
        replies: list[Any] = []
        if not wanted:
            self._executor.together(handler, keys, column, shape)
            replies = [None] * len(keys)
        elif handler.returns in IMMUTABLE:
            tell: Callable[[Any], None] = replies.append
            self._executor.together(handler, keys, column, shape, waits=Waits.CALLER, tell=tell)
            if not handler.replies_hold(replies):
                raise Raised(
                    handler.entity
                )  # Run isolated, the one is found that is not as promised.
        else:
            encode, add = handler.encode_reply, replies.append
            tell = lambda reply: add(Raw(encode(reply)))  # noqa: E731
            self._executor.together(handler, keys, column, shape, waits=Waits.CALLER, tell=tell)
        try:
            bodies = _encode(replies)
        except (ValueError, OverflowError) as error:  # Beyond 64 bits, or half a character.
            raise Raised(handler.entity) from error
        if len(bodies) > MESSAGE_BYTES_MAX and _one_is_too_large(replies):
            raise Raised(handler.entity)
        return replies, bodies

    # ── one by one ──

    def _name(self, request: Request, now_ns: int, *, slow: bool) -> None:
        """Judge a request that has an idempotency key."""
        slot = slot_of(request.type, request.key)
        if not self._ownership.serves(slot):
            self._answer(request, self._moved())
            return
        outcome = self._names.judge(request, slot, now_ns)
        if outcome is None:
            if slow:
                self._watch_request(request)
            outcome, remembered = self._run(request)
            if remembered:
                self._names.ran(request, slot, outcome)
        self._answer(request, outcome)

    def _one(self, session: Session, first: Request, now_ns: int, *, slow: bool) -> None:
        """Judge a request; then those that have waited for it."""
        waiting = deque((first,))
        while waiting:
            request = waiting.popleft()
            slot = slot_of(request.type, request.key)
            if not self._ownership.serves(slot):
                self._answer(request, self._moved())
                continue
            verdict = self._requests.judge(session, request, slot, now_ns)
            if verdict is None:
                continue
            if verdict is False:
                if not self._requests.hold(session, request):
                    self._answer(request, Outcome("busy"))
                continue
            outcome = verdict
            if outcome is True:
                if slow:
                    self._watch_request(request)
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
        """The handler that clients call so; None: there is none."""
        kind = self._types.get(type_name)
        handler = kind.handlers.get(name) if kind else None
        return None if handler is None or handler.private else handler

    def _run(self, request: Request) -> tuple[Outcome, bool]:
        """Run a request; its outcome, and whether it must be remembered."""
        handler = self._offered(request.type, request.handler)
        if handler is None:
            what = "UnknownHandler" if request.type in self._types else "UnknownEntity"
            text = f"This app has no {request.type}.{request.handler} for clients."
            return Outcome("invalid", _encode([what, text])), False
        if self.full and not handler.query:
            # Remembered like any outcome: a copy that comes when there is room again must not run.
            # What has a name is asked again under it, to run then.
            outcome = Outcome("invalid", _encode(["StoreFull", self.full]))
            return outcome, not request.named
        try:
            args: Args = handler.unpack(bytes(request.args))
        except (InvalidMessage, RecursionError) as error:
            return Outcome("invalid", _encode(["InvalidMessage", str(error)])), False
        if self._executor.optimistic(handler):
            one = [request.key], [args], Shape.VALUES
            (reply,), _ = self._replies(handler, *one, wanted=request.reply)
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
    """Whether one of many is, and not only all together."""
    return any(len(_encode(reply)) > MESSAGE_BYTES_MAX for reply in replies)
