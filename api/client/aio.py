"""AsyncClient: the one implementation of a caller's verbs ask, send, get and scan.

Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, cast, overload

from skerry.arguments import Args
from skerry.client.batch import Batch, settle
from skerry.client.outcomes import name_of, value_of
from skerry.client.requests import named_entity, named_id, packed, refuse_private
from skerry.entity import Entity
from skerry.errors import Failed, Rejected, SkerryError, TimedOut
from skerry.handler import Handler
from skerry.host import Session, launch
from skerry.message import Message, one_message, target

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=Entity)

TIMEOUT_S = 30.0
"""How long a client waits for an outcome: many times as long as a worker takes to restart."""


class AsyncClient:
    """A client of a running app, for asyncio.

    A request takes effect exactly once, even if the client has to send it again over a lost
    connection or to a worker that was started anew.

    Args:
        data: the path of the app's data directory. Default: that of the one app in ./.skerry.
        cluster: instead of `data`: the URLs of NATS servers of a cluster, with commas between.
        app: the app's name in that cluster.

    Raises:
        ValueError: `cluster` and `app` are not given together, or `data` is as well.
        Unavailable: on entry, no app runs there.

    Example:
        >>> async with AsyncClient() as client:
        ...     await client.ask(Account.at("alice").deposit, 10)
        10
    """

    def __init__(
        self,
        data: str | Path | None = None,
        *,
        cluster: str | None = None,
        app: str | None = None,
    ) -> None:
        if (cluster is None) != (app is None) or (cluster is not None and data is not None):
            raise ValueError(
                "a client is of an app on this machine, by `data`, or of one in a cluster, by "
                "`cluster` and `app`"
            )
        self._data, self._cluster, self._app = data, cluster, app
        self._timeout = TIMEOUT_S
        self._idempotency_key: str | None = None
        self._opened: list[tuple[Session, int]] = []
        """The session and the id of the process that opened it; empty while closed."""

    async def __aenter__(self) -> Self:
        self._let_go_of_parents()
        if self._cluster is not None and self._app is not None:
            session = await launch().connect_to(self._cluster, self._app)
        else:
            session = await launch().connect(self._data)
        self._opened.append((session, os.getpid()))
        return self

    async def __aexit__(self, *error: object) -> None:
        self._let_go_of_parents()
        while self._opened:
            await self._opened.pop()[0].close()

    def _let_go_of_parents(self) -> None:
        """In a forked child: forget the parent's session without closing it."""
        self._opened[:] = [(session, by) for session, by in self._opened if by == os.getpid()]

    @property
    def _session(self) -> Session:
        if not self._opened:
            raise SkerryError(
                "This client is not open: use it as `async with AsyncClient() as c:`."
            )
        session, by = self._opened[0]
        if by != os.getpid():
            raise SkerryError(forked(by))
        if session.loop is not asyncio.get_running_loop():
            raise SkerryError(
                "This client was opened in another event loop, and can be used in that one only: "
                "each asyncio.run() makes one of its own. Open a client in each, as "
                "`async with AsyncClient() as c:`."
            )
        return session

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
            >>> await once.ask(Account.at("alice").deposit, 10)
        """
        if idempotency_key == "":
            raise ValueError("an idempotency_key names one request; '' names none")
        other = type(self)(self._data, cluster=self._cluster, app=self._app)
        other._opened = self._opened
        other._timeout = self._timeout if timeout is None else _positive(timeout)
        other._idempotency_key = idempotency_key or self._idempotency_key
        return other

    async def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
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
            >>> await client.ask(Account.at("alice").deposit, 10)
            10

        Source: docs/ideas/clients.md; Helland 2007, section 4 (idempotence).
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
            >>> await client.send(Account.at("bob").deposit, 1)
        """
        one = one_message(handler, args, kwargs)
        await self._one(one.handler, one.key, one.args, reply=False)

    async def ask_many(self, messages: Iterable[Message[R]]) -> list[R | Rejected | Failed]:
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
            >>> await client.ask_many(message(Account.at(k).deposit, 1) for k in ("a", "b"))
            [1, 1]
        """
        listed = list(messages)
        if self._idempotency_key is not None:
            raise TypeError("an idempotency_key names one request; ask_many makes many: ask each")
        for one in listed:
            if not isinstance(one, Message):
                raise TypeError(
                    f"ask_many takes messages, such as message(Account.at('a').deposit, 10), "
                    f"not {one!r:.80}"
                )
        for handler in {one.handler for one in listed}:
            refuse_private(handler)
            self._session.check(handler.entity, handler.name)
        return await self._all(Batch(self._session, listed, self._timeout))

    async def _one(self, handler: Handler, key: str, args: Args, *, reply: bool) -> Any:
        """Ask for one, with no more of asyncio than a future: this is the hot path."""
        came: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = self._begin(handler, key, args, settle, came, reply=reply)
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
        """Make a request, on the loop's thread; `done` gets `of` and the outcome."""
        refuse_private(handler)
        named = b""
        if self._idempotency_key is not None:
            named = named_id(handler.entity, key, handler.name, self._idempotency_key)
        return self._session.request(
            handler.entity,
            key,
            handler.name,
            packed(handler, args),
            done,
            of=of,
            reply=reply,
            query=handler.query,
            named=named,
            until_s=asyncio.get_running_loop().time() + self._timeout,
        )

    async def _again(self, handler: Handler, key: str, call: Any, *, reply: bool) -> Any:
        """Wait on for a request that had no outcome in time."""
        outcome = call.outcome
        if outcome is None:
            loop = asyncio.get_running_loop()
            came: asyncio.Future[Any] = loop.create_future()
            self._session.listen(call, settle, came, loop.time() + self._timeout)
            outcome = await came
        return self._told(handler, key, call, outcome, reply=reply)

    def _told(self, handler: Handler, key: str, call: Any, outcome: Any, *, reply: bool) -> Any:
        """Return the reply that an outcome is, or raise the exception that it stands for."""
        if outcome.kind == "waited":
            again = partial(self._again, handler, key, call, reply=reply)
            raise TimedOut(name_of(handler, key), self._timeout, again)
        return value_of(handler, key, outcome, self._timeout, reply=reply)

    async def _all(self, many: Batch) -> list[Any]:
        try:
            await many.finish()
        except TimeoutError:
            raise TimedOut(many.name, self._timeout, lambda: self._all(many)) from None
        return many.results()

    async def get(self, entity: E, /) -> E:
        """Return the last committed state of an entity; all defaults if it has none.

        Args:
            entity: an entity named by its key, such as `Account.at("alice")`.

        Raises:
            IncompatibleState: the stored state does not fit this program's class.
            UnknownEntity: the app has no such type.
            Unavailable: the app could not be reached.

        Example:
            >>> (await client.get(Account.at("alice"))).balance
            10
        """
        cls, key = named_entity(entity)
        kind = cls.__skerry__
        state, schema = await self._session.get(kind.name, key)
        if state is None:
            return cast(E, kind.new(key))
        return cast(E, kind.decode(state, key, lambda id: schema))

    async def scan(self, cls: type[E], /, prefix: str = "") -> AsyncIterator[tuple[str, E]]:
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
            >>> async for key, account in client.scan(Account, prefix="a"):
            ...     print(key, account.balance)
        """
        kind = getattr(cls, "__skerry__", None)
        if kind is None or not isinstance(cls, type):
            raise TypeError(f"scan takes an entity class, such as Account, not {cls!r:.80}")
        async for rows, schemas in self._session.scan(kind.name, prefix):
            for key, state in rows:
                yield key, cast(E, kind.decode(state, key, schemas.get))


def forked(opened_by: int) -> str:
    """Return what is said in a child that uses its parent's client."""
    return (
        f"This client was opened by process {opened_by}, and this is a child that was forked off: "
        f"process {os.getpid()}. Open a client in the child."
    )


def _positive(timeout: float) -> float:
    if not timeout > 0:
        raise ValueError(f"a timeout is more than 0 s, not {timeout!r}")
    return timeout
