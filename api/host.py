"""Host: what the public layer asks of the runtime, and the one place where it reaches it.

Programs import `skerry` only, and `skerry` knows nothing of shards, processes or sockets. The
runtime implements these protocols; `launch` imports it when an app is run, or reached, first.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import asyncio

    from skerry.app import App
    from skerry.client import Client
    from skerry.message import Message
    from skerry.testing import Faults


class Session(Protocol):
    """A client's connection to a running app: numbers requests, and retries without doubling."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that the session was opened on, and can be used on."""
        ...

    def check(self, type_name: str, handler: str) -> None:
        """Check that the app has a handler. Raises UnknownEntity, UnknownHandler."""
        ...

    def request(
        self,
        type_name: str,
        key: str,
        handler: str,
        args: bytes,
        done: Callable[[Any, Any], None],
        *,
        of: Any = None,
        reply: bool = True,
        query: bool = False,
        named: bytes = b"",
        until_s: float = math.inf,
    ) -> Any:
        """Make a request.

        Args:
            type_name, key, handler, args: the message.
            done: called once with `of` and the outcome (`kind`, `body`), never before this
                returns. The kind is `waited` if no outcome came in time, and `unsaid` if the
                request was not sent in time and will not be.
            of: passed to `done`.
            reply: whether the reply is wanted.
            query: whether the handler is a query.
            named: 16 bytes that make it one request with all of this name; empty for none.
            until_s: until when to wait, by the loop's clock.

        Returns:
            The call, for `listen`. Its `outcome` is one that came when nobody listened.

        Raises:
            UnknownEntity, UnknownHandler: the app has none of this name; nothing was sent.
        """
        ...

    def listen(self, call: Any, done: Callable[[Any, Any], None], of: Any, until_s: float) -> None:
        """Wait again for a request whose outcome was `waited`."""
        ...

    async def get(self, type_name: str, key: str) -> tuple[bytes | None, bytes | None]:
        """Return the last committed state of an entity and its schema; None if there is none."""
        ...

    def scan(
        self, type_name: str, prefix: str = ""
    ) -> AsyncIterator[tuple[list[tuple[str, bytes]], dict[int, bytes | None]]]:
        """Yield pages of (key, state) pairs of a type, and the schemas of the states."""
        ...

    async def close(self) -> None:
        """Confirm the outcomes that have come, and disconnect."""
        ...


class Launch(Protocol):
    """The part of the runtime that runs apps."""

    def run_app(self, app: App, workers: int | None, data: str | Path | None) -> None:
        """Run an app until it ends or is stopped."""
        ...

    def running(self, app: App) -> AbstractContextManager[Client]:
        """Run an app while the context is open."""
        ...

    def simulate(
        self, app: App, *, seed: int, shards: int, faults: Faults, start_ns: int | None = None
    ) -> SimulatedCluster:
        """Start an app on simulated shards."""
        ...

    async def connect_to(self, cluster: str, app: str) -> Session:
        """Open a session with an app in a cluster. Raises Unavailable."""
        ...

    async def connect(self, data: str | Path | None) -> Session:
        """Connect to the app that runs on a data directory."""
        ...


class SimulatedCluster(Protocol):
    """Simulated shards, network, disks and clocks, as tests drive them."""

    clock_ns: int
    step_ns: int
    """How far the clock moves in one step."""
    outcomes: dict[int, Any]
    """The outcomes so far, by the number of the request."""
    emitted: dict[tuple[str, int], list[Any]]
    """The items that came out, by output and place of the sink."""
    sinks: dict[tuple[str, int], Any]
    """The sinks that are handed these items, by output and place."""
    points: Counter[str]
    """How often each fault has happened, by name."""

    def ask(self, message: Message[Any], *, reply: bool = True) -> int:
        """Let a client make a request; return its number."""
        ...

    def step(self) -> None:
        """Run everything for one step."""
        ...

    def settle(self) -> None:
        """Let everything drain without faults, and check the ledger. Raises AssertionError."""
        ...

    def crash(self, id: int) -> None:
        """Kill a shard."""
        ...

    def state(self, type_name: str, key: str) -> Any:
        """Return the newest state of an entity; None if it has none."""
        ...

    def dead(self) -> list[Any]:
        """Return the dead letters, oldest first."""
        ...

    def record(self) -> None:
        """Record from now on what happens."""
        ...

    def picture(self, title: str) -> str:
        """Draw what was recorded, as an SVG document."""
        ...

    @property
    def still(self) -> bool:
        """Whether nothing is left to do at this time."""
        ...

    @property
    def next_due_ns(self) -> int | None:
        """When the next timer is due; None if no timer is set."""
        ...


def launch() -> Launch:
    """Return the runtime, imported when it is first needed."""
    return cast(Launch, importlib.import_module("skerry.runtime.app.launch"))
