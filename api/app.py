"""App: the entity types, outputs and streams that run together, and their checks.

An app is data: making one starts nothing, and runs none of the program's functions.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from skerry.entity import Entity, EntityMeta
from skerry.entity_type import EntityType
from skerry.errors import BadApp
from skerry.host import launch
from skerry.stream.builder import Keyed, Stream, check_source
from skerry.stream.changes import Change
from skerry.stream.columns import Pass
from skerry.stream.compile import Compiled, Pipeline
from skerry.stream.ends import Source
from skerry.stream.graph import FromChanges, FromOutput, FromSource, Graph, ToEntity
from skerry.stream.outlet import Outlet
from skerry.stream.outputs import Output

if TYPE_CHECKING:
    from skerry.client import Client

T = TypeVar("T")
E = TypeVar("E", bound=Entity)
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
RETRIES_MAX = 100


def args() -> list[str]:
    """Return what followed `--` on the command line of `skerry run`; an empty list elsewhere.

    Example:
        >>> app.source(TextFiles(*(skerry.args() or ["corpus/*.txt"])))
    """
    return [str(arg) for arg in json.loads(os.environ.get("SKERRY_ARGS", "[]"))]


class App:
    """Entity types, outputs and streams that run together.

    Args:
        name: 1 to 64 letters, digits, `_` and `-`; also the name of the default data folder.
        entities: the entity classes; any entity that a handler sends to must be among them.
        outputs: what entities may `emit` to.
        retries: how often a message is tried again after its handler raised, 0 to 100, before it
            becomes a dead letter.

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
        self._declared: dict[str, EntityType] = {}
        self.graph = Graph(name)
        """The nodes of the app's streams."""
        self._compiled: tuple[int, Compiled] | None = None
        """The graph as it runs, when it had so many nodes."""
        for output in outputs:
            if not isinstance(output, Output):
                raise BadApp(f"App {name}: outputs are made by Output(…), not {output!r:.80}.")
            self.graph.add(FromOutput(name=output.name, output=output))
        ids: dict[int, str] = {}
        for cls in entities:
            if not isinstance(cls, EntityMeta) or cls is Entity:
                raise BadApp(f"App {name}: {cls!r} is no subclass of skerry.Entity.")
            kind: EntityType = cls.__skerry__
            if kind.name in self._declared:
                raise BadApp(f"App {name}: two entity types are called {kind.name!r}.")
            self._declared[kind.name] = kind
            named = {kind.schema_id: kind.name}
            named |= {h.id: f"{kind.name}.{h.name}" for h in kind.handlers.values()}
            for id, what in named.items():
                if id in ids:
                    raise BadApp(f"App {name}: {ids[id]} and {what} have one id; rename one.")
                ids[id] = what

    @property
    def renamed(self) -> dict[str, str]:
        """The classes that were renamed with `was=`: their name, and the one they are stored under."""
        kinds = self._declared.values()
        return {kind.cls.__name__: kind.name for kind in kinds if kind.cls.__name__ != kind.name}

    @property
    def pipelines(self) -> list[Pipeline]:
        """The app's sources with their stages, compiled as they are declared by now."""
        return self._as_declared().pipelines

    @property
    def outlets(self) -> dict[str, Outlet]:
        """The app's outputs with their stages and sinks, compiled as they are declared by now."""
        return self._as_declared().outlets

    @property
    def types(self) -> dict[str, EntityType]:
        """The app's entity types by name, with those of stages that are declared by now."""
        return self._as_declared().types

    @property
    def change_passes(self) -> dict[str, Pass]:
        """What the changes of entity types pass, by the types' names."""
        return self._as_declared().changes

    def _as_declared(self) -> Compiled:
        """Return the graph compiled, again only if nodes were added: they never change."""
        size = len(self.graph.nodes)
        if self._compiled is None or self._compiled[0] != size:
            self._compiled = size, Compiled(self.graph, self._declared)
        return self._compiled[1]

    def __getstate__(self) -> dict[str, Any]:
        """Travel by value without what can be compiled again."""
        return {**self.__dict__, "_compiled": None}

    def source(self, source: Source[T], *, name: str | None = None) -> Stream[T]:
        """Begin a stream with the items of a source.

        Args:
            source: a source such as `TextFiles(…)`, or your own with `partitions` and `read`.
            name: the name under which its positions are stored. Default: its class and number
                among the sources of that class; give a name if sources may be added or moved.

        Raises:
            BadApp: the object is no source, or the name is taken.

        Example:
            >>> app.source(TextFiles("*.txt")).flat_map(str.split).key_by(str).to(Word.seen)
        """
        check_source(source)
        nodes = self.graph.nodes.values()
        before = [n for n in nodes if isinstance(n, FromSource) and type(n.source) is type(source)]
        name = name or f"{type(source).__name__}-{len(before)}"
        self.graph.add(FromSource(name=name, source=source))
        return Stream(self.graph, name)

    def stream(self, output: Output[T]) -> Stream[T]:
        """Begin a stream with the items that entities emit to an output; it ends in sinks.

        Args:
            output: one of the app's outputs.

        Raises:
            BadApp: the app was made without this output.

        Example:
            >>> app.stream(milestones).filter(lambda n: n > 100).sink(sinks.JsonLines("big"))
        """
        node = self.graph.nodes.get(output.name) if isinstance(output, Output) else None
        if not isinstance(node, FromOutput) or node.output is not output:
            raise BadApp(f"App {self.name}: {output!r:.80} is not among its outputs.")
        return Stream(self.graph, node.name)

    def changes(self, entity: type[E], /) -> Keyed[Change[E]]:
        """Begin a stream with the committed changes of an entity type.

        Each commit in which messages of an entity ran gives one change: its state behind the commit.
        The changes of an entity come in their order, each exactly once, under its key. They are those
        from the first start with this stream on.

        Args:
            entity: one of the app's entity classes.

        Raises:
            BadApp: it is not among the app's entities.

        Example:
            >>> app.changes(Account).filter(lambda change: change.state is None).sink(closed)
        """
        kind = getattr(entity, "__skerry__", None)
        if kind is None or kind.name not in self._declared:
            raise BadApp(f"App {self.name}: {entity!r:.80} is not among its entities.")
        name = f"changes {kind.name}"
        if name not in self.graph.nodes:
            self.graph.add(FromChanges(name=name, entity=kind.name))
        return Keyed(self.graph, name)

    def check(self) -> None:
        """Check what can only be seen once the program is complete.

        Raises:
            BadApp: an output without a sink, a sink of two streams, an entity that is missing.
        """
        self.check_targets()
        outlets = self.outlets.values()
        for outlet in outlets:
            if not outlet.sinks:
                name = outlet.output.name
                raise BadApp(
                    f"App {self.name}: what is emitted to {outlet.output!r} has no way out. Write "
                    f"app.stream({name}).sink(…), or take it out of `outputs`."
                )
        sinks = [sink for outlet in outlets for sink in outlet.sinks]
        for place, sink in enumerate(sinks):
            if any(sink is other for other in sinks[:place]):
                raise BadApp(
                    f"App {self.name}: {sink!r:.80} is the sink of two streams, whose numbers it "
                    f"could not tell apart. Make one for each."
                )

    def check_targets(self) -> None:
        """Check that the entities which streams send to are in the app. Raises BadApp."""
        for node in self.graph.nodes.values():
            if isinstance(node, ToEntity) and node.handler.entity not in self._declared:
                root, handler = self.graph.root_of(node.name), node.handler
                raise BadApp(
                    f"App {self.name}: the source {root.name!r} sends to "
                    f"{handler.entity}.{handler.name}, but {handler.entity} is not among its "
                    f"entities. Write App(…, entities=[…]) with it."
                )

    def run(self, workers: int | None = None, data: str | Path | None = None) -> None:
        """Run the app, until it ends or is stopped.

        Args:
            workers: the number of processes. Default: one per usable core.
            data: the path of the data directory. Default: ./.skerry/<name>.

        Raises:
            SkerryError: the app was refused or has failed; what is acknowledged is safe. A script that
                does not catch it ends with its sentence and the exit code of `skerry run`.
        """
        launch().run_app(self, workers, data)

    def running(self) -> AbstractContextManager[Client]:
        """Run the app while a context is open, on a data directory that is thrown away after.

        Returns:
            A context manager whose value is a client of the app.

        Example:
            >>> with app.running() as client:
            ...     client.ask(Account.at("alice").deposit, 10)
            10
        """
        return launch().running(self)
