"""Stream and Keyed: the chain of calls by which a program declares a graph.

Each call adds one node to the app's graph and returns a handle on it, which knows the type of
its items for type checkers. Wrong arguments are refused here, where they stand in the program.

Runs none of the program's functions. Idea: docs/ideas/clients.md, "Sources".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, overload

from skerry.entity import Entity
from skerry.errors import BadApp
from skerry.handler import Handler
from skerry.stream.ends import Sink, Source
from skerry.stream.graph import (
    KINDS,
    Filter,
    FlatMap,
    FromOutput,
    FromSource,
    Graph,
    KeyBy,
    Map,
    Stage,
    ToEntity,
    ToSink,
)
from skerry.stream.outputs import check_name

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E", bound=Entity)


class _Handle:
    """A node of a graph, to add stages behind."""

    def __init__(self, graph: Graph, node: str) -> None:
        self._graph, self._node = graph, node

    def _stage(self, kind: type[Stage], name: str | None, **fields: Any) -> str:
        return self._graph.add_stage(kind, input=self._node, name=name, **fields)

    def _sink(self, sink: object, name: str | None) -> None:
        if not isinstance(sink, Sink):
            raise BadApp(
                f"`sink` takes a sink with `write(partition, sequence, items)`, such as "
                f"skerry.sinks.JsonLines(folder), not {sink!r:.100}"
            )
        node = self._stage(ToSink, name, sink=sink)
        if isinstance(self._graph.root_of(node), FromSource):
            check_name(node)  # Its items wait in an output of this name.


class Stream(_Handle, Generic[T]):
    """Items on their way, made by `app.source(…)` or `app.stream(output)`.

    Each method adds a stage and returns the stream behind it. A stream may have several stages
    behind it: each gets all items. Stages are functions of the item alone: they run again after
    a crash.

    A stage's name identifies it in the store and in what is shown. Without one it is made of the
    source's name, the kind of stage and a number.
    """

    def map(self, function: Callable[[T], U], *, name: str | None = None) -> Stream[U]:
        """Turn each item into `function(item)`.

        Example:
            >>> app.source(TextFiles("*.log")).map(str.upper)
        """
        return Stream(self._graph, self._stage(Map, name, function=_function(Map, function)))

    def filter(self, test: Callable[[T], object], *, name: str | None = None) -> Stream[T]:
        """Let only those items pass for which `test(item)` is true."""
        return Stream(self._graph, self._stage(Filter, name, test=_function(Filter, test)))

    def flat_map(
        self, function: Callable[[T], Iterable[U]], *, name: str | None = None
    ) -> Stream[U]:
        """Turn each item into any number of items, those of `function(item)`.

        Example:
            >>> app.source(TextFiles("*.txt")).flat_map(str.split)
        """
        made = _function(FlatMap, function)
        return Stream(self._graph, self._stage(FlatMap, name, function=made))

    def key_by(self, key: Callable[[T], str], *, name: str | None = None) -> Keyed[T]:
        """Give each item a key, `key(item)`: that of the entity which it will go to.

        Raises:
            BadApp: this is an output's stream, which ends in sinks.
        """
        root = self._graph.root_of(self._node)
        if isinstance(root, FromOutput):
            raise BadApp(
                f"{root.output!r}: an output's stream ends in sinks; to reach an entity, `send` to it."
            )
        return Keyed(self._graph, self._stage(KeyBy, name, key=_function(KeyBy, key)))

    def sink(self, sink: Sink[T], /, *, name: str | None = None) -> None:
        """End the stream in a sink, which is handed all items, numbered.

        Items of an output come in the output's partitions, items of a source in the source's.
        Each sink has numbers of its own, kept under the sink's place among the output's sinks,
        or under its name if the items are a source's: add further sinks behind the others.

        Args:
            sink: an object with `write(partition, sequence, items)`, such as `sinks.JsonLines(folder)`.
            name: the stage's name.

        Raises:
            BadApp: the object is no sink.
        """
        self._sink(sink, name)


class Keyed(_Handle, Generic[T]):
    """Items with a key, which they keep through all stages; made by `Stream.key_by`."""

    def map(self, function: Callable[[T], U], *, name: str | None = None) -> Keyed[U]:
        """Turn each item into `function(item)`, under the same key."""
        return Keyed(self._graph, self._stage(Map, name, function=_function(Map, function)))

    def filter(self, test: Callable[[T], object], *, name: str | None = None) -> Keyed[T]:
        """Let only those items pass for which `test(item)` is true."""
        return Keyed(self._graph, self._stage(Filter, name, test=_function(Filter, test)))

    def flat_map(
        self, function: Callable[[T], Iterable[U]], *, name: str | None = None
    ) -> Keyed[U]:
        """Turn each item into any number of items, under the same key."""
        made = _function(FlatMap, function)
        return Keyed(self._graph, self._stage(FlatMap, name, function=made))

    def sink(self, sink: Sink[T], /, *, name: str | None = None) -> None:
        """End the stream in a sink; items of one key come in the same partition.

        They keep the order that they have in their source's partition.

        Args:
            sink: an object with `write(partition, sequence, items)`, such as `sinks.JsonLines(folder)`.
            name: the stage's name.

        Raises:
            BadApp: the object is no sink.
        """
        self._sink(sink, name)

    @overload
    def to(self, handler: Callable[[E, T], object], /, *, name: str | None = None) -> None: ...
    @overload
    def to(self, handler: Callable[[E], object], /, *, name: str | None = None) -> None: ...
    def to(self, handler: Callable[..., object], /, *, name: str | None = None) -> None:
        """Send each item as a message to the entity that has its key.

        Args:
            handler: a method of an entity class, such as `Word.seen`, that takes no argument, or one:
                the item.
            name: the stage's name.

        Raises:
            TypeError: it is no public handler, or takes other arguments.

        Example:
            >>> app.source(TextFiles("*.txt")).flat_map(str.split).key_by(str).to(Word.seen)
        """
        self._stage(ToEntity, name, handler=_handler_of(handler))


def check_source(source: object) -> None:
    """Refuse an object that is no source. Raises BadApp."""
    if not isinstance(source, Source):
        raise BadApp(
            f"app.source takes a source with `partitions` and `read`, such as TextFiles(…), not {source!r:.100}"
        )


def _function(kind: type[Stage], function: Any) -> Any:
    """Return the function of a stage. Raises TypeError: it can't be called."""
    if not callable(function):
        raise TypeError(f"`{KINDS[kind]}` takes a function of an item, not {function!r:.80}")
    return function


def _handler_of(function: Any) -> Handler:
    """Return the handler that a method of an entity class is. Raises TypeError."""
    name = getattr(function, "__name__", repr(function))
    owner = getattr(function, "__qualname__", "").rpartition(".")[0].rpartition(".")[2]
    for cls in _entity_classes(Entity):
        made = cls.__skerry__.handlers.get(name)
        if made is not None and getattr(cls, name) is function:
            if made.private or made.query:
                raise TypeError(f"`to` takes a public handler that is no query, not {owner}.{name}")
            if made.arity > 1 or (made.arity == 1 and not made.params[0].required):
                raise TypeError(
                    f"`to` takes a handler of no argument, or of one (the item) without a default; "
                    f"{made.entity}.{name} has {made.arity}"
                )
            return made
    raise TypeError(f"`to` takes a handler of an entity class, as in `to(Word.seen)`, not {name}")


def _entity_classes(cls: type[Entity]) -> Iterator[type[Entity]]:
    for sub in cls.__subclasses__():
        if hasattr(sub, "__skerry__"):  # One that was refused may not be gone yet.
            yield sub
            yield from _entity_classes(sub)
