"""What a program's tests need, from the smallest to the whole.

    turn(account)            one entity in one turn, no app
    Harness(app)             the app in this process: no files, no clock but `advance`
    Simulation(app, seed=7)  the app on shards that crash, over a network that loses

The last two run the code that workers run. Idea: docs/testing.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, ParamSpec, TypeVar, cast

import msgspec
from msgspec import Struct

from skerry.app import App
from skerry.client.outcomes import value_of
from skerry.client.requests import named_entity
from skerry.entity import Entity
from skerry.errors import SkerryError
from skerry.host import Simulated, launch
from skerry.message import Message, message
from skerry.stream.ends import Sink
from skerry.stream.outputs import Output
from skerry.turn import Turn, here

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")
E = TypeVar("E", bound=Entity)


class Observed:
    """What an entity left behind in a turn."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    @property
    def sent(self) -> list[Message[Any]]:
        """Messages sent, in order."""
        return [Message(h, key, args) for h, key, args, asked in self._turn.sends if asked is None]

    @property
    def asked(self) -> list[Message[Any]]:
        """Messages asked, in order."""
        return [
            Message(h, key, args) for h, key, args, asked in self._turn.sends if asked is not None
        ]

    @property
    def laters(self) -> list[tuple[float, Message[Any]]]:
        """(seconds, message) of each `send_later`."""
        return [(delay / 1e9, Message(h, key, args)) for delay, h, key, args in self._turn.laters]

    @property
    def timers(self) -> dict[str, tuple[float, Message[Any]] | None]:
        """(seconds, message) of each timer set, by name; None: cancelled."""
        assert self._turn.entity is not None, "an observed turn has an entity"
        key = self._turn.entity.key
        return {
            name: None if timer is None else (timer[0] / 1e9, Message(timer[1], key, timer[2]))
            for name, timer in self._turn.timers.items()
        }

    def emitted(self, output: Output[T]) -> list[T]:
        """Items that were put on an output, in order."""
        items = [item for to, item in self._turn.emits if to is output]
        return [msgspec.msgpack.decode(item, type=output.item_type) for item in items]

    @property
    def forgotten(self) -> bool:
        """Whether the entity called `forget`."""
        return self._turn.forgotten


@contextmanager
def turn(entity: Entity, *, key: str = "test", now: datetime | None = None) -> Iterator[Observed]:
    """Run handlers of one entity as in a turn, and look at what they leave behind.

    Args:
        entity: any object of an entity class.
        key: the key that it has meanwhile, unless it has one.
        now: what `now()` gives; default: the wall clock.

    Raises:
        TypeError: what the entity holds at the end could not be kept as it is.

    Example:
        >>> with turn(account, key="alice") as t:
        ...     account.transfer("bob", 3)
        >>> t.asked
        [Account.at('bob').deposit(3)]
    """
    running = Turn()
    if not hasattr(entity, "_key"):
        entity._key = key
    running.entity = entity
    running.now_ns = int((now or datetime.now(UTC)).timestamp() * 1e9)
    before, here.turn = here.turn, running
    try:
        yield Observed(running)
    finally:
        here.turn = before
    type(entity).__skerry__.seal([entity])


class Dead(Struct, frozen=True):
    """A dead letter: a message that was refused or failed with nobody to tell."""

    entity: str
    """As Account/alice."""
    handler: str
    error: str
    traceback: str


class Reply(Generic[R]):
    """The reply that a simulated client waits for."""

    def __init__(self, one: Message[R], cluster: Simulated, *, reply: bool) -> None:
        self._message, self._cluster, self._reply = one, cluster, reply
        self._number = cluster.ask(one, reply=reply)

    @property
    def came(self) -> bool:
        """Whether there is an outcome."""
        return self._number in self._cluster.outcomes

    def result(self) -> R:
        """The reply. Raises Rejected or Failed as a client would, SkerryError when none came."""
        if not self.came:
            raise SkerryError(f"{self._message!r} has no outcome yet: run the simulation on.")
        outcome = self._cluster.outcomes[self._number]
        one = self._message
        return cast(R, value_of(one.handler, one.key, outcome, 0.0, reply=self._reply))


class _Simulated:
    """What Harness and Simulation have in common: a cluster to look into."""

    _app: App
    _cluster: Simulated

    def __getitem__(self, entity: E) -> E:
        """The newest state of an entity, as `Account.at("alice")`; defaults when it has none."""
        cls, key = named_entity(entity)
        kind = cls.__skerry__
        state = self._cluster.state(kind.name, key)
        return cast(E, kind.new(key) if state is None else state)

    def emitted(self, end: Output[Any] | Sink[Any]) -> list[Any]:
        """What came out of an output at its first sink, or at this sink of the app: plain values.

        In the order in which it came; each item once, however often a sink was handed it.
        """
        return list(self._cluster.emitted.get(self._place(end), []))

    def _place(self, end: Output[Any] | Sink[Any]) -> tuple[str, int]:
        if isinstance(end, Output):
            return end.name, 0
        for name, outlet in self._app.outlets.items():
            for place, sink in enumerate(outlet.sinks):
                if sink is end:
                    return name, place
        raise ValueError(f"{end!r:.80} is no sink of app {self._app.name}")

    @property
    def dead(self) -> list[Dead]:
        """The dead letters, oldest first."""
        return [
            Dead(f"{letter.type}/{letter.key}", letter.handler, letter.error, letter.traceback)
            for letter in self._cluster.dead()
        ]


