"""The verbs of a caller outside: ask, send, get, scan.

`AsyncClient` is the one implementation. `Client` is the same for programs that do not use
asyncio: it runs an `AsyncClient` on a thread of its own and waits.

A request takes effect exactly once even when the client sends it again over a lost
connection or to a worker that was started anew. Idea: docs/clients.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast

import msgspec

from skerry.entity import Entity
from skerry.errors import (
    Failed,
    InvalidMessage,
    Rejected,
    SkerryError,
    TimedOut,
    UnknownHandler,
)
from skerry.host import Session, launch
from skerry.message import Args, Handler, Message, check_key, target

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)

TIMEOUT_S = 30.0
IN_FLIGHT_MAX = 20_000
"""Requests of one `ask_many` on their way at once."""

_encode = msgspec.msgpack.Encoder().encode


class AsyncClient:
    """A caller of a running app, for asyncio.

    Args:
        data: the app's data directory; default: the one app in ./.skerry.

    Example:
        >>> async with AsyncClient() as client:
        ...     await client.ask(Account.at("alice").deposit, 10)
        10
    """

    def __init__(self, data: str | Path | None = None) -> None:
        self._data = data
        self._timeout = TIMEOUT_S
        self._idempotency_key: str | None = None
        self._opened: list[Session] = []

    async def __aenter__(self) -> Self:
        self._opened.append(await launch().connect(self._data))
        return self

    async def __aexit__(self, *error: object) -> None:
        while self._opened:
            await self._opened.pop().close()

    @property
    def _session(self) -> Session:
        if not self._opened:
            raise SkerryError("This client is not open: use it as `async with AsyncClient() as c:`.")
        return self._opened[0]

    def options(self, *, timeout: float | None = None, idempotency_key: str | None = None) -> Self:
        """The same client with other options.

        Args:
            timeout: seconds to wait for an outcome.
            idempotency_key: names one request: asked again under this key, also by another
                client, within 24 hours, it gets its first outcome and does not run again.
        """
        other = type(self)(self._data)
        other._opened = self._opened
        other._timeout = self._timeout if timeout is None else _positive(timeout)
        other._idempotency_key = idempotency_key
        return other

    async def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Deliver a message exactly once, and wait for its reply.

        The reply comes when the turn is durable: a crash cannot undo it.

        Args:
            handler: of an entity named by its key, as `Account.at("alice").deposit`.
            *args, **kwargs: the handler's own arguments, checked before anything is sent.

        Raises:
            Rejected: the entity refused; nothing changed.
            Failed: the handler raised on every retry; the message is a dead letter.
            TimedOut: no outcome in time; it is unknown.
            Unavailable: the app could not be reached.

        Source: docs/clients.md; Helland 2007, section 4 (idempotence).
        """
        found, key = target(handler)
        return cast(R, await self._request(found, key, found.bind(args, kwargs), reply=True))

    async def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Deliver a message exactly once; returns when its turn is durable.

        A refusal or failure is a dead letter, not an error here.
        """
        found, key = target(handler)
        await self._request(found, key, found.bind(args, kwargs), reply=False)

    async def _request(self, handler: Handler, key: str, args: Args, *, reply: bool) -> Any:
        _check_public(handler)
        loop = asyncio.get_running_loop()
        came: asyncio.Future[Any] = loop.create_future()

        def done(outcome: Any) -> None:
            if not came.done():
                came.set_result(outcome)

        session = self._session
        named = b""
        if self._idempotency_key is not None:
            named = named_id(handler.entity, key, self._idempotency_key)
        number = session.request(
            handler.entity,
            key,
            handler.name,
            _blob(args),
            done,
            reply=reply,
            query=handler.query,
            named=named,
        )
        try:
            outcome = await asyncio.wait_for(came, self._timeout)
        except TimeoutError:
            raise TimedOut(f"{handler.entity}/{key} {handler.name}", self._timeout) from None
        finally:
            session.abandon(number)
        return _value(handler, key, outcome, self._timeout, reply=reply)

    async def ask_many(self, messages: Sequence[Message[R]]) -> list[R | Rejected | Failed]:
        """Ask many at once: results in their order; messages to one entity run in order.

        A refusal or failure stands in the list as `Rejected` or `Failed`.

        Args:
            messages: as `message(Account.at("alice").deposit, 10)`.

        Raises:
            TimedOut: some outcome did not come in time.
        """
        for one in messages:
            if not isinstance(one, Message):
                raise TypeError(
                    f"ask_many takes messages, as message(Account.at('a').deposit, 10), not {one!r:.80}"
                )
            _check_public(one.handler)
        results: list[Any] = [None] * len(messages)
        gate = _Gate(asyncio.get_running_loop())
        for place, one in enumerate(messages):
            if gate.open_requests >= IN_FLIGHT_MAX:
                await self._wait(gate, IN_FLIGHT_MAX // 2)
            gate.open_requests += 1
            self._session.request(
                one.handler.entity,
                one.key,
                one.handler.name,
                _blob(one.args),
                gate.into(results, place),
                query=one.handler.query,
            )
        await self._wait(gate, 0)
        return [
            _result(one, outcome, self._timeout) for one, outcome in zip(messages, results)
        ]

    async def _wait(self, gate: _Gate, until: int) -> None:
        """Until so many are open; progress puts the time-out off."""
        while gate.open_requests > until:
            before = gate.open_requests
            gate.wake_at = max(until, before - 1000)
            gate.moved.clear()
            try:
                await asyncio.wait_for(gate.moved.wait(), self._timeout)
            except TimeoutError:
                if gate.open_requests == before:
                    raise TimedOut(f"{before} requests of ask_many", self._timeout) from None

    async def get(self, entity: E, /) -> E:
        """The last committed state of an entity; defaults when there is none.

        Args:
            entity: as `Account.at("alice")`.
        """
        cls, key = _named(entity)
        kind = cls.__skerry__
        state, schema = await self._session.get(kind.name, key)
        if state is None:
            return cast(E, kind.new(key))
        return cast(E, kind.decode(state, key, lambda id: schema))

    async def scan(self, cls: type[E], /, prefix: str = "") -> AsyncIterator[tuple[str, E]]:
        """Every (key, state) of a type whose key begins with `prefix`, in no particular order."""
        kind = cls.__skerry__
        for shard in self._session.shards:
            after = ""
            while True:
                rows, schemas = await self._session.scan(kind.name, prefix, shard, after)
                for key, state in rows:
                    yield key, cast(E, kind.decode(state, key, schemas.get))
                if not rows:
                    break
                after = rows[-1][0]


class _Gate:
    """One completion for many requests."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.open_requests = 0
        self.wake_at = 0
        self.moved = asyncio.Event()

    def into(self, results: list[Any], place: int) -> Callable[[Any], None]:
        def done(outcome: Any) -> None:
            results[place] = outcome
            self.open_requests -= 1
            if self.open_requests <= self.wake_at:
                self.moved.set()

        return done


