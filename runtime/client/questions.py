"""Questions to a worker itself: a state, a page of a scan, how it is doing.

A question is no request: it changes nothing, so asking twice does no harm. It is simply asked again
when its line breaks or the worker is busy. A question about slots is asked of their new owner when
they have moved, or the app has come back with other shards.

An asyncio loop, but no sockets. Idea: docs/ideas/clients.md, "Reads".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from skerry.errors import Unavailable, as_named
from skerry.runtime.gateway import protocol

ANSWER_S = 30.0
"""How long an answer may take."""

IN_FLIGHT_MAX = 64
"""Questions in flight to one worker: fewer than it takes of one caller."""

PAUSE_S = 0.02
PAUSE_MAX_S = 1.0
"""How long a worker that takes no more questions is left alone: twice as long each time."""


class _Busy(Exception):
    """A worker takes no more questions now."""


class _Gone(Exception):
    """The app has come back without this shard."""


class _Question(Struct):
    shard: int
    raw: bytes
    answer: asyncio.Future[Any]


class Way(Protocol):
    """How questions reach workers."""

    def say(self, shard: int, raw: bytes) -> bool:
        """Send a message; False when nobody is connected. `Questions.connected` is called once
        somebody is."""
        ...

    def has(self, shard: int) -> bool:
        """Tell whether the app has this shard, as far as is known."""
        ...

    async def settled(self) -> None:
        """Wait until the app has said who owns what, since it came back with other shards."""
        ...


class Questions:
    """The open questions of one connection."""

    def __init__(self, data: Path, way: Way) -> None:
        self._data, self._way = data, way
        self._open: dict[int, _Question] = {}
        self._number = 0
        self._room: dict[int, asyncio.Semaphore] = {}
        """How many more questions each worker may be asked now."""

    def __len__(self) -> int:
        return len(self._open)

    async def ask(self, shard: int, kind: str, *args: Any, timeout_s: float = ANSWER_S) -> Any:
        """Ask one worker; return its answer, or raise what it answers with.

        Raises Unavailable: it does not answer in time, or the app has no such shard any more.
        """
        try:
            return await self._in_time(kind, timeout_s, self._until_taken(shard, kind, args))
        except _Gone:
            raise Unavailable(
                f"The app in {self._data} has come back with other shards, and none is shard "
                f"{shard}. Begin again."
            ) from None

    async def ask_owner(
        self,
        kind: str,
        question: Callable[[], tuple[int, Sequence[Any]]],
        *,
        moved: Callable[[Any], bool] = lambda value: value is None,
        timeout_s: float = ANSWER_S,
    ) -> Any:
        """Ask the worker that owns some slots; when it says that they have moved, the next owner.

        `question` returns the owner by the newest placement, and what it is asked.
        Raises Unavailable: no answer came in time.
        """

        async def until_owned() -> Any:
            while True:
                shard, args = question()
                try:
                    if not moved(value := await self._until_taken(shard, kind, args)):
                        return value
                    self._way.say(shard, protocol.encode(protocol.Hello()))
                except _Gone:
                    await self._way.settled()
                # Who owns them is on its way to us, or their rows are on the way to their owner.
                await asyncio.sleep(PAUSE_S)

        return await self._in_time(kind, timeout_s, until_owned())

    async def _in_time(self, kind: str, timeout_s: float, answer: Any) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise Unavailable(
                f"The app in {self._data} did not answer `{kind}` within {timeout_s:g} s. Look at "
                f"its logs in {self._data / 'logs'}."
            ) from None

    async def _until_taken(self, shard: int, kind: str, args: Sequence[Any]) -> Any:
        """Ask, again and again while the worker is busy. Raises _Gone."""
        pause_s = PAUSE_S
        async with self._room.setdefault(shard, asyncio.Semaphore(IN_FLIGHT_MAX)):
            while True:
                try:
                    return await self._once(shard, kind, args)
                except _Busy:
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def _once(self, shard: int, kind: str, args: Sequence[Any]) -> Any:
        """Ask, again when the line breaks. Raises _Busy, _Gone."""
        if not self._way.has(shard):
            raise _Gone
        self._number += 1
        n, raw = self._number, protocol.encode([kind, self._number, *args])
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._open[n] = _Question(shard, raw, answer)
        self._way.say(shard, raw)
        try:
            return await answer
        finally:
            del self._open[n]

    # ── what comes of them ──

    def connected(self, shard: int) -> None:
        """Ask a worker again what it was asked over a line that broke."""
        for question in self._open.values():
            if question.shard == shard:
                self._way.say(shard, question.raw)

    def answered(self, word: protocol.Answer | protocol.Refusal) -> None:
        """Take what a worker answers."""
        question = self._open.get(word.n)
        if question is None or question.answer.done():
            return
        match word:
            case protocol.Answer(_, value):
                question.answer.set_result(value)
            case protocol.Refusal(_, "Busy", text):
                question.answer.set_exception(_Busy(text))
            case protocol.Refusal(_, name, text):
                question.answer.set_exception(as_named(name, text))

    def rerouted(self) -> None:
        """Give up on shards that the app has no more."""
        self._end_all(lambda question: None if self._way.has(question.shard) else _Gone())

    def close(self) -> None:
        """Give up on all."""
        closed = Unavailable(f"The connection to {self._data} was closed.")
        self._end_all(lambda question: closed)

    def _end_all(self, error_of: Callable[[_Question], Exception | None]) -> None:
        for question in self._open.values():
            error = error_of(question)
            if error is not None and not question.answer.done():
                question.answer.set_exception(error)
