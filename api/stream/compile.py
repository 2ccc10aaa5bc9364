"""Compiles a graph into passes over lists, so that none of our code runs once an item.

For a batch of items each stage is one `map`, `filter` or comprehension. What comes out are
columns: for each end of the stream its handler, the keys and the arguments; or its exit, the
keys and the items' bytes.

    Pipeline   a source, and the passes over its items
    Outlet     an output, the passes over what is emitted to it, and its sinks

Pure but for the program's functions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from skerry.handler import Handler
from skerry.limits import LARGE, check_keys
from skerry.stream.ends import Sink
from skerry.stream.graph import (
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
from skerry.stream.outputs import Output

_encode = msgspec.msgpack.Encoder().encode


class Exit(NamedTuple):
    """Where a stream ends in a sink."""

    output: str
    partitions: int
    sink: int
    """The sink's place among the output's sinks."""


Columns = tuple[Handler | Exit, list[str], Sequence[Any]]
"""(where to, keys, a column of arguments as `Handler.column` makes it, or of items' bytes). Keys
of messages are not checked yet: most are known from before, and a known key was (`check_keys`)."""

Pass = Callable[[list[Any]], list[Columns]]
KeyedPass = Callable[[list[str], list[Any]], list[Columns]]


class Pipeline:
    """A source, and the passes over its items."""

    def __init__(self, name: str, source: Any, run: Pass) -> None:
        self.name, self.source, self._run = name, source, run

    def apply(self, items: Sequence[Any]) -> list[Columns]:
        """Return the columns that a batch of items becomes."""
        return self._run(items if isinstance(items, list) else list(items))


class Outlet:
    """An output, the passes over what is emitted to it, and its sinks.

    Args:
        output: the output.
        ends: the sinks' stages, in the order of their places.
        types: for each sink the type that its items are decoded to.
        direct: the places of sinks that get items as they were emitted.
        run: the passes.
    """

    def __init__(
        self,
        output: Output[Any],
        ends: Sequence[ToSink],
        types: Sequence[Any],
        direct: Sequence[int],
        run: Pass,
    ) -> None:
        self.output, self._types, self._direct, self._run = output, types, direct, run
        self.sinks: list[Sink[Any]] = [end.sink for end in ends]
        self._decode = _decoder(output.item_type).decode

    def type_at(self, place: int) -> Any:
        """Return the type that items for the sink at this place are decoded to."""
        return self._types[place] if self._types else self.output.item_type

    @property
    def ends(self) -> int:
        """The number of sinks; 1 in a test without any, where items end at the first place."""
        return max(1, len(self.sinks))

    def apply(self, items: Sequence[bytes]) -> list[tuple[int, list[bytes]]]:
        """Return what comes out at each sink, as (its place, items)."""
        if not self.sinks:
            return [(0, list(items))]  # In a test; a worker refuses an output without a way out.
        ends = self._run([self._decode(item) for item in items])
        return [
            (end.sink, [self._left(end.sink, item) for item in out])
            for end, _, out in ends
            if isinstance(end, Exit)
        ]

    def emitted(self, item: object) -> bytes:
        """Encode an item that is put on the output.

        Raises:
            TypeError, ValueError: it can't be encoded, or a sink that would get it unchanged
                can't write it.
        """
        for place in self._direct:
            self._check(place, item)
        return self.output.emitted(item)

    def _left(self, place: int, item: object) -> bytes:
        """Encode an item that leaves for a sink. Raises as `emitted` does."""
        self._check(place, item)
        return self.output.encoded(item)

    def _check(self, place: int, item: object) -> None:
        check = getattr(self.sinks[place], "check", None)
        try:
            if check is not None:
                check(item)
        except (TypeError, ValueError, OverflowError) as error:
            refused = TypeError if isinstance(error, TypeError) else ValueError
            raise refused(
                f"{self.output!r}: {item!r:.80} is nothing for its sink "
                f"{type(self.sinks[place]).__name__}: {error}"
            ) from error


@functools.cache
def _decoder(item_type: Any) -> msgspec.msgpack.Decoder[Any]:
    """Make a decoder once a type."""
    return msgspec.msgpack.Decoder(item_type)


# ── compiling ─────────────────────────────────────────────────────────────────


def pipelines(graph: Graph) -> list[Pipeline]:
    """Compile what is behind the sources of a graph."""
    ways_out = outlets(graph)
    return [
        Pipeline(node.name, node.source, _passes(graph, node.name, _leaving(ways_out)))
        for node in graph.nodes.values()
        if isinstance(node, FromSource)
    ]


def outlets(graph: Graph) -> dict[str, Outlet]:
    """Compile what is behind the outputs of a graph; each sink of a source has one of its own."""
    found = {}
    for node in graph.nodes.values():
        if isinstance(node, FromOutput):
            found[node.name] = _outlet(graph, node)
        elif isinstance(node, ToSink) and isinstance(graph.root_of(node.name), FromSource):
            found[node.name] = _outlet_of_sink(node)
    return found


def _outlet(graph: Graph, root: FromOutput) -> Outlet:
    ends = [node for node in graph.behind(root.name) if isinstance(node, ToSink)]
    places = {end.name: place for place, end in enumerate(ends)}
    output = root.output

    def leave(end: ToSink) -> KeyedPass:
        way = Exit(output.name, output.partitions, places[end.name])
        return lambda keys, items: [(way, keys, items)]

    return Outlet(
        output,
        ends,
        types=[_type_at(graph, end) for end in ends],
        direct=[place for place, end in enumerate(ends) if end.input == root.name],
        run=_passes(graph, root.name, leave),
    )


def _outlet_of_sink(end: ToSink) -> Outlet:
    """The items of a source that go to a sink wait in an output that has the stage's name."""
    output: Output[Any] = Output(end.name)
    way = Exit(output.name, output.partitions, 0)
    return Outlet(output, [end], types=[Any], direct=[0], run=lambda items: [(way, [], items)])


def _type_at(graph: Graph, end: ToSink) -> Any:
    """Return the type of what comes to a sink: the output's, if only filters are between them."""
    node = graph.nodes[end.input]
    while isinstance(node, Filter):
        node = graph.nodes[node.input]
    return node.output.item_type if isinstance(node, FromOutput) else Any


def _leaving(ways_out: dict[str, Outlet]) -> Callable[[ToSink], KeyedPass]:
    """Return how the items of sources leave for sinks: encoded, by the outlet of each sink."""

    def leave(end: ToSink) -> KeyedPass:
        outlet = ways_out[end.name]
        way = Exit(outlet.output.name, outlet.output.partitions, 0)
        return lambda keys, items: [(way, keys, list(map(outlet.emitted, items)))]

    return leave


def _passes(graph: Graph, name: str, leave: Callable[[ToSink], KeyedPass]) -> Pass:
    """Compile all stages behind a node whose items have no key."""
    made = [_pass(graph, stage, leave) for stage in graph.after(name)]
    if len(made) == 1:
        return made[0]
    return lambda items: [columns for each in made for columns in each(items)]


def _pass(graph: Graph, stage: Stage, leave: Callable[[ToSink], KeyedPass]) -> Pass:
    if isinstance(stage, ToSink):
        out = leave(stage)
        return lambda items: out([], items)
    if isinstance(stage, KeyBy):
        key, keyed = stage.key, _keyed_passes(graph, stage.name, leave)
        return lambda items: keyed(list(map(key, items)), items)
    following = _passes(graph, stage.name, leave)
    match stage:
        case Map(function=function):
            return lambda items: following(list(map(function, items)))
        case Filter(test=test):
            return lambda items: following(list(filter(test, items)))
        case FlatMap(function=function):
            return lambda items: following([out for item in items for out in function(item)])
    raise AssertionError(f"{stage.name}: no pass for items without a key")


def _keyed_passes(graph: Graph, name: str, leave: Callable[[ToSink], KeyedPass]) -> KeyedPass:
    """Compile all stages behind a node whose items have a key."""
    made = [_keyed_pass(graph, stage, leave) for stage in graph.after(name)]
    if len(made) == 1:
        return made[0]
    return lambda keys, items: [columns for each in made for columns in each(keys, items)]


def _keyed_pass(graph: Graph, stage: Stage, leave: Callable[[ToSink], KeyedPass]) -> KeyedPass:
    if isinstance(stage, ToEntity):
        return _to_entity(stage.handler)
    if isinstance(stage, ToSink):
        out = leave(stage)

        def checked(keys: list[str], items: list[Any]) -> list[Columns]:
            check_keys(keys)
            return out(keys, items)

        return checked
    following = _keyed_passes(graph, stage.name, leave)

    def paired(pairs: list[tuple[str, Any]]) -> list[Columns]:
        return following([key for key, _ in pairs], [item for _, item in pairs])

    match stage:
        case Map(function=function):
            return lambda keys, items: following(keys, list(map(function, items)))
        case Filter(test=test):
            return lambda keys, items: paired(
                [(key, item) for key, item in zip(keys, items) if test(item)]
            )
        case FlatMap(function=function):
            return lambda keys, items: paired(
                [(key, out) for key, item in zip(keys, items) for out in function(item)]
            )
    raise AssertionError(f"{stage.name}: no pass for items with a key")


def _to_entity(handler: Handler) -> KeyedPass:
    """Compile the end of a stream whose items become messages."""
    scalar = handler.params[0].annotation if handler.arity and handler.scalar else None

    def without_item(keys: list[str], items: list[Any]) -> list[Columns]:
        return [(handler, keys, ())]

    def with_item(keys: list[str], items: list[Any]) -> list[Columns]:
        # One look at all items; at each by itself only if one is unlike the rest, or too large.
        if scalar is not None and set(map(type, items)) == {scalar} and _fit(items):
            return [(handler, keys, items)]
        return [(handler, keys, handler.column([handler.bind((item,), {}) for item in items]))]

    return with_item if handler.arity else without_item


def _fit(items: list[Any]) -> bool:
    """Tell whether messages can carry these scalars, which are of one type."""
    try:
        size = len(_encode(items))  # The quickest look at all of them: 2 to 4 ns an item.
    except (ValueError, OverflowError):
        return False
    return size <= LARGE or type(items[0]) not in (str, bytes) or max(map(len, items)) <= LARGE