class Client:
    """A caller of a running app, blocking. See `AsyncClient`.

    Example:
        >>> with Client() as client:
        ...     client.ask(Account.at("alice").deposit, 10)
        10
    """

    def __init__(self, data: str | Path | None = None) -> None:
        self._client = AsyncClient(data)
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._run(self._client.__aexit__())
        finally:
            self._end()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join()
        self._loop.close()

    def _run(self, what: Coroutine[Any, Any, R]) -> R:
        if self._thread is None:
            what.close()
            raise SkerryError("This client is not open: use it as `with Client() as client:`.")
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def options(self, *, timeout: float | None = None, idempotency_key: str | None = None) -> Self:
        """The same client with other options, see `AsyncClient.options`."""
        other = object.__new__(type(self))
        other._client = self._client.options(timeout=timeout, idempotency_key=idempotency_key)
        other._loop, other._thread = self._loop, self._thread
        return other

    def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Deliver a message exactly once, and wait for its reply. See `AsyncClient.ask`."""
        return self._run(self._client.ask(handler, *args, **kwargs))

    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Deliver a message exactly once. See `AsyncClient.send`."""
        self._run(self._client.send(handler, *args, **kwargs))

    def ask_many(self, messages: Sequence[Message[R]]) -> list[R | Rejected | Failed]:
        """Ask many at once. See `AsyncClient.ask_many`."""
        return self._run(self._client.ask_many(messages))

    def get(self, entity: E, /) -> E:
        """The last committed state of an entity. See `AsyncClient.get`."""
        return self._run(self._client.get(entity))

    def scan(self, cls: type[E], /, prefix: str = "") -> Iterator[tuple[str, E]]:
        """Every (key, state) of a type. See `AsyncClient.scan`."""
        rows = self._client.scan(cls, prefix)
        while True:
            try:
                yield self._run(cast("Coroutine[Any, Any, tuple[str, E]]", anext(rows)))
            except StopAsyncIteration:
                return


def named_id(entity: str, key: str, idempotency_key: str) -> bytes:
    """16 bytes that name a request, the same for every client that uses this key."""
    text = f"{entity}\0{key}\0{idempotency_key}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _positive(timeout: float) -> float:
    if not timeout > 0:
        raise ValueError(f"a timeout is more than 0 s, not {timeout!r}")
    return timeout


def _check_public(handler: Handler) -> None:
    if handler.private:
        raise TypeError(f"{handler.entity}.{handler.name} is private: only the entity itself names it")


def _blob(args: Args) -> bytes:
    return args if isinstance(args, bytes) else _encode(args)


def _named(entity: Any) -> tuple[type[Entity], str]:
    """The class and key of `Account.at("alice")`."""
    owner = getattr(type(entity), "__skerry_owner__", None)
    if owner is None:
        raise TypeError(f"get takes an entity by its key, as Account.at('alice'), not {entity!r:.80}")
    check_key(entity.key)
    return owner, entity.key


def _value(handler: Handler, key: str, outcome: Any, timeout: float, *, reply: bool) -> Any:
    """A reply, or the exception that an outcome stands for."""
    match outcome.kind:
        case "done":
            return handler.reply(outcome.body) if reply else None
        case "rejected":
            reason, details = msgspec.msgpack.decode(outcome.body)
            raise Rejected(reason, **details)
        case "failed":
            raise Failed(*msgspec.msgpack.decode(outcome.body))
        case "late":
            raise TimedOut(f"{handler.entity}/{key} {handler.name}", timeout)
        case "invalid":
            name, text = msgspec.msgpack.decode(outcome.body)
            if name == "UnknownHandler":
                raise UnknownHandler(handler.entity, handler.name, ())
            raise InvalidMessage(text)
        case kind:
            raise SkerryError(f"an outcome of an unknown kind, {kind!r}: are both ends one release?")


def _result(one: Message[Any], outcome: Any, timeout: float) -> Any:
    try:
        return _value(one.handler, one.key, outcome, timeout, reply=True)
    except (Rejected, Failed) as error:
        return error
