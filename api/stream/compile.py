"""Compiles a graph into passes over lists, so that none of our code runs once an item.

For a batch of items each stage is one `map`, `filter` or comprehension. What comes out are
columns: for each end of the passes its handler, the keys and the arguments; or its exit, the
keys and the items' bytes. A stage that keeps something is an entity: what a pass ends in is its
handler, and the replies of that handler go through the passes behind the stage (`keyed.py`).

    Pipeline   a source, and the passes over its items
    Outlet     an output, the passes over what is emitted to it, and its sinks

Pure but for the program's functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import compress
from operator import not_
from typing import Any

import msgspec

from skerry.entity_type import EntityType
from skerry.errors import BadApp
from skerry.handler import Handler
from skerry.limits import LARGE, check_keys
from skerry.stream.changes import Change
from skerry.stream.columns import Columns, Exit, Pass
from skerry.stream.graph import (
    Branch,
    Filter,
    FlatMap,
    FromChanges,
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
from skerry.stream.item_types import item_type
from skerry.stream.keyed import Reducer, flowing
from skerry.stream.outlet import Outlet
from skerry.stream.outputs import Output

_encode = msgspec.msgpack.Encoder().encode


class Pipeline:
    """A source, and the passes over its items."""

    def __init__(self, name: str, source: Any, run: Pass) -> None:
        self.name, self.source, self._run = name, source, run

    def apply(self, items: Sequence[Any]) -> list[Columns]:
        """Return the columns that a batch of items becomes."""
        return self._run(None, items if isinstance(items, list) else list(items))


class Compiled:
    """A graph as it runs.

    Args:
        graph: the app's graph.
        declared: the entity types that the program declares.

    Attributes:
        pipelines: one for each source.
        changes: what the changes of an entity type pass, by its name.
        outlets: one for each output, and for each sink of a source or of changes.
        types: the entity types, those of stages among them.
    """

    def __init__(self, graph: Graph, declared: Mapping[str, EntityType]) -> None:
        self._graph = graph
        self.types = dict(declared)
        self._reducers: dict[str, Reducer] = {}
        self._handlers: dict[str, Handler] = {}
        """The handler of each stage that is an entity and has stages behind it."""
        nodes = graph.nodes.values()
        self.outlets: dict[str, Outlet] = {}
        for node in nodes:
            if isinstance(node, FromOutput):
                self.outlets[node.name] = self._outlet(node)
            elif isinstance(node, ToSink) and not isinstance(graph.root_of(node.name), FromOutput):
                self.outlets[node.name] = _outlet_of_sink(node)
        self.pipelines = [
            Pipeline(node.name, node.source, self._behind(node.name, self._leave))
            for node in nodes
            if isinstance(node, FromSource)
        ]
        self.changes = {
            node.entity: self._behind(node.name, self._leave)
            for node in nodes
            if isinstance(node, FromChanges)
        }

    # ── ways out ──

    def _outlet(self, root: FromOutput) -> Outlet:
        ends = [node for node in self._graph.behind(root.name) if isinstance(node, ToSink)]
        places = {end.name: place for place, end in enumerate(ends)}
        output = root.output

        def leave(end: ToSink) -> Pass:
            way = Exit(output.name, output.partitions, places[end.name])
            return lambda keys, items: [(way, [], items)]

        return Outlet(
            output,
            ends,
            types=[self._type_at(end) for end in ends],
            direct=[place for place, end in enumerate(ends) if end.input == root.name],
            run=self._behind(root.name, leave),
        )

    def _type_at(self, end: ToSink) -> Any:
        """Return the type of what comes to a sink: the output's, if only filters are between them."""
        node = self._graph.nodes[end.input]
        while isinstance(node, Filter):
            node = self._graph.nodes[node.input]
        return node.output.item_type if isinstance(node, FromOutput) else Any

    def _leave(self, end: ToSink) -> Pass:
        """Compile how items leave for sinks: encoded, by the outlet of each sink."""
        outlet = self.outlets[end.name]
        way = Exit(outlet.output.name, outlet.output.partitions, 0)
        changes = any(isinstance(node, FromChanges) for node in self._graph.nodes.values())

        def leave(keys: list[str] | None, items: list[Any]) -> list[Columns]:
            if keys is not None:
                check_keys(keys)
            if changes:
                items = [item.plain() if item.__class__ is Change else item for item in items]
            return [(way, keys or [], list(map(outlet.emitted, items)))]

        return leave

    # ── passes ──

    def _behind(self, name: str, leave: Callable[[ToSink], Pass]) -> Pass:
        """Compile all stages behind a node."""
        made = [self._pass(stage, leave) for stage in self._graph.after(name)]
        if len(made) == 1:
            return made[0]
        return lambda keys, items: [columns for each in made for columns in each(keys, items)]

    def _pass(self, stage: Stage, leave: Callable[[ToSink], Pass]) -> Pass:
        match stage:
            case ToSink():
                return leave(stage)
            case ToEntity():
                return _messages(self._handler(stage))
            case Reduce():
                return self._reduce(stage)
            case Branch(test=test):
                sides = [side for side in self._graph.after(stage.name) if isinstance(side, Side)]
                made = [(side.passed, self._behind(side.name, leave)) for side in sides]
                return _branching(test, made)
        following = self._behind(stage.name, leave)
        match stage:
            case Merge():
                return following
            case Map(function=function):
                return lambda keys, items: following(keys, list(map(function, items)))
            case Filter(test=test):
                return _filtering(test, following)
            case FlatMap(function=function):
                return _flattening(function, following)
            case KeyBy(key=key):
                return lambda _, items: following(list(map(key, items)), items)
        raise AssertionError(f"{stage.name}: no pass for it")

    # ── stages that are entities ──

    def _handler(self, stage: ToEntity) -> Handler:
        """Return what the items of a stage are sent to; its replies flow on if anything is behind."""
        handler = stage.handler
        kind = self.types.get(handler.entity)
        if kind is None or not self._graph.after(stage.name):
            return handler
        if stage.name not in self._handlers:
            behind = self._behind(stage.name, self._leave)
            made = self._handlers[stage.name] = flowing(handler, stage.name, behind)
            self.types[kind.name] = self.types[kind.name].with_handler(made)
        return self._handlers[stage.name]

    def _reduce(self, stage: Reduce) -> Pass:
        reducer = self._reducers.get(stage.name)
        if reducer is None:
            if stage.name in self.types:
                raise BadApp(
                    f"The entity type {stage.name!r} and a stage have one name. Give the stage another: "
                    f"its values are entities of that type."
                )
            behind = None
            if self._graph.after(stage.name):
                behind = self._behind(stage.name, self._leave)
            items = item_type(self._graph, stage.input)
            reducer = self._reducers[stage.name] = Reducer(stage, items, behind)
            self.types[stage.name] = reducer.type
        messages = _messages(reducer.handler)
        partial = reducer.partial
        if partial is None:
            return messages
        return lambda keys, items: messages(*partial(keys or [], items))


