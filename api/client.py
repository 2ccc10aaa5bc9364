"""The verbs of a caller outside: ask, send, get, scan.

`AsyncClient` is the one implementation. `Client` is the same for programs that do not use
asyncio: it runs an `AsyncClient` on a thread of its own and waits.

A request takes effect exactly once even when the client sends it again over a lost
connection or to a worker that was started anew. Idea: docs/clients.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import queue
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

import msgspec

from skerry.arguments import Args
from skerry.entity import Entity
from skerry.errors import Failed, Rejected, SkerryError, TimedOut, Unavailable, as_named
from skerry.handler import Handler
from skerry.host import Session, launch
from skerry.limits import check_key
from skerry.message import Message, one_message, target

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)

TIMEOUT_S = 30.0
"""How long an outcome is waited for: many times a worker's restart."""

OPEN_MAX = 20_000
"""Requests of one `ask_many` that are made and have no outcome yet: enough for the doors to be
never out of work, few enough to be forgotten soon."""

CHUNK = 2000
"""Requests of one `ask_many` that are made in one go."""

_encode = msgspec.msgpack.Encoder().encode
_NIL = _encode(None)


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
        self._opened: list[tuple[Session, int]] = []
        """The session, and the process that opened it."""

    async def __aenter__(self) -> Self:
        self._let_go_of_parents()
        self._opened.append((await launch().connect(self._data), os.getpid()))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._let_go_of_parents()
        while self._opened:
            await self._opened.pop()[0].close()

    def _let_go_of_parents(self) -> None:
        """In a forked child: forget the session, and leave it open, since it is the parent's."""
        self._opened[:] = [(session, by) for session, by in self._opened if by == os.getpid()]

    @property
    def _session(self) -> Session:
        if not self._opened:
            raise SkerryError(
                "This client is not open: use it as `async with AsyncClient() as c:`."
            )
        session, by = self._opened[0]
        if by != os.getpid():
            raise SkerryError(_forked(by))
        if session.loop is not asyncio.get_running_loop():
            raise SkerryError(
                "This client was opened in another event loop, and can be used in that one only: "
                "each asyncio.run() makes one of its own. Open a client in each, as "
                "`async with AsyncClient() as c:`."
            )
        return session

    def options(self, *, timeout: float | None = None, idempotency_key: str | None = None) -> Self:
        """The same client with other options; what is not given stays.

        Args:
            timeout: seconds to wait for an outcome.
            idempotency_key: names one request: asked again under this key, also by another
                client, within 24 hours, it gets its first outcome and does not run again.

        Raises:
            ValueError: a timeout of no time, or an empty key, as of a variable that is not set.
        """
        if idempotency_key == "":
            raise ValueError("an idempotency_key names one request; '' names none")
        other = type(self)(self._data)
        other._opened = self._opened
        other._timeout = self._timeout if timeout is None else _positive(timeout)
        other._idempotency_key = idempotency_key or self._idempotency_key
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
            Unavailable: the app could not be reached, or is too busy to have taken it in time:
                nothing happened.

        Source: docs/clients.md; Helland 2007, section 4 (idempotence).
        """
        found, key = target(handler)
        return cast(R, await self._one(found, key, found.bind(args, kwargs), reply=True))

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
        one = one_message(handler, args, kwargs)
        await self._one(one.handler, one.key, one.args, reply=False)

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
        for handler in {one.handler for one in listed}:
            _refuse_private(handler)
            self._session.check(handler.entity, handler.name)
        return await self._all(_Many(self._session, listed, self._timeout))

    async def _one(self, handler: Handler, key: str, args: Args, *, reply: bool) -> Any:
        """Ask for one: a future and nothing else of asyncio's, since this is called most."""
        came: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(handler, key, args, _came, came, reply=reply)
        return self._told(handler, key, call, await came, reply=reply)

    def _begin(
        self,
        handler: Handler,
        key: str,
        args: Args,
        done: Callable[[Any, Any], None],
        of: Any,
        *,
        reply: bool,
    ) -> Any:
        """Ask for one; `done` gets `of` and the outcome. On the loop's thread."""
        _refuse_private(handler)
        named = b""
        if self._idempotency_key is not None:
            named = named_id(handler.entity, key, handler.name, self._idempotency_key)
        return self._session.request(
            handler.entity,
            key,
            handler.name,
            _blob(handler, args),
            done,
            of=of,
            reply=reply,
            query=handler.query,
            named=named,
            until_s=asyncio.get_running_loop().time() + self._timeout,
        )

    async def _again(self, handler: Handler, key: str, call: Any, *, reply: bool) -> Any:
        """Wait on for what had no outcome in time."""
        outcome = call.outcome
        if outcome is None:
            loop = asyncio.get_running_loop()
            came: asyncio.Future[Any] = loop.create_future()
            self._session.listen(call, _came, came, loop.time() + self._timeout)
            outcome = await came
        return self._told(handler, key, call, outcome, reply=reply)

    def _told(self, handler: Handler, key: str, call: Any, outcome: Any, *, reply: bool) -> Any:
        """A reply, or the exception that an outcome stands for."""
        if outcome.kind == "waited":
            again = partial(self._again, handler, key, call, reply=reply)
            raise TimedOut(_name(handler, key), self._timeout, again)
        return value_of(handler, key, outcome, self._timeout, reply=reply)

    async def _all(self, many: _Many) -> list[Any]:
        try:
            await many.finish()
        except TimeoutError:
            raise TimedOut(many.name, self._timeout, lambda: self._all(many)) from None
        return many.results()

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
        kind = getattr(cls, "__skerry__", None)
        if kind is None or not isinstance(cls, type):
            raise TypeError(f"scan takes an entity class, as Account, not {cls!r:.80}")
        for shard in self._session.shards:
            after = ""
            while True:
                rows, schemas = await self._session.scan(kind.name, prefix, shard, after)
                for key, state in rows:
                    yield key, cast(E, kind.decode(state, key, schemas.get))
                if not rows:
                    break
                after = rows[-1][0]


