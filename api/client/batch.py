"""Batch: the many requests of one `ask_many`, pipelined, with little work for each."""

from __future__ import annotations

import asyncio
from typing import Any

from skerry.client.outcomes import result_of
from skerry.client.requests import packed
from skerry.host import Session
from skerry.message import Message

OPEN_MAX = 20_000
"""How many requests may be open: enough to keep every worker busy, few enough to be confirmed soon."""

CHUNK = 2000
"""How many requests are made before the event loop gets a turn."""


def settle(future: asyncio.Future[Any], outcome: Any) -> None:
    """Set a future's result, unless its waiter has gone."""
    if not future.done():
        future.set_result(outcome)


class Batch:
    """Requests that are waited for together, with one future however many they are.

    Args:
        session: the connection to the app.
        messages: one message a request.
        timeout: how long to wait, in seconds, while no outcome comes.
    """

    def __init__(self, session: Session, messages: list[Message[Any]], timeout: float) -> None:
        self._session, self._messages, self._timeout = session, messages, timeout
        self._outcomes: list[Any] = [None] * len(messages)
        self._blobs = [packed(one.handler, one.args) for one in messages]
        self._sent = self._open = self._wake_at = 0
        self._woken: asyncio.Future[None] | None = None

    @property
    def name(self) -> str:
        """The requests that are still waited for, for error messages."""
        left = len(self._messages) - self._sent + self._open
        return f"{left} of the {len(self._messages)} requests of ask_many"

    async def finish(self) -> None:
        """Send what is not sent yet, and wait for all outcomes; can be called again.

        Raises:
            TimeoutError: no outcome came for as long as the timeout.
        """
        while self._sent < len(self._messages):
            self._send(self._sent + CHUNK)
            # Let the loop send these, and take what has come, before there are more.
            await asyncio.sleep(0)
            if self._open > OPEN_MAX:
                await self._until(OPEN_MAX // 2)
        await self._until(0)

    def _send(self, stop: int) -> None:
        request, done, start = self._session.request, self._done, self._sent
        for one, blob in zip(self._messages[start:stop], self._blobs[start:stop], strict=True):
            handler = one.handler
            request(
                handler.entity,
                one.key,
                handler.name,
                blob,
                done,
                of=self._sent,
                query=handler.query,
            )
            self._sent += 1
            self._open += 1

    def _done(self, place: int, outcome: Any) -> None:
        self._outcomes[place] = outcome
        self._open -= 1
        if self._open <= self._wake_at and self._woken is not None:
            settle(self._woken, None)

    async def _until(self, few: int) -> None:
        """Wait until at most `few` requests are open."""
        loop = asyncio.get_running_loop()
        while (count := self._open) > few:
            # Woken on the way, too: as long as outcomes come, the timeout begins anew.
            self._wake_at = max(few, count - CHUNK)
            self._woken = loop.create_future()
            timer = loop.call_later(self._timeout, settle, self._woken, None)
            try:
                await self._woken
            finally:
                timer.cancel()
            if self._open == count:
                raise TimeoutError

    def results(self) -> list[Any]:
        """Return the results, in the order of the messages."""
        both = zip(self._messages, self._outcomes, strict=True)
        return [result_of(one, outcome, self._timeout) for one, outcome in both]
