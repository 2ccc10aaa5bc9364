"""App: what belongs together, and its checks.

An app names its entity types and its sources. It is data: making one starts nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from skerry.entity import Entity, EntityMeta, EntityType
from skerry.errors import BadApp
from skerry.host import launch
from skerry.output import Outlet, Output
from skerry.stream import Pipeline, Sink, Source, Stream, check_source

if TYPE_CHECKING:
    from skerry.client import Client

T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
RETRIES_MAX = 100


def args() -> list[str]:
    """What followed `--` on the command line of `skerry run`; empty elsewhere."""
    return [str(arg) for arg in json.loads(os.environ.get("SKERRY_ARGS", "[]"))]


class App:
    """Entity types and sources that run together.

    Args:
        name: letters, digits, `_` and `-`, at most 64: also the default data folder's name.
        entities: the entity classes; any entity that a handler sends to must be among them.
        outputs: what entities may `emit` to.
        retries: how often a message is tried again when its handler raises, before it becomes
            a dead letter.

    Raises:
        BadApp: a bad name, a class that is no Entity, two classes or outputs of one name.

    Example:
        >>> app = App("bank", entities=[Account])
    """

    def __init__(
        self,
        name: str,
        *,
        entities: Sequence[type[Entity]] = (),
        outputs: Sequence[Output[Any]] = (),
        retries: int = 3,
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadApp(f"An app's name is 1 to 64 letters, digits, _ or -, not {name!r}.")
        if not isinstance(retries, int) or not 0 <= retries <= RETRIES_MAX:
            raise BadApp(f"App {name}: retries is 0 to {RETRIES_MAX}, not {retries!r}.")
        self.name, self.retries = name, retries
        self.types: dict[str, EntityType] = {}
        self.pipelines: list[Pipeline] = []
        self.outlets: dict[str, Outlet] = {}
        for output in outputs:
            if not isinstance(output, Output):
                raise BadApp(f"App {name}: outputs are made by Output(…), not {output!r:.80}.")
            if output.name in self.outlets:
                raise BadApp(f"App {name}: two outputs are called {output.name!r}.")
            self.outlets[output.name] = Outlet(output)
        ids: dict[int, str] = {}
        for cls in entities:
            if not isinstance(cls, EntityMeta) or cls is Entity:
                raise BadApp(f"App {name}: {cls!r} is no subclass of skerry.Entity.")
            kind: EntityType = cls.__skerry__
            if kind.name in self.types:
                raise BadApp(f"App {name}: two entity types are called {kind.name!r}.")
            self.types[kind.name] = kind
            named = {kind.schema_id: kind.name}
            named |= {h.id: f"{kind.name}.{h.name}" for h in kind.handlers.values()}
            for id, what in named.items():
                if id in ids:
                    raise BadApp(f"App {name}: {ids[id]} and {what} have one id; rename one.")
                ids[id] = what

    @property
    def renamed(self) -> dict[str, str]:
        """Classes that were renamed with `was=`: their name, and the one they are stored under."""
        kinds = self.types.values()
        return {kind.cls.__name__: kind.name for kind in kinds if kind.cls.__name__ != kind.name}

    def source(self, source: Source[T], *, name: str | None = None) -> Stream[T]:
        """A stream of a source's items.

        Args:
            source: as `TextFiles(…)`, or your own with `partitions` and `read`.
            name: under which its positions are kept; default: its class and place among the
                sources. Give one when sources may be added or moved later.
        """
        check_source(source)
        same = sum(type(p.source) is type(source) for p in self.pipelines)
        name = name or f"{type(source).__name__}-{same}"
        if any(p.name == name for p in self.pipelines):
            raise BadApp(f"App {self.name}: two sources are called {name!r}.")
        pipeline = Pipeline(name, source, self._way_out)
        self.pipelines.append(pipeline)
        return pipeline.stream

    def _way_out(self, name: str, sink: object) -> Outlet:
        """An output for a sink that ends a source's stream."""
        if name in self.outlets:
            raise BadApp(f"App {self.name}: the output {name!r} has the name of a source's sink.")
        outlet = Outlet(Output(name))
        outlet.stream.sink(cast(Sink[Any], sink))
        self.outlets[name] = outlet
        return outlet

    def check(self) -> None:
        """What can only be seen when the program is complete. Raises BadApp."""
        self.check_targets()
        for outlet in self.outlets.values():
            if not outlet.sinks:
                name = outlet.output.name
                raise BadApp(
                    f"App {self.name}: what is emitted to {outlet.output!r} has no way out. Write "
                    f"app.stream({name}).sink(…), or take it out of `outputs`."
                )
        sinks = [sink for outlet in self.outlets.values() for sink in outlet.sinks]
        for place, sink in enumerate(sinks):
            if any(sink is other for other in sinks[:place]):
                raise BadApp(
                    f"App {self.name}: {sink!r:.80} is the sink of two streams, whose numbers it "
                    f"could not tell apart. Make one for each."
                )

    def check_targets(self) -> None:
        """That what sources send to is among the app's entities. Raises BadApp."""
        for pipeline in self.pipelines:
            for handler in pipeline.targets:
                if handler.entity not in self.types:
                    raise BadApp(
                        f"App {self.name}: the source {pipeline.name!r} sends to "
                        f"{handler.entity}.{handler.name}, but {handler.entity} is not among its "
                        f"entities. Write App(…, entities=[…]) with it."
                    )

    def stream(self, output: Output[T]) -> Stream[T]:
        """The stream of what is emitted to an output: stages, then `sink`.

        Example:
            >>> app.stream(milestones).filter(lambda n: n > 100).sink(JsonLines("milestones"))
        """
        outlet = self.outlets.get(output.name) if isinstance(output, Output) else None
        if outlet is None or outlet.output is not output:
            raise BadApp(f"App {self.name}: {output!r:.80} is not among its outputs.")
        return outlet.stream

    def run(self, workers: int | None = None, data: str | Path | None = None) -> None:
        """Run until the app ends or is stopped.

        Args:
            workers: how many processes; default: one per usable core.
            data: the data directory; default: ./.skerry/<name>.

        Raises:
            SkerryError: the app failed; what is acknowledged is safe.
        """
        launch().run_app(self, workers, data)

    def running(self) -> AbstractContextManager[Client]:
        """The app runs, on a data directory that is thrown away, while the context is open.

        Example:
            >>> with app.running() as client:
            ...     client.ask(Account.at("alice").deposit, 10)
            10
        """
        return launch().running(self)