class Harness(_Simulated):
    """An app in this process, on one shard, step by step: no files, no processes, no waiting.

    Time stands still until `advance` moves it. Sources are read when they have items.

    Args:
        app: to be tried.
        now: the time at the start; default: the start of 2024.

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
        """Deliver a message, run all that comes of it now, and give its reply.

        Raises Rejected, Failed: as a client gets them.
        """
        reply = Reply(message(handler, *args, **kwargs), self._cluster, reply=True)
        self.run()
        return reply.result()

    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Deliver a message and run all that comes of it now; a refusal is a dead letter."""
        Reply(message(handler, *args, **kwargs), self._cluster, reply=False)
        self.run()

    def run(self) -> None:
        """Run until nothing is left to do at this time. Raises SkerryError when that never comes."""
        for _ in range(STEPS_MAX):
            self._cluster.step()
            if self._cluster.still:
                return
        raise SkerryError(
            f"The app is not still after {STEPS_MAX:,} steps: do entities send to each other for "
            f"ever, or is a source endless?"
        )

    def advance(self, seconds: float | timedelta) -> None:
        """Let time pass: timers and later sends come due one after the other, each at its time."""
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
        """The time in the app."""
        return datetime.fromtimestamp(self._cluster.clock_ns / 1e9, UTC)


STEPS_MAX = 10_000
"""After so many steps without an end a test is told that there is none."""


class Faults(Struct, frozen=True, kw_only=True):
    """How often what goes wrong in a `Simulation`: probabilities per packet, or per step of each shard.

    Example:
        >>> Faults(lose=0.2, crash=0)  # a bad network, and machines that never die
    """

    lose: float = 0.05
    """A packet is lost."""
    repeat: float = 0.05
    """A packet arrives twice."""
    delay_steps_max: int = 20
    """A packet takes 1 to so many steps, each its own: later ones overtake."""
    cut: float = 0.001
    """A pipe is cut, in one direction, for up to `hold_steps_max` steps."""
    crash: float = 0.002
    """A shard is killed, at some point of its work; it keeps what was synced, and maybe more."""
    blackout: float = 0.0001
    """All shards are killed at once."""
    hang: float = 0.0005
    """A shard stands still for up to `hold_steps_max` steps, and goes on as if nothing was."""
    clock: float = 0.0005
    """A shard's wall clock is set, up to two seconds ahead or back."""
    disk_slow: float = 0.0003
    """A shard's disk is twenty times slower for up to `hold_steps_max` steps."""
    disk_full: float = 0.0002
    """A shard's disk is full for as long: sources pause and clients are refused."""
    disk_fails: float = 0.00003
    """A disk reports an error: the app ends at once, and is started again on what is there."""
    stranger: float = 0.0
    """In a step a packet comes that no shard of the app sends: of another incarnation, of an epoch
    that no shard has reached, or a frame that holds no messages."""
    sync: float = 0.5
    """The disk finishes something in a step."""
    hold_steps_max: int = 400

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_steps_max"):
                if not isinstance(value, int) or value < 1:
                    raise ValueError(
                        f"Faults: {name} is a number of steps from 1 on, not {value!r}"
                    )
            elif not 0 <= value <= 1:
                raise ValueError(f"Faults: {name} is a probability, 0 to 1, not {value!r}")


KINDS = tuple(
    name for name in Faults.__struct_fields__ if name != "sync" and not name.endswith("_max")
)
"""The kinds of faults, each by the name of its probability."""

NO_FAULTS = Faults(
    lose=0,
    repeat=0,
    delay_steps_max=1,
    cut=0,
    crash=0,
    blackout=0,
    hang=0,
    clock=0,
    disk_slow=0,
    disk_full=0,
    disk_fails=0,
    sync=1,
)
"""Nothing goes wrong, and nothing is slow."""


class Simulation(_Simulated):
    """An app on several shards that crash, over a network that loses, with clocks that jump.

    The shards are the code that workers run. All that goes wrong is drawn from the seed, so a
    seed that fails fails again, byte for byte. Whatever goes wrong, after `run` every message
    must have run exactly once, and in order per sender and receiver: that is checked by books
    kept beside the shards. What your app promises is for your test to check.

    Args:
        app: to be tried. Its finite sources are read too.
        seed: what goes wrong, and when.
        shards: how many.
        faults: how often what goes wrong.

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
        """A client asks; it tries again until it has an outcome. Run to get it."""
        return Reply(message(handler, *args, **kwargs), self._cluster, reply=True)

    def send(self, handler: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> None:
        """A client sends; a refusal is a dead letter."""
        Reply(message(handler, *args, **kwargs), self._cluster, reply=False)

    def step(self, steps: int = 1) -> None:
        """So many milliseconds, with faults."""
        for _ in range(steps):
            self._cluster.step()

    def sink(self, end: Output[T] | Sink[T], sink: Sink[T]) -> None:
        """Hand what comes out to this sink, as a worker would: also twice.

        The app's own sinks are not called: they may write files, or talk to the world.

        Args:
            end: an output, for its first sink; or the sink of the app to stand in for.
            sink: as `Sink`; the app's own one, too.
        """
        self._cluster.sinks[self._place(end)] = sink

    def crash(self, shard: int) -> None:
        """Kill a shard now; it comes back by itself."""
        self._cluster.crash(shard)

    def run(self, steps: int = 300) -> None:
        """So many steps with faults, then without, until everything has drained.

        Raises AssertionError naming seed and rule: a message was lost, doubled or overtaken, or
        the app does not come to rest.
        """
        self.step(steps)
        self._cluster.settle()

    def record(self) -> None:
        """Note from now on what happens, for `picture`."""
        self._cluster.record()

    def picture(self, *, title: str = "") -> str:
        """What was recorded, as an SVG document: a lane per shard with its frames, commits, faults."""
        return self._cluster.picture(title or f"seed {self.seed}")

    @property
    def met(self) -> Counter[str]:
        """What went wrong so far, by name."""
        return self._cluster.points


SHARDS_MAX = 64