def _came(future: asyncio.Future[Any], outcome: Any) -> None:
    """What was waited for; unless who waited is gone."""
    if not future.done():
        future.set_result(outcome)


class _Many:
    """Requests that are waited for together: one completion, however many they are."""

    def __init__(self, session: Session, messages: list[Message[Any]], timeout: float) -> None:
        self._session, self._messages, self._timeout = session, messages, timeout
        self._outcomes: list[Any] = [None] * len(messages)
        self._blobs = [_blob(one.handler, one.args) for one in messages]
        self._sent = self._open = self._wake_at = 0
        self._woken: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """What is waited for, in words."""
        left = len(self._messages) - self._sent + self._open
        return f"{left} of the {len(self._messages)} requests of ask_many"

    async def finish(self) -> None:
        """Send what is not sent, and wait for all outcomes. Can be called again.

        Raises TimeoutError when none came for as long as the time-out.
        """
        while self._sent < len(self._messages):
            self._send(self._sent + CHUNK)
            # What was asked leaves, and what has come is heard, before more is asked.
            await asyncio.sleep(0)
            if self._open > OPEN_MAX:
                await self._until(OPEN_MAX // 2)
        await self._until(0)

    def _send(self, stop: int) -> None:
        request, done, start = self._session.request, self._done, self._sent
        for one, blob in zip(self._messages[start:stop], self._blobs[start:stop], strict=True):
            handler = one.handler
            request(
                handler.entity,
                one.key,
                handler.name,
                blob,
                done,
                of=self._sent,
                query=handler.query,
            )
            self._sent += 1
            self._open += 1

    def _done(self, place: int, outcome: Any) -> None:
        self._outcomes[place] = outcome
        self._open -= 1
        if self._open <= self._wake_at and self._woken is not None:
            _came(self._woken, None)

    async def _until(self, few: int) -> None:
        """Wait until no more than `few` are open."""
        loop = asyncio.get_running_loop()
        while (count := self._open) > few:
            # Woken now and then on the way: as long as outcomes come, time starts anew.
            self._wake_at = max(few, count - CHUNK)
            self._woken = loop.create_future()
            timer = loop.call_later(self._timeout, _came, self._woken, None)
            try:
                await self._woken
            finally:
                timer.cancel()
            if self._open == count:
                raise TimeoutError

    def results(self) -> list[Any]:
        """All of them, in order."""
        both = zip(self._messages, self._outcomes, strict=True)
        return [_result(one, outcome, self._timeout) for one, outcome in both]


class _Wait(queue.SimpleQueue[Any]):
    """One thread waits here for the outcome of its call, which comes on another."""

    call: Any = None


class Client:
    """A caller of a running app, blocking. See `AsyncClient`.

    Example:
        >>> with Client() as client:
        ...     client.ask(Account.at("alice").deposit, 10)
        10
    """

    def __init__(self, data: str | Path | None = None) -> None:
        self._client = AsyncClient(data)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opened_by = 0
        """The process that opened it."""

    def __enter__(self) -> Self:
        self._loop, self._opened_by = asyncio.new_event_loop(), os.getpid()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        if self._opened_by != os.getpid():
            return  # It is the parent's to close.
        try:
            self._run(self._client.__aexit__())
        finally:
            self._end()

    def _end(self) -> None:
        loop = self._running_loop()
        loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()
        loop.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            raise SkerryError("This client is not open: use it as `with Client() as client:`.")
        if self._opened_by != os.getpid():
            raise SkerryError(_forked(self._opened_by))
        return self._loop

    def _run(self, what: Coroutine[Any, Any, R]) -> R:
        try:
            loop = self._running_loop()
        except SkerryError:
            what.close()
            raise
        running = asyncio.run_coroutine_threadsafe(what, loop)
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
        other._opened_by = self._opened_by
        return other

    def _one(self, handler: Handler, key: str, args: Args, *, reply: bool) -> Any:
        """Ask for one without a task or a future: each is a hop more between two threads."""
        loop = self._running_loop()
        wait = _Wait()

        def begin() -> None:
            try:
                wait.call = self._client._begin(handler, key, args, _Wait.put, wait, reply=reply)
            except Exception as error:  # Raised where it was asked.
                wait.put(error)

        loop.call_soon_threadsafe(begin)
        outcome = wait.get()
        if isinstance(outcome, Exception):
            raise outcome
        try:
            return self._client._told(handler, key, wait.call, outcome, reply=reply)
        except TimedOut as error:
            raise error.waited_by(self._run) from None

    def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Deliver a message exactly once, and wait for its reply. See `AsyncClient.ask`."""
        found, key = target(handler)
        return cast(R, self._one(found, key, found.bind(args, kwargs), reply=True))

    @overload
    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None: ...

    @overload
    def send(self, handler: Message[Any], /) -> None: ...

    def send(self, handler: Any, /, *args: Any, **kwargs: Any) -> None:
        """Deliver a message exactly once. See `AsyncClient.send`."""
        one = one_message(handler, args, kwargs)
        self._one(one.handler, one.key, one.args, reply=False)

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


def _forked(opened_by: int) -> str:
    return (
        f"This client was opened by process {opened_by}, and this is a child that was forked off: "
        f"process {os.getpid()}. Open a client in the child."
    )


def named_id(entity: str, key: str, handler: str, idempotency_key: str) -> bytes:
    """16 bytes that name a request, the same for every client that uses this key."""
    text = f"{entity}\0{key}\0{handler}\0{idempotency_key}"
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def _positive(timeout: float) -> float:
    if not timeout > 0:
        raise ValueError(f"a timeout is more than 0 s, not {timeout!r}")
    return timeout


def _refuse_private(handler: Handler) -> None:
    if handler.private:
        raise TypeError(
            f"{handler.entity}.{handler.name} is private: only the entity itself names it"
        )


def _blob(handler: Handler, args: Args) -> bytes:
    """Arguments as bytes. Raises TypeError: a value that msgpack can't carry."""
    if isinstance(args, bytes):
        return args
    try:
        return _encode(args)
    except (OverflowError, UnicodeEncodeError) as error:
        raise TypeError(f"{handler.entity}.{handler.name}: {error}") from error


def named_entity(entity: Any) -> tuple[type[Entity], str]:
    """The class and key of `Account.at("alice")`."""
    owner = getattr(type(entity), "__skerry_owner__", None)
    if owner is None:
        raise TypeError(
            f"get takes an entity by its key, as Account.at('alice'), not {entity!r:.80}"
        )
    check_key(entity.key)
    return owner, entity.key


def value_of(handler: Handler, key: str, outcome: Any, timeout: float, *, reply: bool) -> Any:
    """A reply, or the exception that an outcome stands for."""
    match outcome.kind:
        case "done":
            return _reply(handler, outcome.body) if reply else None
        case "rejected":
            reason, details = msgspec.msgpack.decode(outcome.body)
            raise Rejected(reason, **details)
        case "failed":
            raise Failed(*msgspec.msgpack.decode(outcome.body))
        case "late":
            raise TimedOut(_name(handler, key), timeout)
        case "unsaid":
            raise Unavailable(
                f"{_name(handler, key)} was not sent within {timeout:g} s: the app is away, or has "
                f"so much to do that it takes no more. Nothing happened; ask again later."
            )
        case "invalid":
            raise as_named(*msgspec.msgpack.decode(outcome.body))
        case kind:
            raise SkerryError(
                f"An outcome of an unknown kind, {kind!r}: are both ends one release?"
            )


def _name(handler: Handler, key: str) -> str:
    return f"{handler.entity}/{key} {handler.name}"


def _reply(handler: Handler, body: bytes) -> Any:
    try:
        return handler.reply(body)
    except msgspec.MsgspecError as error:
        if body == _NIL:
            raise SkerryError(
                f"{handler.entity}.{handler.name} has run, and there is no reply: it returned None "
                f"against its annotation, or a `send` under this idempotency key came first, and "
                f"keeps none. Look at the entity with `get`."
            ) from None
        raise SkerryError(
            f"The reply of {handler.entity}.{handler.name} does not fit its annotation: {error}. "
            f"It has run; is this client of another release than the app?"
        ) from error


def _result(one: Message[Any], outcome: Any, timeout: float) -> Any:
    try:
        return value_of(one.handler, one.key, outcome, timeout, reply=True)
    except (Rejected, Failed) as error:
        return error
