"""The connection to NATS: an event loop on a thread of its own, which other threads ask.

    any thread: engine.run(ask, timeout_s) -> the engine's thread: await ask(client) -> result

The client library is asynchronous, and nothing else in a worker or supervisor is. So one thread
runs its loop, and a caller waits for the outcome. What was given up by its caller is never sent
later: nothing waits in the library while it is not connected.

Imported only by apps that run in a cluster. Does network I/O and decides nothing. Idea:
docs/ideas/hosts.md.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from nats.aio.client import Client
from nats.errors import (
    ConnectionClosedError,
    ConnectionReconnectingError,
    Error,
    FlushTimeoutError,
    NoRespondersError,
    NoServersError,
    OutboundBufferLimitError,
    StaleConnectionError,
    UnexpectedEOF,
)
from nats.js.errors import NoStreamResponseError, ServiceUnavailableError

from skerry.errors import Unavailable

CONNECT_S = 2.0
"""How long one server may take to answer."""

PING_S = 2.0
"""How often the connection is tried: after two pings without an answer it counts as lost."""

GRACE_S = 1.0
"""How much longer than its time-out a caller waits, before the engine's thread counts as stuck."""

T = TypeVar("T")
Ask = Callable[[Client], Coroutine[Any, Any, T]]
"""Asks the servers something, with a client that was connected a moment ago."""

AWAY = (
    TimeoutError,
    OSError,
    ConnectionClosedError,
    ConnectionReconnectingError,
    FlushTimeoutError,
    NoRespondersError,
    NoServersError,
    NoStreamResponseError,
    OutboundBufferLimitError,
    ServiceUnavailableError,
    StaleConnectionError,
    UnexpectedEOF,
)
"""What is raised when nobody answers. Whether the servers have done what they were asked is unknown."""


class Away(Unavailable):
    """No server has answered. What was asked of it may have been done."""


class Closed(Away):
    """The connection was closed by its owner: asking again is of no use."""


class Plain(Error):
    """A URL says tls://, and the server does not ask for TLS. So it is not the one that was meant, or
    somebody stands in between."""

    def __str__(self) -> str:
        return "the URL says tls://, and the server does not offer TLS"


class _Client(Client):
    """The library's client. That one takes tls:// for nats://, and leaves it to the server."""

    def _connect_command(self) -> bytes:
        """Return what tells the server who we are: nothing goes to a server of tls:// without TLS."""
        server = self._current_server
        assert server is not None, "it was connected to"
        if server.uri.scheme == "tls" and not self._server_info.get("tls_required"):
            raise Plain
        return super()._connect_command()


class Engine:
    """A connection that mends itself.

    Args:
        servers: URLs such as `nats://h1:4222`; others of the cluster are found by themselves.
        name: by which the servers list the connection.

    Attributes:
        servers: the URLs as they may be shown, without passwords.
        complaint: what the servers or the network said last, since they did as they were asked.
    """

    def __init__(self, servers: Sequence[str], *, name: str) -> None:
        self._urls = list(servers)
        self.servers = [_without_password(url) for url in servers]
        self._name = name
        self.complaint = ""
        self._client: Client | None = None
        self._connecting: asyncio.Lock | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="nats", daemon=True)
        self._thread.start()

    def run(self, ask: Ask[T], timeout_s: float) -> T:
        """Run a coroutine with the client, and wait for what it returns. Any other thread may call
        this.

        Raises Away: there is no connection, or no answer in time; Closed; and what `ask` raises.
        """
        answer = self._ask(ask, timeout_s)
        try:
            future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        except RuntimeError as error:
            answer.close()
            raise Closed("The connection to NATS was closed.") from error
        try:
            return future.result(timeout_s + GRACE_S)
        except AWAY as error:
            future.cancel()
            raise Away(self._silence(timeout_s, error)) from error
        except concurrent.futures.CancelledError as error:
            raise Closed("The connection to NATS was closed.") from error

    def post(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the engine's thread until it ends, or the connection is closed."""
        try:
            asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()

    def _silence(self, timeout_s: float, error: BaseException) -> str:
        where = ", ".join(self.servers)
        if "authorization" in self.complaint.lower():
            return (
                f"NATS at {where} refuses the connection ({self.complaint}). Put a user and "
                f"password, or a token, that it knows into the URL, as in nats://user:password@h1:4222."
            )
        return (
            f"No NATS server at {where} has answered within {timeout_s:g} s "
            f"({self.complaint or _told(error)}). Look at them with `nats server list`, or with "
            f"`skerry cluster status` where they were started by `skerry cluster up`."
        )

    def close(self) -> None:
        """Close the connection, and end the thread."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        self._thread.join()

    # ── the engine's thread ──

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _ask(self, ask: Ask[T], timeout_s: float) -> T:
        answer = await asyncio.wait_for(self._with_client(ask), timeout_s)
        self.complaint = ""
        return answer

    async def _with_client(self, ask: Ask[T]) -> T:
        return await ask(await self.connected())

    async def connected(self) -> Client:
        """Return a client, on the engine's thread."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            # The library's own closes for good after some errors.
            if self._client is None or self._client.is_closed:
                client = _Client()
                await client.connect(self._urls, error_cb=self._hear, **self._options())
                self._client = client
                self.complaint = ""
        return self._client

    def _options(self) -> dict[str, Any]:
        return {
            **_access(self._urls),
            "name": self._name,
            "connect_timeout": CONNECT_S,
            "reconnect_time_wait": 0.2,
            "max_reconnect_attempts": -1,
            "ping_interval": PING_S,
            "pending_size": -1,  # Nothing is kept to be sent after its caller has given up.
        }

    async def _hear(self, error: Exception) -> None:
        """Keep an error for whoever asks next; nobody else needs to know."""
        self.complaint = str(error)

    async def _end(self) -> None:
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        if self._client is not None and not self._client.is_closed:
            await self._client.close()
        self._loop.stop()


def _told(error: BaseException) -> str:
    """Return what an answer says that is none."""
    return getattr(error, "description", None) or type(error).__name__


def _without_password(url: str) -> str:
    """Return a URL as it may be shown."""
    return re.sub("//[^/]*@", "//", url)


def _access(urls: Sequence[str]) -> dict[str, str]:
    """Return what lets a client in, from the first URL that has it, as the library takes it for every
    server: it would go without to those that are found by themselves."""
    for url in urls:
        found = urlsplit(url)
        if found.username and found.password:
            return {"user": unquote(found.username), "password": unquote(found.password)}
        if found.username:
            return {"token": unquote(found.username)}
    return {}
