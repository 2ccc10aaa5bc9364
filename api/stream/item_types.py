"""What the items of a stage are, as far as the program says so in annotations.

Messages carry plain values, and a handler's annotations say what they become again. A `reduce`
has no annotations: its items are what the stage before it gives. So `map(parse)` with
`def parse(line: str) -> Trade` brings trades to it, also from another shard; behind a function
without annotations items are plain values.

Pure; calls nothing of the program.
"""

from __future__ import annotations

import collections.abc
import functools
import operator
import types
import typing
from typing import Any, Union

import msgspec

from skerry.annotations import refuse_custom, returned
from skerry.stream.graph import (
    Branch,
    Filter,
    FlatMap,
    FromOutput,
    FromSource,
    Graph,
    KeyBy,
    Map,
    Merge,
    Node,
    Reduce,
    Side,
    ToEntity,
)

_ITERABLES = frozenset(
    {
        list,
        tuple,
        set,
        frozenset,
        collections.abc.Iterable,
        collections.abc.Iterator,
        collections.abc.Generator,
        collections.abc.Sequence,
        collections.abc.Collection,
    }
)


def item_type(graph: Graph, name: str) -> Any:
    """Return the type of the items that leave a node; Any where nothing says it."""
    try:
        found = _of(graph, graph.nodes[name])
        msgspec.msgpack.Decoder(found)
        refuse_custom(found, "items")
    except Exception:  # It can't travel: plain values can, and a handler says what does not fit.
        return Any
    return found


def _of(graph: Graph, node: Node) -> Any:
    match node:
        case FromSource(source=source):
            return getattr(source, "item_type", Any)
        case FromOutput(output=output):
            return output.item_type
        case Map(function=function):
            return returned(function)
        case FlatMap(function=function):
            return _each_of(returned(function))
        case ToEntity(handler=handler):
            return _without_none(handler.returns)
        case Reduce(start=start):
            return value_type(start)
        case Merge(input=one, other=other):
            return _either(_of(graph, graph.nodes[one]), _of(graph, graph.nodes[other]))
        case Filter(input=before) | KeyBy(input=before) | Branch(input=before) | Side(input=before):
            return _of(graph, graph.nodes[before])
    return Any


def _each_of(made: Any) -> Any:
    if typing.get_origin(made) not in _ITERABLES:
        return Any
    parts = typing.get_args(made)
    return parts[0] if len(parts) in (1, 3) or parts[1:] == (...,) else Any


def _without_none(made: Any) -> Any:
    if typing.get_origin(made) not in (Union, types.UnionType):
        return made
    return _either(*(part for part in typing.get_args(made) if part is not type(None)))


def _either(*parts: Any) -> Any:
    return functools.reduce(operator.or_, parts) if parts and Any not in parts else Any


def value_type(start: Any) -> Any:
    """Return the type that a value of `reduce` is kept as: that of its start.

    Numbers may turn from whole into others, and lists and dicts hold plain values.
    """
    return Any if isinstance(start, int | float | str | list | dict | None) else type(start)
