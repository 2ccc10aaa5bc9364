"""A caller's connection to a running app, on an asyncio loop.

    request -> session -> a line per shard -> outcomes -> session -> whoever asked

`session.py` makes requests count once, `questions.py` asks the workers themselves, and `reads.py` by
them what they hold; the sockets, the clock and the timer are here. A connection outlives restarts of its app: when the
listeners are gone, it looks for the app again.

Implements `skerry.host.Session`. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app.directory import running_app
from skerry.runtime.client.line import Line, Way
from skerry.runtime.client.questions import Questions
from skerry.runtime.client.reads import Reads
from skerry.runtime.client.session import Session
from skerry.runtime.description import Running
from skerry.runtime.gateway import places, protocol
from skerry.runtime.private import doubt_of, trusted

TICK_S = 0.25
"""How often overdue requests are looked for, while anything is open."""

WELCOME_S = 10.0
"""How long the workers of a running app may take to come up."""

_log = logging.getLogger("skerry")


class Connection:
    """A connection to a running app. Made by `open`."""

    def __init__(self, data: Path, running: Running) -> None:
        self.data, self._running = data, running
        self.loop = self._loop = asyncio.get_running_loop()
        self._lines: dict[int, Line] = {}
        self._session = Session(os.urandom(16), self)
        self.request, self.listen = self._session.request, self._session.listen
        self.check = self._session.check
        self._questions = Questions(data, self)
        self.control = self._questions.ask
        self.reads = Reads(self._questions, self._session)
        self.get, self.scan = self.reads.get, self.reads.scan
        self._greeted = asyncio.Event()
        """Set once a shard has said who owns what, or a listener has given cause for doubt."""
        self._doubt = ""
        self._owners = trusted(data, data / "run.json")
        self._turned_away = ""
        """What a listener said that had no room for this caller."""
        self._timer: asyncio.TimerHandle | None = None
        self._tick_s = 0.0
        """When the timer rings."""
        self._closed = False
        self._after: Callable[[], None] | None = None

    @classmethod
    async def open(cls, data: Path, *, after: Callable[[], None] | None = None) -> Connection:
        """Connect to the app that runs on a data directory.

        Args:
            after: called on a thread when the connection has been closed.

        Raises Unavailable; `after` is not called then.
        """
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
        self._after = after
        return self

    @property
    def greeting(self) -> protocol.Greeting:
        """The newest greeting of the app."""
        greeting = self._session.greeting
        assert greeting is not None, "a connection is opened before it is used"
        return greeting

    @property
    def shards(self) -> list[int]:
        """The shards that hold the app's entities."""
        return list(self.greeting.placement.members)

    # ── what session and questions send by ──

    def say(self, shard: int, raw: bytes) -> bool:
        """Send a message; False when the line is not connected."""
        self._arm()
        return self._line(shard).say(raw)

    def up(self, shard: int) -> bool:
        """Tell whether the line to a shard is connected."""
        return shard in self._lines and self._lines[shard].up

    def has(self, shard: int) -> bool:
        """Tell whether the app has this shard, as far as is known."""
        greeting = self._session.greeting if self._greeted.is_set() else None
        # One that has come since we looked for the app is in a greeting first.
        new = greeting is not None and shard in greeting.placement.members
        return new or shard in self._running.shards

    async def settled(self) -> None:
        """Wait until the app has said who owns what."""
        await self._greeted.wait()

    def begin(self) -> None:
        """Send all that is asked in this tick of the loop at the end of the tick."""
        self._loop.call_soon(self._flush)

    def clock_ns(self) -> int:
        """Return the time of a clock that is never set."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def _flush(self) -> None:
        if self._closed:
            return
        # A busy loop comes here rarely. The outcomes that have come meanwhile make room.
        for shard in self._session.full_shards():
            self._line(shard).hear()
        self._session.flush(self._loop.time())
        self._arm()

    # ── lines ──

    def _connect(self) -> None:
        """Make a line to each shard that the app is said to have."""
        for shard in self._running.shards:
            self._line(shard)
        self._arm()

    def _line(self, shard: int) -> Line:
        line = self._lines.get(shard)
        if line is None:
            line = self._lines[shard] = Line(
                self._loop,
                Way(
                    str(places.listener(self._folder, shard)),
                    self._running.secret,
                    self._doubted_user,
                ),
                lambda raw: self._heard(shard, raw),
                lambda: self._connected(shard),
                self._doubted,
            )
        return line

    @property
    def _folder(self) -> Path:
        return self._running.folder

    def _doubted_user(self, user: int) -> str:
        return doubt_of(user, self._folder, self._owners)

    def _doubted(self, why: str) -> None:
        if why != self._doubt:
            _log.warning("a worker of %s is not spoken to: %s", self.data, why)
        self._doubt = why
        self._greeted.set()

    def _connected(self, shard: int) -> None:
        self._session.connected(shard)
        self._questions.connected(shard)
        self._arm()

    def _heard(self, shard: int, raw: bytes) -> None:
        """Take one message of a shard."""
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
                self._rewire()
                self._arm()
            case protocol.Refusal(0, "Busy", text):
                self._turned_away = text
            case protocol.Refusal(0, _, text):
                _log.warning("shard %d of %s refuses a message: %s", shard, self.data, text)
            case protocol.Answer() | protocol.Refusal():
                self._questions.answered(word)

    # ── time ──

    def _arm(self) -> None:
        """Have `_tick` called in a while, or when the first caller's patience ends."""
        if self._closed:
            return
        now_s = self._loop.time()
        at_s = min(now_s + TICK_S, max(now_s, self._session.wake_s))
        if self._timer is not None:
            if self._tick_s <= at_s:
                return
            self._timer.cancel()
        self._timer, self._tick_s = self._loop.call_at(at_s, self._tick), at_s

    def _tick(self) -> None:
        """Send again what is overdue, and look for an app that is gone."""
        self._timer = None
        for line in self._lines.values():
            line.look()
        self._session.tick(self._loop.time())
        away = not all(line.up for line in self._lines.values())
        if away:
            self._look_again()
        if away or self._questions or self._session.waits:
            self._arm()

    def _look_again(self) -> None:
        """Find the app if it was started anew, with other sockets or other shards."""
        try:
            running = running_app(self.data)
            owners = trusted(self.data, self.data / "run.json")
        except (SkerryError, OSError):
            # The app may come back, and so may its disk, or our descriptors. How long to wait for
            # that is up to each caller.
            return
        before, self._running = self._running, running
        if (running.pid, *_doors(running)) == (before.pid, *_doors(before)):
            # Not those at our last look: some may have come since, and be gone again.
            if {*running.shards} != self._lines.keys():
                self._rewire()
                for line in self._lines.values():
                    line.say(protocol.encode(protocol.Hello()))
        elif (running.shards, *_doors(running)) != (before.shards, *_doors(before)):
            self._owners = owners
            for line in self._lines.values():
                line.close()
            self._lines = {}
            self._greeted.clear()
            self._session.reroute()
            self._questions.rerouted()
            self._connect()

    def _rewire(self) -> None:
        """Have lines to the shards that the app has by now: some come and leave while it runs."""
        for shard in [shard for shard in self._lines if not self.has(shard)]:
            self._lines.pop(shard).close()
        greeting = self._session.greeting
        known = self._running.shards if greeting is None else greeting.placement.members
        for shard in known:
            self._line(shard)
        self._questions.rerouted()

    async def close(self) -> None:
        """Confirm outcomes, and disconnect. All who still wait are told so."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._session.close()
        for line in self._lines.values():
            line.close()
        self._questions.close()
        if self._after is not None:
            await asyncio.to_thread(self._after)


def _doors(running: Running) -> tuple[str, str]:
    """Where an app's sockets are, and what proves them its own."""
    return running.sockets, running.secret
