"""Simulation: an app on simulated shards, network, disks and clocks, with faults from a seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from skerry.app import App
from skerry.host import launch
from skerry.message import message
from skerry.stream.ends import Sink
from skerry.stream.outputs import Output
from skerry.testing.faults import Faults
from skerry.testing.simulated import Reply, SimulatedApp

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

SHARDS_MAX = 64


class Simulation(SimulatedApp):
    """An app on several shards that crash, over a network that loses, with clocks that jump.

    The shards run the code that workers run. Everything that goes wrong is drawn from the seed,
    so a seed that fails fails again, byte for byte. `run` checks against a ledger of its own that
    every message ran exactly once, and in order per sender and receiver. What your app promises
    is for your test to check.

    Args:
        app: the app to try. Its finite sources are read, too.
        seed: a number that says what goes wrong, and when.
        shards: the number of shards, 1 to 64.
        faults: how often things go wrong. Default: `Faults()`.

    Raises:
        TypeError, ValueError: a seed or number of shards that can't be one.
        BadApp: the app is incomplete.

    Example:
        >>> sim = Simulation(app, seed=7)
        >>> reply = sim.ask(Account.at("alice").deposit, 10)
        >>> sim.run()
        >>> reply.result(), sim[Account.at("alice")].balance
        (10, 10)
    """

    def __init__(
        self, app: App, *, seed: int = 0, shards: int = 4, faults: Faults | None = None
    ) -> None:
        if not isinstance(shards, int) or not 1 <= shards <= SHARDS_MAX:
            raise ValueError(f"Simulation: shards is 1 to {SHARDS_MAX}, not {shards!r}")
        if not isinstance(seed, int):
            raise TypeError(f"Simulation: a seed is an int, not {seed!r}")
        self.seed = seed
        self._app = app
        self._cluster = launch().simulate(app, seed=seed, shards=shards, faults=faults or Faults())

    def ask(self, handler: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Reply[R]:
        """Let a client ask, and try again until it has an outcome.

        Args:
            handler: a handler of an entity named by its key.
            *args, **kwargs: the handler's own arguments.

        Returns:
            The reply, which comes while the simulation runs.
        """
        return Reply(message(handler, *args, **kwargs), self._cluster, reply=True)

    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Let a client send; a refusal or failure becomes a dead letter, see `dead`.

        Args:
            handler: a handler of an entity named by its key.
            *args, **kwargs: the handler's own arguments.
        """
        Reply(message(handler, *args, **kwargs), self._cluster, reply=False)

    def step(self, steps: int = 1) -> None:
        """Run for a number of steps, a millisecond each, with faults."""
        for _ in range(steps):
            self._cluster.step()

    def sink(self, end: Output[T] | Sink[T], sink: Sink[T]) -> None:
        """Hand what comes out to a sink, as a worker would: some of it twice.

        The app's own sinks are not called otherwise: they may write files, or talk to the world.

        Args:
            end: an output, for its first sink; or the sink of the app to stand in for.
            sink: the sink to call, which may be the app's own.

        Raises:
            ValueError: `end` is no sink of the app.
        """
        self._cluster.sinks[self._place(end)] = sink

    def crash(self, shard: int) -> None:
        """Kill a shard now; it is started again by itself.

        Args:
            shard: its number, from 0 on.
        """
        self._cluster.crash(shard)

    def run(self, steps: int = 300) -> None:
        """Run for a number of steps with faults, then without, until everything has drained.

        Raises:
            AssertionError: names the seed and the rule: a message was lost, doubled or overtaken,
                or the app does not come to rest.
        """
        self.step(steps)
        self._cluster.settle()

    def record(self) -> None:
        """Record from now on what happens, for `picture`."""
        self._cluster.record()

    def picture(self, *, title: str = "") -> str:
        """Draw what was recorded, as an SVG document: a lane per shard with frames, commits, faults."""
        return self._cluster.picture(title or f"seed {self.seed}")

    @property
    def met(self) -> Counter[str]:
        """How often each fault has happened so far, by its name."""
        return self._cluster.points
