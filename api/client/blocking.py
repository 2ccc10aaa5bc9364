"""Client: an `AsyncClient` on a thread of its own, for programs that do not use asyncio."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from skerry.arguments import Args
from skerry.client.aio import AsyncClient, forked
from skerry.entity import Entity
from skerry.errors import Failed, Rejected, SkerryError, TimedOut
from skerry.handler import Handler
from skerry.message import Message, one_message, target

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)


class _Wait(queue.SimpleQueue[Any]):
    """The place where a thread waits for its call's outcome, which comes on another thread."""

    call: Any = None


class Client:
    """A client of a running app for programs without asyncio: its verbs block.

    Any number of threads may share a client. It runs an `AsyncClient` on a thread of its own.

    Args:
        data: the path of the app's data directory. Default: that of the one app in ./.skerry.
        cluster: instead of `data`: the URLs of NATS servers of a cluster, with commas between.
        app: the app's name in that cluster.

    Raises:
        ValueError: `cluster` and `app` are not given together, or `data` is as well.
        Unavailable: on entry, no app runs there.

    Example:
        >>> with Client() as client:
        ...     client.ask(Account.at("alice").deposit, 10)
        10
    """

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        cluster: str | None = None,
        app: str | None = None,
    ) -> None:
        self._client = AsyncClient(data, cluster=cluster, app=app)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._opened_by = 0
        """The id of the process that opened the client."""

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
            raise SkerryError(forked(self._opened_by))
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
        """Return a client on the same connection with other options; what is not given stays.

        Args:
            timeout: how long to wait for an outcome, in seconds.
            idempotency_key: identifies one request. Made again within 24 hours under the same
                key, also by another client, it gets its first outcome and does not run again.

        Raises:
            ValueError: the timeout is not above 0, or the key is empty.

        Example:
            >>> once = client.options(timeout=5, idempotency_key="order-17")
            >>> once.ask(Account.at("alice").deposit, 10)
        """
        other = object.__new__(type(self))
        other._client = self._client.options(timeout=timeout, idempotency_key=idempotency_key)
        other._loop, other._thread = self._loop, self._thread
        other._opened_by = self._opened_by
        return other

    def _one(self, handler: Handler, key: str, args: Args, *, reply: bool) -> Any:
        """Ask for one without a task or a future: each would be one more hop between threads."""
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
        """Deliver a message exactly once, and wait for its reply.

        The reply comes when the turn is durable: a crash cannot undo it.

        Args:
            handler: a handler of an entity named by its key, such as `Account.at("alice").deposit`.
            *args, **kwargs: the handler's own arguments, checked before anything is sent.

        Returns:
            What the handler returned.

        Raises:
            Rejected: the entity refused; nothing changed.
            Failed: the handler raised on every retry; the message is a dead letter.
            TimedOut: no outcome came in time, and whether the handler ran is unknown.
            Unavailable: the app could not be reached or was too busy, and nothing happened.
            TypeError: wrong arguments, or no public handler.

        Example:
            >>> client.ask(Account.at("alice").deposit, 10)
            10
        """
        found, key = target(handler)
        return cast(R, self._one(found, key, found.bind(args, kwargs), reply=True))

    @overload
    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None: ...

    @overload
    def send(self, handler: Message[Any], /) -> None: ...

    def send(self, handler: Any, /, *args: Any, **kwargs: Any) -> None:
        """Deliver a message exactly once, and return when its turn is durable.

        A refusal or failure becomes a dead letter, and raises nothing here.

        Args:
            handler: a handler of an entity named by its key; or a message, as `message(…)`
                makes it.
            *args, **kwargs: the handler's own arguments, checked before anything is sent.

        Raises:
            TimedOut: no outcome came in time, and whether the handler ran is unknown.
            Unavailable: the app could not be reached or was too busy, and nothing happened.
            TypeError: wrong arguments, or no public handler.

        Example:
            >>> client.send(Account.at("bob").deposit, 1)
        """
        one = one_message(handler, args, kwargs)
        self._one(one.handler, one.key, one.args, reply=False)

    def ask_many(self, messages: Iterable[Message[R]]) -> list[R | Rejected | Failed]:
        """Ask many at once, pipelined; messages to one entity run in their order.

        Args:
            messages: messages as `message(Account.at("alice").deposit, 10)` makes them.

        Returns:
            The replies, in the order of the messages, with `Rejected` and `Failed` as values.

        Raises:
            TimedOut: no outcome came for as long as the timeout.
            Unavailable: the app could not be reached or was too busy for some of them.
            TypeError: something else than messages, or an idempotency key is set.

        Example:
            >>> client.ask_many(message(Account.at(k).deposit, 1) for k in ("a", "b"))
            [1, 1]
        """
        return self._run(self._client.ask_many(messages))

    def get(self, entity: E, /) -> E:
        """Return the last committed state of an entity; all defaults if it has none.

        Args:
            entity: an entity named by its key, such as `Account.at("alice")`.

        Raises:
            IncompatibleState: the stored state does not fit this program's class.
            UnknownEntity: the app has no such type.
            Unavailable: the app could not be reached.

        Example:
            >>> client.get(Account.at("alice")).balance
            10
        """
        return self._run(self._client.get(entity))

    def scan(self, cls: type[E], /, prefix: str = "") -> Iterator[tuple[str, E]]:
        """Iterate over the committed states of a type, as (key, entity), in no particular order.

        Args:
            cls: the entity class.
            prefix: what the keys begin with.

        Raises:
            TypeError: it is no entity class.
            IncompatibleState: a stored state does not fit this program's class.
            UnknownEntity: the app has no such type.
            Unavailable: the app could not be reached.

        Example:
            >>> for key, account in client.scan(Account, prefix="a"):
            ...     print(key, account.balance)
        """
        rows = self._client.scan(cls, prefix)
        while True:
            try:
                yield self._run(cast("Coroutine[Any, Any, tuple[str, E]]", anext(rows)))
            except StopAsyncIteration:
                return
