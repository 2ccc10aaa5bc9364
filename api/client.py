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
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

import msgspec

from skerry.entity import Entity
from skerry.errors import Failed, Rejected, SkerryError, TimedOut, as_named
from skerry.host import Session, launch
from skerry.message import Handler, Message, check_key, message

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)

TIMEOUT_S = 30.0
"""How long an outcome is waited for: many times a worker's restart."""

IN_FLIGHT_MAX = 20_000
"""Requests of one `ask_many` on their way at once."""

CHUNK = 2000
"""Requests of one `ask_many` that are made in one go."""

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
            raise SkerryError(
                "This client is not open: use it as `async with AsyncClient() as c:`."
            )
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
        call = self._call([message(handler, *args, **kwargs)], reply=True)
        return cast(R, await self._outcome(call))

    @overload
    async def send(
        self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> None: ...

    @overload
    async def send(self, handler: Message[Any], /) -> None: ...

    async def send(self, handler: Any, /, *args: Any, **kwargs: Any) -> None:
        """Deliver a message exactly once; returns when its turn is durable.

        A refusal or failure is a dead letter, not an error here.

        Args:
            handler: of an entity named by its key; or a message, as `message(…)` makes it.
            *args, **kwargs: the handler's own arguments, checked before anything is sent.
        """
        one = handler if isinstance(handler, Message) else message(handler, *args, **kwargs)
        await self._outcome(self._call([one], reply=False))

    async def ask_many(self, messages: Iterable[Message[R]]) -> list[R | Rejected | Failed]:
        """Ask many at once: results in their order; messages to one entity run in order.

        A refusal or failure stands in the list as `Rejected` or `Failed`.

        Args:
            messages: as `message(Account.at("alice").deposit, 10)`.

        Raises:
            TimedOut: no outcome came for as long as the time-out.
        """
        listed = list(messages)
        if self._idempotency_key is not None:
            raise TypeError("an idempotency_key names one request; ask_many makes many: ask each")
        for one in listed:
            if not isinstance(one, Message):
                raise TypeError(
                    f"ask_many takes messages, as message(Account.at('a').deposit, 10), "
                    f"not {one!r:.80}"
                )
        call = self._call(listed, reply=True)
        return cast("list[R | Rejected | Failed]", await self._outcomes(call))

    def _call(self, messages: list[Message[Any]], *, reply: bool) -> _Call:
        for handler in {one.handler for one in messages}:
            if handler.private:
                raise TypeError(
                    f"{handler.entity}.{handler.name} is private: only the entity itself names it"
                )
        named = b""
        if self._idempotency_key is not None:
            one = messages[0]
            named = named_id(one.handler.entity, one.key, one.handler.name, self._idempotency_key)
        return _Call(self._session, messages, reply=reply, named=named)

    async def _outcome(self, call: _Call) -> Any:
        await self._finish(call, self._outcome)
        return value_of(call.messages[0], call.outcomes[0], self._timeout, reply=call.reply)

    async def _outcomes(self, call: _Call) -> list[Any]:
        await self._finish(call, self._outcomes)
        return [
            _result(one, outcome, self._timeout)
            for one, outcome in zip(call.messages, call.outcomes, strict=True)
        ]

    async def _finish(self, call: _Call, then: Callable[[_Call], Coroutine[Any, Any, Any]]) -> None:
        try:
            await call.finish(self._timeout)
        except TimeoutError:
            raise TimedOut(call.name, self._timeout, lambda: then(call)) from None

    async def get(self, entity: E, /) -> E:
        """The last committed state of an entity; defaults when there is none.

        Args:
            entity: as `Account.at("alice")`.
        """
        cls, key = named_entity(entity)
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


class _Call:
    """Requests that are waited for together: one completion, however many they are."""

    def __init__(
        self, session: Session, messages: list[Message[Any]], *, reply: bool, named: bytes
    ) -> None:
        self.messages, self.reply = messages, reply
        self.outcomes: list[Any] = [None] * len(messages)
        self._session, self._named = session, named
        self._blobs = [_blob(one) for one in messages]
        self._sent = 0
        self._places: dict[int, int] = {}
        """Of each request on its way, by its number: its place in the list."""
        self._wake_at = 0
        self._woken = asyncio.Event()

    @property
    def name(self) -> str:
        """What is waited for, in words."""
        if len(self.messages) == 1:
            one = self.messages[0]
            return f"{one.handler.entity}/{one.key} {one.handler.name}"
        open_requests = len(self.messages) - self._sent + len(self._places)
        return f"{open_requests} of the {len(self.messages)} requests of ask_many"

    async def finish(self, timeout: float) -> None:
        """Send what is not sent, and wait for all outcomes. Can be called again.

        Raises TimeoutError when none came for so long.
        """
        while self._sent < len(self.messages):
            self._send(self._sent + CHUNK)
            # What was asked leaves, and what has come is heard, before more is asked.
            await asyncio.sleep(0)
            if len(self._places) > IN_FLIGHT_MAX:
                await self._until(IN_FLIGHT_MAX // 2, timeout)
        await self._until(0, timeout)

    def _send(self, stop: int) -> None:
        request, places, done = self._session.request, self._places, self._done
        reply, named, start = self.reply, self._named, self._sent
        for one, blob in zip(self.messages[start:stop], self._blobs[start:stop], strict=True):
            handler = one.handler
            number = request(
                handler.entity,
                one.key,
                handler.name,
                blob,
                done,
                reply=reply,
                query=handler.query,
                named=named,
            )
            places[number] = self._sent
            self._sent += 1

    def _done(self, number: int, outcome: Any) -> None:
        self.outcomes[self._places.pop(number)] = outcome
        if len(self._places) <= self._wake_at:
            self._woken.set()

    async def _until(self, few: int, timeout: float) -> None:
        """Wait until no more than `few` are on their way."""
        while (count := len(self._places)) > few:
            # Woken now and then on the way: as long as outcomes come, time starts anew.
            self._wake_at = max(few, count - CHUNK)
            self._woken.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._woken.wait()
            except TimeoutError:
                if len(self._places) == count:
                    raise


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
        running = asyncio.run_coroutine_threadsafe(what, self._loop)
        try:
            return running.result()
        except TimedOut as error:
            raise error.waited_by(self._run) from None
        finally:
            running.cancel()  # When Ctrl-C ended the waiting.

    def options(self, *, timeout: float | None = None, idempotency_key: str | None = None) -> Self:
        """The same client with other options, see `AsyncClient.options`."""
        other = object.__new__(type(self))
        other._client = self._client.options(timeout=timeout, idempotency_key=idempotency_key)
        other._loop, other._thread = self._loop, self._thread
        return other

    def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Deliver a message exactly once, and wait for its reply. See `AsyncClient.ask`."""
        return self._run(self._client.ask(handler, *args, **kwargs))

    @overload
    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None: ...

    @overload
    def send(self, handler: Message[Any], /) -> None: ...

    def send(self, handler: Any, /, *args: Any, **kwargs: Any) -> None:
        """Deliver a message exactly once. See `AsyncClient.send`."""
        self._run(self._client.send(handler, *args, **kwargs))

    def ask_many(self, messages: Iterable[Message[R]]) -> list[R | Rejected | Failed]:
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


def named_id(entity: str, key: str, handler: str, idempotency_key: str) -> bytes:
    """16 bytes that name a request, the same for every client that uses this key."""
    text = f"{entity}\0{key}\0{handler}\0{idempotency_key}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _positive(timeout: float) -> float:
    if not timeout > 0:
        raise ValueError(f"a timeout is more than 0 s, not {timeout!r}")
    return timeout


def _blob(one: Message[Any]) -> bytes:
    """A message's arguments as bytes. Raises TypeError: a value that msgpack can't carry."""
    if isinstance(one.args, bytes):
        return one.args
    try:
        return _encode(one.args)
    except (OverflowError, UnicodeEncodeError) as error:
        raise TypeError(f"{one.handler.entity}.{one.handler.name}: {error}") from error


def named_entity(entity: Any) -> tuple[type[Entity], str]:
    """The class and key of `Account.at("alice")`."""
    owner = getattr(type(entity), "__skerry_owner__", None)
    if owner is None:
        raise TypeError(
            f"get takes an entity by its key, as Account.at('alice'), not {entity!r:.80}"
        )
    check_key(entity.key)
    return owner, entity.key


def value_of(one: Message[Any], outcome: Any, timeout: float, *, reply: bool) -> Any:
    """A reply, or the exception that an outcome stands for."""
    handler = one.handler
    match outcome.kind:
        case "done":
            return _reply(handler, outcome.body) if reply else None
        case "rejected":
            reason, details = msgspec.msgpack.decode(outcome.body)
            raise Rejected(reason, **details)
        case "failed":
            raise Failed(*msgspec.msgpack.decode(outcome.body))
        case "late":
            raise TimedOut(f"{handler.entity}/{one.key} {handler.name}", timeout)
        case "invalid":
            raise as_named(*msgspec.msgpack.decode(outcome.body))
        case kind:
            raise SkerryError(
                f"An outcome of an unknown kind, {kind!r}: are both ends one release?"
            )


def _reply(handler: Handler, body: bytes) -> Any:
    try:
        return handler.reply(body)
    except msgspec.MsgspecError as error:
        raise SkerryError(
            f"The reply of {handler.entity}.{handler.name} does not fit its annotation: {error}. "
            f"It has run; is this client of another release than the app?"
        ) from error


def _result(one: Message[Any], outcome: Any, timeout: float) -> Any:
    try:
        return value_of(one, outcome, timeout, reply=True)
    except (Rejected, Failed) as error:
        return error
