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
    Branch,
    Filter,
    FlatMap,
    FromOutput,
    FromSource,
    Graph,
    KeyBy,
    Map,
    Merge,
    Reduce,
    Side,
    Stage,
    ToEntity,
    ToSink,
)
from skerry.stream.outputs import check_name

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")
E = TypeVar("E", bound=Entity)


class _Handle:
    """A node of a graph, to add stages behind."""

    def __init__(self, graph: Graph, node: str) -> None:
        self._graph, self._node = graph, node

    def _stage(self, kind: type[Stage], name: str | None, **fields: Any) -> str:
        return self._graph.add_stage(kind, input=self._node, name=name, **fields)

    def _merge(self, other: object, name: str | None) -> str:
        if type(other) is not type(self):
            kind = type(self).__name__
            raise TypeError(
                f"`merge` takes another stream of this kind, a {kind}, not {other!r:.80}"
            )
        assert isinstance(other, _Handle), "it is of this class"
        if other._graph is not self._graph:
            raise BadApp("`merge` takes a stream of the same app.")
        for handle in (self, other):
            root = handle._graph.root_of(handle._node)
            if isinstance(root, FromOutput):
                raise BadApp(
                    f"{root.output!r}: an output's stream merges with no other; give each a sink of "
                    f"its own, or emit to one output."
                )
        return self._stage(Merge, name, other=other._node)

    def _branch(self, test: object, name: str | None) -> tuple[str, str]:
        node = self._stage(Branch, name, test=_function(Branch, test))
        names = (f"{name} yes", f"{name} no") if name else (None, None)
        yes, no = (
            self._graph.add_stage(Side, input=node, name=side, passed=passed)
            for side, passed in zip(names, (True, False))
        )
        return yes, no

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

    def merge(self, other: Stream[U], *, name: str | None = None) -> Stream[T | U]:
        """Let the items of two streams flow on together.

        The items of each keep their order; between the two there is none.

        Args:
            other: a stream of the same app.
            name: the stage's name.

        Raises:
            TypeError: it is no stream without keys.
            BadApp: it is another app's, or begins at an output.

        Example:
            >>> app.source(TextFiles("a/*.log")).merge(app.source(TextFiles("b/*.log")))
        """
        return Stream(self._graph, self._merge(other, name))

    def branch(
        self, test: Callable[[T], object], *, name: str | None = None
    ) -> tuple[Stream[T], Stream[T]]:
        """Part the stream in two: items for which `test(item)` is true, and all others.

        Example:
            >>> good, bad = app.source(TextFiles("*.log")).branch(str.isprintable)
        """
        yes, no = self._branch(test, name)
        return Stream(self._graph, yes), Stream(self._graph, no)

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

    def merge(self, other: Keyed[U], *, name: str | None = None) -> Keyed[T | U]:
        """Let the items of two streams flow on together, each under its key.

        The items of each stream keep their order; between the two there is none.

        Args:
            other: a stream with keys, of the same app.
            name: the stage's name.

        Raises:
            TypeError: it is no stream with keys.
            BadApp: it is another app's.
        """
        return Keyed(self._graph, self._merge(other, name))

    def branch(
        self, test: Callable[[T], object], *, name: str | None = None
    ) -> tuple[Keyed[T], Keyed[T]]:
        """Part the stream in two: items for which `test(item)` is true, and all others."""
        yes, no = self._branch(test, name)
        return Keyed(self._graph, yes), Keyed(self._graph, no)

    def key_by(self, key: Callable[[T], str], *, name: str | None = None) -> Keyed[T]:
        """Give each item another key, `key(item)`."""
        return Keyed(self._graph, self._stage(KeyBy, name, key=_function(KeyBy, key)))

    @overload
    def to(
        self, handler: Callable[[E, T], U | None], /, *, name: str | None = None
    ) -> Keyed[U]: ...
    @overload
    def to(self, handler: Callable[[E], U | None], /, *, name: str | None = None) -> Keyed[U]: ...
    def to(self, handler: Callable[..., Any], /, *, name: str | None = None) -> Keyed[Any]:
        """Send each item as a message to the entity that has its key; its reply flows on.

        A reply of None ends there, as with `filter`. A turn counts even if a stage behind it raises:
        then the reply alone becomes a dead letter.

        Args:
            handler: a method of an entity class, such as `Word.seen`, that takes no argument, or one:
                the item.
            name: the stage's name. Messages of a stage with others behind it are stored under it.

        Returns:
            The stream of replies, under the keys of the entities.

        Raises:
            TypeError: it is no public handler, or takes other arguments.

        Example:
            >>> words = app.source(TextFiles("*.txt")).flat_map(str.split).key_by(str)
            >>> words.to(Word.seen).filter(lambda n: n % 1000 == 0).sink(sinks.JsonLines("milestones"))
        """
        return Keyed(self._graph, self._stage(ToEntity, name, handler=_handler_of(handler)))

    def reduce(
        self,
        start: V,
        function: Callable[[V, T], V],
        *,
        combine: Callable[[V, V], V] | None = None,
        name: str | None = None,
    ) -> Keyed[V]:
        """Keep one value for each key, and let it flow on after each item.

        The value is stored as an entity: its type is called as the stage, so that `skerry get
        "totals/alice"` reads the one of `name="totals"`. Numbers, text, lists and dicts hold plain
        values; a start that is a Struct or dataclass keeps its class.

        Items come to `function` as what the stages before say in annotations: behind
        `map(parse)` with `def parse(line: str) -> Trade` they are trades, behind a lambda
        plain values.

        Args:
            start: the value of a key before its first item; it counts once for each key.
            function: makes the next value, as `function(value, item)`.
            combine: joins two values. Given, items are reduced where they are read, many at a time,
                before they travel, and the value flows on after each such part. It is used only if
                `combine(start, start)` equals `start`.
            name: the stage's name.

        Raises:
            TypeError: an argument is no function.
            BadApp: when the app starts, a start that can't be stored.

        Example:
            >>> orders.key_by(lambda o: o.shop).reduce(0, lambda total, o: total + o.cents)
        """
        checked = _function(Reduce, function)
        joined = None if combine is None else _function(Reduce, combine)
        node = self._stage(Reduce, name, start=start, function=checked, combine=joined)
        return Keyed(self._graph, node)


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
