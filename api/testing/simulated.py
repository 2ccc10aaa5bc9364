"""A simulated app, as tests look into it: its states, outputs, dead letters and replies."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

from msgspec import Struct

from skerry.app import App
from skerry.client.outcomes import value_of
from skerry.client.requests import named_entity
from skerry.entity import Entity
from skerry.errors import SkerryError
from skerry.host import SimulatedCluster
from skerry.message import Message
from skerry.stream.ends import Sink
from skerry.stream.outputs import Output

R = TypeVar("R")
E = TypeVar("E", bound=Entity)


class Dead(Struct, frozen=True):
    """A dead letter: a message whose refusal or failure nobody asked for."""

    entity: str
    """The entity's type and key, as "Account/alice"."""
    handler: str
    """The name of the handler."""
    error: str
    """The exception and its text."""
    traceback: str
    """The traceback; empty after a refusal."""


class Reply(Generic[R]):
    """The reply that a simulated client waits for; made by `Simulation.ask`."""

    def __init__(self, one: Message[R], cluster: SimulatedCluster, *, reply: bool) -> None:
        self._message, self._cluster, self._reply = one, cluster, reply
        self._number = cluster.ask(one, reply=reply)

    @property
    def came(self) -> bool:
        """Whether an outcome has come."""
        return self._number in self._cluster.outcomes

    def result(self) -> R:
        """Return the reply.

        Raises:
            Rejected, Failed: as a client would get them.
            SkerryError: no outcome has come yet.
        """
        if not self.came:
            raise SkerryError(f"{self._message!r} has no outcome yet: run the simulation on.")
        outcome = self._cluster.outcomes[self._number]
        one = self._message
        return cast(R, value_of(one.handler, one.key, outcome, 0.0, reply=self._reply))


class SimulatedApp:
    """A view into a simulated app, which `Harness` and `Simulation` share."""

    _app: App
    _cluster: SimulatedCluster

    def __getitem__(self, entity: E) -> E:
        """Return the newest state of an entity, as `h[Account.at("alice")]`; defaults if it has none."""
        cls, key = named_entity(entity)
        kind = cls.__skerry__
        state = self._cluster.state(kind.name, key)
        return cast(E, kind.new(key) if state is None else state)

    def emitted(self, end: Output[Any] | Sink[Any]) -> list[Any]:
        """Return what came out of the app, as plain values in the order in which it came.

        Each item is there once, however often a sink was handed it.

        Args:
            end: an output, for its first sink; or a sink of the app.
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
