"""The caller's end of the lines: one session with a running app, on an asyncio loop.

    request -> session -> a line per door -> outcomes -> session -> whoever asked

What makes requests count once is `session.py`; here are its sockets, its clock and its timer,
and what is asked of a worker itself, which may simply be asked again. A connection outlives
its app's restarts: it looks for the app again when its doors are gone.
Implements `skerry.host.Session`. Idea: docs/clients.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from skerry.errors import SkerryError, Unavailable, UnknownEntity, as_named
from skerry.runtime.app.directory import running_app
from skerry.runtime.client.line import Line, Way
from skerry.runtime.client.session import Session
from skerry.runtime.description import Running
from skerry.runtime.gateway import protocol
from skerry.runtime.private import doubt, trusted

TICK_S = 0.25
"""How often what is overdue is looked for, while anything is."""

WELCOME_S = 10.0
"""How long the workers of a running app may take to come up."""

COUNT_S = 3600.0
"""How long a worker may count, beside all else that it does."""

CALLS_MAX = 64
"""Questions on their way to one worker: fewer than it takes of one caller."""

PAUSE_S = 0.02
PAUSE_MAX_S = 1.0
"""How long a worker that takes no more questions is left alone: twice as long each time."""

_log = logging.getLogger("skerry")


class _Busy(Exception):
    """A worker takes no more questions now."""


class Connection:
    """A caller's session with a running app. Made by `open`."""

    def __init__(self, data: Path, running: Running) -> None:
        self.data, self._running = data, running
        self.loop = self._loop = asyncio.get_running_loop()
        self._lines: dict[int, Line] = {}
        self._session = Session(os.urandom(16), self)
        self.request, self.listen = self._session.request, self._session.listen
        self.check = self._session.check
        """Make a request, wait for one again, whether one can be made: see `Session`."""
        self._greeted = asyncio.Event()
        """Set, too, when a door is in doubt before any has said who it is."""
        self._doubt = ""
        self._owners = trusted(data, data / "run.json")
        self._calls: dict[int, tuple[int, bytes, asyncio.Future[Any]]] = {}
        self._turned_away = ""
        """What a door said that had no room for us."""
        self._call_number = 0
        self._windows: dict[int, asyncio.Semaphore] = {}
        """How many more questions each worker may be asked now."""
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = 0.0
        """When that rings."""
        self._closed = False

    @classmethod
    async def open(cls, data: Path) -> Connection:
        """Connect to the app that runs on this data directory. Raises Unavailable."""
        self = cls(data, running_app(data))
        self._connect()
        try:
            async with asyncio.timeout(WELCOME_S):
                await self._greeted.wait()
            if self._session.greeting is None:
                raise Unavailable(
                    f"The app in {data} could not be reached safely: {self._doubt}. Nothing was said "
                    f"to it. Remove that, and start the app again."
                )
        except TimeoutError:
            text = self._turned_away or (
                f"Look at its logs in {data / 'logs'}, or start it again with `skerry run`."
            )
            raise Unavailable(
                f"The app in {data} is said to run, as process {self._running.pid}, but no worker "
                f"of it answers. {text}"
            ) from None
        finally:
            if self._session.greeting is None:
                await self.close()
        return self

    @property
    def greeting(self) -> protocol.Greeting:
        """What the app last said of itself."""
        greeting = self._session.greeting
        assert greeting is not None, "a connection is opened before it is used"
        return greeting

    @property
    def shards(self) -> list[int]:
        """The shards that hold the app's entities."""
        return list(self.greeting.placement.members)

    # ── what the session speaks by ──

    def say(self, shard: int, raw: bytes) -> bool:
        """See `Lines`."""
        return self._line(shard).say(raw)

    def up(self, shard: int) -> bool:
        """See `Lines`."""
        return self._line(shard).up

    def begin(self) -> None:
        """See `Lines`: what is asked in this tick of the loop leaves at its end."""
        self._loop.call_soon(self._flush)

    def clock_ns(self) -> int:
        """See `Lines`."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def _flush(self) -> None:
        if self._closed:
            return
        # A loop with much to do comes by rarely. What has come meanwhile makes room for as much.
        for shard in self._session.full_doors():
            self._line(shard).hear()
        self._session.flush(self._loop.time())
        self._arm()

    # ── lines ──

    def _connect(self) -> None:
        """A line to each door that the app is said to have."""
        for shard in self._running.shards:
            self._line(shard)
        self._arm()

    def _line(self, shard: int) -> Line:
        line = self._lines.get(shard)
        if line is None:
            line = self._lines[shard] = Line(
                self._loop,
                Way(str(self._folder / f"door-{shard}"), self._running.secret, self._doubted_user),
                lambda raw: self._heard(shard, raw),
                lambda: self._came_up(shard),
                self._doubted,
            )
        return line

    @property
    def _folder(self) -> Path:
        return self._running.folder

    def _doubted_user(self, user: int) -> str:
        if user not in self._owners:
            return f"a process of user {user} has taken the place of its socket in {self._folder}"
        return doubt(self._folder, self._owners)

    def _doubted(self, why: str) -> None:
        if why != self._doubt:
            _log.warning("a door of %s is not spoken to: %s", self.data, why)
        self._doubt = why
        self._greeted.set()

    def _came_up(self, shard: int) -> None:
        self._session.came_up(shard, self._loop.time())
        for called, raw, _ in self._calls.values():
            if called == shard:
                self.say(shard, raw)
        self._arm()

    def _heard(self, shard: int, raw: bytes) -> None:
        """One message from a door."""
        try:
            word = protocol.decode_word(raw)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            _log.warning("shard %d of %s says what can't be read: %s", shard, self.data, error)
            return
        match word:
            case protocol.Outcomes():
                self._session.heard(shard, word, self._loop.time())
            case protocol.Welcome():
                self._session.heard(shard, word, self._loop.time())
                self._greeted.set()
                self._arm()
            case protocol.Answer(n, value):
                self._answered(n, value)
            case protocol.Refusal(0, "Busy", text):
                self._turned_away = text
            case protocol.Refusal(0, _, text):
                _log.warning("shard %d of %s refuses a message: %s", shard, self.data, text)
            case protocol.Refusal(n, "Busy", text):
                self._answered(n, _Busy(text))
            case protocol.Refusal(n, name, text):
                self._answered(n, as_named(name, text))

    # ── calls that are no requests ──

    async def control(self, shard: int, kind: str, *args: Any, timeout: float = 30) -> Any:
        """Ask a worker itself: status, count, scan, get, dead, control.

        Raises Unavailable when it does not answer in time, else what it answers with.
        """
        window = self._windows.setdefault(shard, asyncio.Semaphore(CALLS_MAX))
        pause_s = PAUSE_S
        try:
            async with asyncio.timeout(timeout), window:
                while True:
                    try:
                        return await self._call(shard, kind, args)
                    except _Busy:
                        await asyncio.sleep(pause_s)
                        pause_s = min(2 * pause_s, PAUSE_MAX_S)
        except TimeoutError:
            raise Unavailable(
                f"Shard {shard} of the app in {self.data} did not answer `{kind}` within "
                f"{timeout:g} s. Look at its logs in {self.data / 'logs'}."
            ) from None

    async def _call(self, shard: int, kind: str, args: tuple[Any, ...]) -> Any:
        """Ask it once; said again when its line breaks. Raises _Busy."""
        self._call_number += 1
        n = self._call_number
        raw = protocol.encode([kind, n, *args])
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._calls[n] = (shard, raw, answer)
        self.say(shard, raw)
        self._arm()
        try:
            return await answer
        finally:
            del self._calls[n]

    def _answered(self, n: int, value: Any) -> None:
        call = self._calls.get(n)
        if call is None or call[2].done():
            return
        if isinstance(value, Exception):
            call[2].set_exception(value)
        else:
            call[2].set_result(value)

    async def get(self, type_name: str, key: str) -> tuple[bytes | None, bytes | None]:
        """The last committed state and its schema, None when there is none."""
        owner = self._session.owner(type_name, key)
        state, schema = await self.control(owner, "get", type_name, key)
        return state, schema

    async def scan(
        self, type_name: str, prefix: str, shard: int, after: str
    ) -> tuple[list[tuple[str, bytes]], dict[int, bytes | None]]:
        """A page of (key, state) of one shard behind `after`, and the schemas of the states."""
        self._check_known(type_name)
        rows, schemas = await self.control(
            shard, "scan", type_name, prefix, after, protocol.PAGE_ROWS
        )
        return rows, schemas

    async def count(self, type_name: str) -> int:
        """How many entities of a type have a state. Raises UnknownEntity."""
        self._check_known(type_name)
        counted = (
            self.control(shard, "count", type_name, timeout=COUNT_S) for shard in self.shards
        )
        return sum(await asyncio.gather(*counted))

    def _check_known(self, type_name: str) -> None:
        if type_name not in self.greeting.types and type_name not in self.greeting.kept:
            raise UnknownEntity(type_name, self.greeting.types)

    # ── time ──

    def _arm(self) -> None:
        """Look again in a while; sooner when somebody's patience ends before."""
        if self._closed:
            return
        now_s = self._loop.time()
        at_s = min(now_s + TICK_S, max(now_s, self._session.expires_s))
        if self._timer is not None:
            if self._tick_s <= at_s:
                return
            self._timer.cancel()
        self._timer, self._tick_s = self._loop.call_at(at_s, self._tick), at_s

    def _tick(self) -> None:
        """What is overdue is said again; an app that is gone is looked for."""
        self._timer = None
        for line in self._lines.values():
            line.look()
        self._session.tick(self._loop.time())
        away = not all(line.up for line in self._lines.values())
        if away:
            self._look_again()
        if away or self._calls or self._session.waits:
            self._arm()

    def _look_again(self) -> None:
        """The app may have been started anew, with other sockets or other shards."""
        try:
            running = running_app(self.data)
            owners = trusted(self.data, self.data / "run.json")
        except (SkerryError, OSError):
            # It may come back, and so may its disk, or our descriptors; how long that is waited for
            # is the callers' affair.
            return
        doors = running.sockets, running.shards, running.secret
        if doors != (self._running.sockets, self._running.shards, self._running.secret):
            self._owners = owners
            for line in self._lines.values():
                line.close()
            self._running, self._lines = running, {}
            self._session.reroute()
            self._connect()

    async def close(self) -> None:
        """Confirm what is held and let go. Who still waits is told so."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._session.close()
        for line in self._lines.values():
            line.close()
        for _, _, answer in self._calls.values():
            if not answer.done():
                answer.set_exception(Unavailable(f"The connection to {self.data} was closed."))
