"""A second way to other hosts: by NATS, where a host does not answer directly.

    a Line's DEALER -> ipc socket in our folder -> Detour
        -> NATS, the subject of the other link -> its Detour -> its ROUTER

What goes this way is the stream of bytes of a ZeroMQ connection, as it would go over the wire. CURVE
encrypts it from end to end, so NATS sees nothing of it, and a stranger who may publish there is still a
stranger. Each message has a number: when one is lost, the stream ends at both sides, and ZeroMQ connects
anew. A reader that is slow holds up its own stream only, by credit.

Each detour hears one subject. An OPEN says which one its sender hears.

Runs on the thread of the connection to NATS; only `way` and `forget` are called from another. Does
network I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error

from skerry.runtime.cluster import names
from skerry.runtime.cluster.engine import AWAY, Engine
from skerry.runtime.link.talks import CHUNK_BYTES, Credit, Numbers
from skerry.runtime.link.wire import COUNT, DATA, END, OPEN, TAKEN
from skerry.runtime.transport.pipe import address

AGAIN_S = 1.0
"""How often the connection to NATS is looked at."""

HEAD = struct.Struct("<16sc8s")
"""Of a message: which stream, what it is, its number."""


class Stream:
    """One ZeroMQ connection that goes by way of NATS, at one of its ends.

    Args:
        name: drawn by the end that opened it.
        token: of the subject that the other end hears.
    """

    def __init__(self, name: bytes, token: str) -> None:
        self.name, self.token = name, token
        self.numbers, self.credit = Numbers(), Credit()
        self.room = asyncio.Event()
        """Set whenever the other end has read."""
        self.come: asyncio.Queue[bytes] = asyncio.Queue()
        """What has come from the other end; empty bytes: nothing more does."""


class Detour:
    """The way by NATS, of one link.

    Args:
        app: whose link it is.
        key: the public key of the link; empty: it serves nobody, as a client's.
        serves: IP:PORT at which the link serves.
    """

    def __init__(self, engine: Engine, app: str, folder: Path, *, key: str, serves: str) -> None:
        self._engine, self._app, self._folder = engine, app, folder
        self._serves = serves
        self._token = names.token_of(key or os.urandom(16).hex())
        self._client: Client | None = None
        self._streams: dict[bytes, Stream] = {}
        self._servers: dict[str, asyncio.Server] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        engine.post(self._stay())

    def _place(self, key: str) -> Path:
        return self._folder / f"detour-{names.token_of(key)[:8]}"

    def way(self, key: str) -> Any:
        """Return a ZeroMQ address that leads to the link with this public key, from now on."""
        self._engine.post(self._open(key))
        return address(self._place(key))

    def forget(self, key: str) -> None:
        """Lead there no more."""
        self._engine.post(self._close(key))

    def close(self) -> None:
        """Lead nowhere any more."""
        for key in list(self._servers):
            self.forget(key)

    # ── the thread of the connection to NATS ──

    async def _stay(self) -> None:
        """Hear our subject. The library subscribes anew after an outage, unless it gave up for good."""
        while True:
            with contextlib.suppress(*AWAY, Error):
                client = await self._engine.connected()
                if client is not self._client:
                    await client.subscribe(self._subject(self._token), cb=self._hear)
                    self._client = client
            await asyncio.sleep(AGAIN_S)

    async def _open(self, key: str) -> None:
        """Take on connections for a link."""
        if key in self._servers:
            return
        place = self._place(key)
        place.unlink(missing_ok=True)
        token = names.token_of(key)

        async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            stream = Stream(os.urandom(16), token)
            self._streams[stream.name] = stream
            await self._carry(stream, reader, writer, opens=True)

        self._servers[key] = await asyncio.start_unix_server(welcome, place)

    async def _close(self, key: str) -> None:
        if server := self._servers.pop(key, None):
            server.close()
            self._place(key).unlink(missing_ok=True)

    async def _hear(self, message: Msg) -> None:
        """Take in a message of another link."""
        if len(message.data) < HEAD.size:
            return
        name, kind, number = HEAD.unpack_from(message.data)
        data = message.data[HEAD.size :]
        stream = self._streams.get(name)
        if kind == OPEN and stream is None and self._serves and names.TOKEN.fullmatch(data):
            stream = self._streams[name] = Stream(name, data.decode())
            self._spawn(self._serve(stream))
        if stream is None:
            return
        if kind == END:
            self._streams.pop(name)
            stream.come.put_nowait(b"")
        elif not stream.numbers.fits(number):
            stream.come.put_nowait(b"")
        elif kind == DATA and stream.credit.heard(len(data)):
            stream.come.put_nowait(data)
        elif kind == TAKEN and len(data) == COUNT.size:
            stream.credit.taken(COUNT.unpack(data)[0])
            stream.room.set()
        elif kind != OPEN:
            stream.come.put_nowait(b"")

    def _subject(self, token: str) -> str:
        return names.link_of(self._app, token)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)  # The loop itself keeps no task alive.
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, stream: Stream) -> None:
        """Connect a stream to our link."""
        ip, _, port = self._serves.rpartition(":")
        try:
            reader, writer = await asyncio.open_connection(ip, int(port))
        except OSError:
            await self._bid_farewell(stream)
            return
        await self._carry(stream, reader, writer, opens=False)

    async def _carry(
        self,
        stream: Stream,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        opens: bool,
    ) -> None:
        """Carry both directions, until one end is closed or something was lost."""
        tasks: list[asyncio.Task[None]] = []
        try:
            if opens:
                await self._say(stream, OPEN, self._token.encode())
            loop = asyncio.get_running_loop()
            tasks = [
                loop.create_task(work)
                for work in (self._give(stream, reader), self._take(stream, writer))
            ]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        except AWAY:
            pass
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
            await self._bid_farewell(stream)

    async def _give(self, stream: Stream, reader: asyncio.StreamReader) -> None:
        """Say what our end says, as far as the other end has room for it."""
        credit = stream.credit
        while data := await reader.read(min(CHUNK_BYTES, credit.left)):
            credit.sent(len(data))
            await self._say(stream, DATA, data)
            while not credit.left:
                stream.room.clear()
                await stream.room.wait()

    async def _take(self, stream: Stream, writer: asyncio.StreamWriter) -> None:
        """Give our end what the other end says; tell that end what was read."""
        while data := await stream.come.get():
            writer.write(data)
            await writer.drain()
            if told := stream.credit.read(len(data)):
                await self._say(stream, TAKEN, COUNT.pack(told))

    async def _bid_farewell(self, stream: Stream) -> None:
        if self._streams.pop(stream.name, None) is not None:
            with contextlib.suppress(*AWAY):
                await self._say(stream, END, b"")

    async def _say(self, stream: Stream, kind: bytes, data: bytes) -> None:
        client = await self._engine.connected()
        head = HEAD.pack(stream.name, kind, stream.numbers.next())
        await client.publish(self._subject(stream.token), head + data)
