"""What a schedule can call: an ask, a bare request, a round between two entities.

Each is a `Target` of `open_loop` and knows nothing of schedules or histograms. A door of
another kind, HTTP for one, is one more class here and one more line in `KINDS`.
"""

from __future__ import annotations

import asyncio
import socket
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import Struct

import skerry
from benchmarks.open_loop import Done
from benchmarks.sized_app import Counter, name
from skerry.runtime.app.launch import connect

KEYS = 10_000
FOR_EVER_S = 3600.0
STRIDE = 7919
"""A prime: steps of it meet every key before they repeat one."""


class Caller(Protocol):
    """A target that holds a connection open."""

    def call(self, number: int, done: Done) -> None:
        """See `open_loop.Target`."""
        ...

    async def close(self) -> None:
        """Let go of it."""
        ...


class Ask:
    """`client.ask`, as users call it: a task for each."""

    def __init__(self, client: skerry.AsyncClient, first: int) -> None:
        self._client, self._first = client, first
        # How long an answer is waited for is the schedule's affair: what is given up here would
        # be counted as refused, and its waiting not at all.
        self._patient = client.options(timeout=FOR_EVER_S)
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers = [Counter.at(name(number)).add for number in range(KEYS)]

    @classmethod
    async def open(cls, data: str, first: int) -> Ask:
        """Connect to the app on this data directory; begin with the key of this number."""
        client = skerry.AsyncClient(data)
        return cls(await client.__aenter__(), first)

    def call(self, number: int, done: Done) -> None:
        """See `Target`."""
        handler = self._handlers[(self._first + number * STRIDE) % KEYS]
        task = asyncio.get_running_loop().create_task(self._ask(handler, done))
        self._tasks.add(task)  # A loop keeps no hold of its tasks.
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, handler: Callable[[int], int], done: Done) -> None:
        try:
            await self._patient.ask(handler, 1)
        except skerry.SkerryError:
            done(False)
        else:
            done(True)

    async def close(self) -> None:
        """See `Caller`."""
        for task in self._tasks:
            task.cancel()
        await self._client.__aexit__()


class Request:
    """The same requests, said below `client.ask`: they cost their client a fraction, so that two
    processes can call more often than two workers can answer."""

    def __init__(self, session: Any, first: int) -> None:
        self._session, self._first = session, first
        self._names = [name(number) for number in range(KEYS)]
        self._body = msgspec.msgpack.encode([1])

    @classmethod
    async def open(cls, data: str, first: int) -> Request:
        """As `Ask.open`."""
        return cls(await connect(data), first)

    def call(self, number: int, done: Done) -> None:
        """See `Target`."""
        key = self._names[(self._first + number * STRIDE) % KEYS]
        self._session.request(
            "Counter", key, "add", self._body, lambda _, outcome: done(outcome.kind == "done")
        )

    async def close(self) -> None:
        """See `Caller`."""
        await self._session.close()


def _front(number: int) -> str:
    return f"f{number}"


class Hop:
    """A round through two entities and back, see `hop_app`. It ends with a datagram."""

    def __init__(self, session: Any, first: int) -> None:
        self._session, self._first = session, first
        self._open: dict[int, Done] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="skerry-hop-")
        self._path = str(Path(self._folder.name) / "closed")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(self._path)
        asyncio.get_running_loop().add_reader(self._socket, self._heard)

    @classmethod
    async def open(cls, data: str, first: int) -> Hop:
        """As `Ask.open`."""
        return cls(await connect(data), first)

    def call(self, number: int, done: Done) -> None:
        """See `Target`."""
        self._open[number] = done
        place = (self._first + number * STRIDE) % KEYS
        body = msgspec.msgpack.encode([f"b{place * 31 % KEYS}", number, self._path])
        self._session.request("Front", _front(place), "go", body, self._begun, reply=False)

    def _begun(self, number: int, outcome: Any) -> None:
        # Says only that the round has begun; the datagram says that it is over.
        assert outcome.kind == "done", f"Front.go ended as {outcome.kind!r}: {outcome.body!r}"

    def _heard(self) -> None:
        while True:
            try:
                told = self._socket.recv(1 << 20)
            except BlockingIOError:
                return
            for place in range(0, len(told), 8):
                done = self._open.pop(int.from_bytes(told[place : place + 8], "little"), None)
                if done is not None:  # After a crash a sink may tell twice.
                    done(True)

    async def close(self) -> None:
        """See `Caller`."""
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._folder.cleanup()
        await self._session.close()


class Kind(Struct, frozen=True):
    """A caller, and the app that it calls."""

    open: Callable[[str, int], Awaitable[Caller]]
    app: str
    name: str
    counted: tuple[str, str]
    """The entity type and the field that count its calls."""
    key: Callable[[int], str]
    """The keys of these entities."""


KINDS = {
    "ask": Kind(Ask.open, "benchmarks.sized_app:app", "sized", ("Counter", "count"), name),
    "request": Kind(Request.open, "benchmarks.sized_app:app", "sized", ("Counter", "count"), name),
    "hop": Kind(Hop.open, "benchmarks.hop_app:app", "hops", ("Front", "closed"), _front),
}