def _outlet_of_sink(end: ToSink) -> Outlet:
    """The items of a source that go to a sink wait in an output that has the stage's name."""
    output: Output[Any] = Output(end.name)
    way = Exit(output.name, output.partitions, 0)
    return Outlet(output, [end], types=[Any], direct=[0], run=lambda _, items: [(way, [], items)])


def _filtering(test: Callable[[Any], object], following: Pass) -> Pass:
    def run(keys: list[str] | None, items: list[Any]) -> list[Columns]:
        if keys is None:
            return following(None, list(filter(test, items)))
        passed = list(map(test, items))
        return following(list(compress(keys, passed)), list(compress(items, passed)))

    return run


def _flattening(function: Callable[[Any], Any], following: Pass) -> Pass:
    def run(keys: list[str] | None, items: list[Any]) -> list[Columns]:
        if keys is None:
            return following(None, [out for item in items for out in function(item)])
        pairs = [(key, out) for key, item in zip(keys, items) for out in function(item)]
        return following([key for key, _ in pairs], [out for _, out in pairs])

    return run


def _branching(test: Callable[[Any], object], sides: Sequence[tuple[bool, Pass]]) -> Pass:
    def run(keys: list[str] | None, items: list[Any]) -> list[Columns]:
        passed = list(map(bool, map(test, items)))
        found: list[Columns] = []
        for wanted, following in sides:
            chosen = passed if wanted else list(map(not_, passed))
            kept = None if keys is None else list(compress(keys, chosen))
            found += following(kept, list(compress(items, chosen)))
        return found

    return run


def _messages(handler: Handler) -> Pass:
    """Compile the end of passes whose items become messages."""
    scalar = handler.params[0].annotation if handler.arity and handler.scalar else None

    def without_item(keys: list[str] | None, items: list[Any]) -> list[Columns]:
        return [(handler, keys or [], ())]

    def with_item(keys: list[str] | None, items: list[Any]) -> list[Columns]:
        # One look at all items; at each by itself only if one is unlike the rest, or too large.
        if scalar is not None and set(map(type, items)) == {scalar} and _fit(items):
            return [(handler, keys or [], items)]
        column = handler.column([handler.bind((item,), {}) for item in items])
        return [(handler, keys or [], column)]

    return with_item if handler.arity else without_item


def _fit(items: list[Any]) -> bool:
    """Tell whether messages can carry these scalars, which are of one type."""
    try:
        size = len(_encode(items))  # The quickest look at all of them: 2 to 4 ns an item.
    except (ValueError, OverflowError):
        return False
    return size <= LARGE or type(items[0]) not in (str, bytes) or max(map(len, items)) <= LARGE
