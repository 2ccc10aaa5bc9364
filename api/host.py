"""What programs ask of whoever runs them: the one door from here to the runtime.

Programs import `skerry` only, and `skerry` knows nothing of shards, processes or sockets.
Running an app and reaching a running one are somebody else's job, found here when asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    from skerry.app import App
    from skerry.client import Client


class Session(Protocol):
    """A caller's connection to a running app: numbers requests, retries, never doubles."""

    def request(
        self,
        type_name: str,
        key: str,
        handler: str,
        args: bytes,
        done: Callable[[int, Any], None],
        *,
        reply: bool = True,
        query: bool = False,
        named: bytes = b"",
    ) -> int:
        """Send a request. Returns its number.

        `done` gets that number and the outcome (`kind`, `body`), once, never before we return.
        `named`, 16 bytes, makes it one request with all that were ever so named.

        Raises UnknownEntity, UnknownHandler: the app has none of this name; nothing was sent.
        """
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

    async def connect(self, data: str | Path | None) -> Session:
        """A session with the app that runs on a data directory."""
        ...


def launch() -> Launch:
    """The runtime, imported when it is first needed."""
    return cast(Launch, importlib.import_module("skerry.runtime.launch"))
