"""What programs ask of whoever runs them: the one door from here to the runtime.

Programs import `skerry` only, and `skerry` knows nothing of shards, processes or sockets.
Running an app and reaching a running one are somebody else's job, found here when asked for.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable
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
    """A caller's connection to a running app: numbers requests, retries, never doubles."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it was opened on, and can be used on."""
        ...

    def check(self, type_name: str, handler: str) -> None:
        """Raises UnknownEntity, UnknownHandler: the app has none of this name."""
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
        """Make a request. Returns what `listen` takes; an outcome that came when nobody listened
        is its `outcome`.

        `done` gets `of` and the outcome (`kind`, `body`), once, never before we return. When there
        is none at `until_s` of the loop's clock, it gets one of the kind `waited`; or `unsaid`:
        the request was not sent, and will not be.
        `named`, 16 bytes, makes it one request with all that were ever so named.

        Raises UnknownEntity, UnknownHandler: the app has none of this name; nothing was made.
        """
        ...

    def listen(self, call: Any, done: Callable[[Any, Any], None], of: Any, until_s: float) -> None:
        """Wait again for a request that has `waited`."""
        ...

    async def get(self, type_name: str, key: str) -> tuple[bytes | None, bytes | None]:
        """The last committed state and its schema, None when there is none."""
        ...

    async def scan(
        self, type_name: str, prefix: str, shard: int, after: str
    ) -> tuple[list[tuple[str, bytes]], dict[int, bytes | None]]:
        """A page of (key, state) of one shard behind `after`, and the schemas of the states."""
        ...

    @property
    def shards(self) -> list[int]:
        """The shards to scan."""
        ...

    async def close(self) -> None:
        """Confirm what is held and let go."""
        ...


class Launch(Protocol):
    """Who runs apps."""

    def run_app(self, app: App, workers: int | None, data: str | Path | None) -> None:
        """Run until the app ends or is stopped."""
        ...

    def running(self, app: App) -> AbstractContextManager[Client]:
        """The app runs while the context is open."""
        ...

    def simulate(
        self, app: App, *, seed: int, shards: int, faults: Faults, start_ns: int | None = None
    ) -> SimulatedCluster:
        """The app on simulated shards."""
        ...

    async def connect(self, data: str | Path | None) -> Session:
        """A session with the app that runs on a data directory."""
        ...


class SimulatedCluster(Protocol):
    """A simulated cluster, as tests drive it."""

    clock_ns: int
    step_ns: int
    """How far the clock goes in a step."""
    outcomes: dict[int, Any]
    """Of the requests that have one, by number."""
    emitted: dict[tuple[str, int], list[Any]]
    """What came out, by output and the place of the sink."""
    sinks: dict[tuple[str, int], Any]
    """Who is handed what comes out, by the same."""
    points: Counter[str]
    """What went wrong, by name."""

    def ask(self, message: Message[Any], *, reply: bool = True) -> int:
        """A client's request; its number."""
        ...

    def step(self) -> None:
        """One step of everything."""
        ...

    def settle(self) -> None:
        """No more faults; everything drains, and the books agree. Raises AssertionError."""
        ...

    def crash(self, id: int) -> None:
        """Kill a shard."""
        ...

    def state(self, type_name: str, key: str) -> Any:
        """The newest state of an entity, None when it has none."""
        ...

    def dead(self) -> list[Any]:
        """Dead letters, oldest first."""
        ...

    def record(self) -> None:
        """Note from now on what happens."""
        ...

    def picture(self, title: str) -> str:
        """What was noted, as an SVG document."""
        ...

    @property
    def still(self) -> bool:
        """Whether nothing is left to do at this time."""
        ...

    @property
    def next_due_ns(self) -> int | None:
        """When the next timer is due."""
        ...


def launch() -> Launch:
    """The runtime, imported when it is first needed."""
    return cast(Launch, importlib.import_module("skerry.runtime.app.launch"))
