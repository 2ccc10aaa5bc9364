"""Harness: an app in the test's own process, one step at a time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

from skerry.app import App
from skerry.errors import SkerryError
from skerry.host import launch
from skerry.message import message
from skerry.testing.faults import NO_FAULTS
from skerry.testing.simulated import Reply, SimulatedApp

P = ParamSpec("P")
R = TypeVar("R")

STEPS_MAX = 10_000
"""How many steps an app gets to come to rest."""


class Harness(SimulatedApp):
    """An app in the test's own process: no files, no other processes, no waiting.

    Time stands still until `advance` moves it. Sources are read when they have items.

    Args:
        app: the app to try.
        now: the time at the start. Default: the start of 2024.

    Raises:
        BadApp: the app is incomplete.

    Example:
        >>> h = Harness(app)
        >>> h.ask(Account.at("alice").deposit, 10)
        10
        >>> h[Account.at("alice")].balance
        10
    """

    def __init__(self, app: App, *, now: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> None:
        start_ns = int(now.timestamp() * 1e9)
        self._app = app
        self._cluster = launch().simulate(
            app, seed=0, shards=1, faults=NO_FAULTS, start_ns=start_ns
        )
        self._cluster.step_ns = 0

    def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Deliver a message, run all that follows from it at this time, and return its reply.

        Args:
            handler: a handler of an entity named by its key, such as `Account.at("alice").deposit`.
            *args, **kwargs: the handler's own arguments.

        Raises:
            Rejected, Failed: as a client would get them.
            SkerryError: the app does not come to rest.

        Example:
            >>> h.ask(Account.at("alice").deposit, 10)
            10
        """
        reply = Reply(message(handler, *args, **kwargs), self._cluster, reply=True)
        self.run()
        return reply.result()

    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Deliver a message, and run all that follows from it at this time.

        A refusal or failure becomes a dead letter, see `dead`.

        Args:
            handler: a handler of an entity named by its key.
            *args, **kwargs: the handler's own arguments.
        """
        Reply(message(handler, *args, **kwargs), self._cluster, reply=False)
        self.run()

    def run(self) -> None:
        """Run until nothing is left to do at this time.

        Raises:
            SkerryError: the app does not come to rest.
        """
        for _ in range(STEPS_MAX):
            self._cluster.step()
            if self._cluster.still:
                return
        raise SkerryError(
            f"The app is not still after {STEPS_MAX:,} steps: do entities send to each other for "
            f"ever, or is a source endless?"
        )

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass: timers and delayed messages come due one after the other, each at its time.

        Args:
            seconds: how much time, in seconds or as a timedelta.

        Raises:
            ValueError: a negative time.

        Example:
            >>> h.advance(timedelta(days=1))
        """
        delta = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        if not delta >= 0:
            raise ValueError(f"time goes forward: advance takes 0 s or more, not {seconds!r}")
        target = self._cluster.clock_ns + int(delta * 1e9)
        self.run()
        while (due := self._cluster.next_due_ns) is not None and due <= target:
            self._cluster.clock_ns = max(due, self._cluster.clock_ns)
            self.run()
        self._cluster.clock_ns = target

    @property
    def now(self) -> datetime:
        """The app's time."""
        return datetime.fromtimestamp(self._cluster.clock_ns / 1e9, UTC)
