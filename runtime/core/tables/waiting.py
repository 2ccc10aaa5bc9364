"""Requests that wait for an earlier one of their session, which is on its way or lost.

They are kept in their sessions; here stands how many they are in all, since memory bounds them
together (I7). A request beyond the bound is refused as busy and comes again.

No I/O. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from skerry.runtime.core.events import Request
from skerry.runtime.core.settings import Limits
from skerry.runtime.core.tables.sessions import Session


class Waiting:
    """The waiting requests of all sessions of a shard."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = self._bytes = 0

    def hold(self, session: Session, request: Request) -> bool:
        """Keep a request until the one before it has run. False: there is no room."""
        waiting = session.held.get(request.previous, {})
        limits = self._limits
        if (copy := waiting.get(request.number)) is not None:
            self._let_go((copy,))  # Its caller came again by another line.
        elif self._count >= limits.held_requests_max or self._bytes >= limits.held_bytes_max:
            return False
        request.args = request.args.copy()  # Alone: not with the whole message that it came in.
        self._count += 1
        self._bytes += memoryview(request.args).nbytes
        waiting[request.number] = request
        session.held[request.previous] = waiting
        return True

    def free(self, session: Session, number: int) -> None:
        """Keep the requests behind this one no longer."""
        self._let_go(session.held.pop(number, {}).values())

    def free_all(self, session: Session) -> None:
        """Keep no request of a session any longer."""
        for number in list(session.held):
            self.free(session, number)

    def _let_go(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self._count -= 1
            self._bytes -= memoryview(request.args).nbytes
