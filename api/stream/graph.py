"""The graph of an app's streams: frozen nodes, each with a stable name.

    FromSource ─┬─ Map, Filter, FlatMap ─── KeyBy ─── Map, Filter, FlatMap ─┬─ ToEntity
    FromOutput ─┘           └─ ToSink                                      └─ ToSink

A node names its input. So a graph can be compiled, checked and drawn, and nothing of the
program's runs for it. Whatever a node keeps in the store is kept under its name, which is unique
in the app: given by the program, or made of its root's name, its kind and its number among those
of its kind behind that root: "TextFiles-0 map 1".

Pure data; knows nothing of how items are run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

from skerry.errors import BadApp
from skerry.handler import Handler
from skerry.stream.outputs import NAME_CHARS_MAX, Output


class Node(Struct, frozen=True, kw_only=True):
    """A node of the graph."""

    name: str


class FromSource(Node, frozen=True, kw_only=True):
    """A source, whose items flow."""

    source: Any


class FromOutput(Node, frozen=True, kw_only=True):
    """An output: the items that entities emit to it flow."""

    output: Output[Any]


class Stage(Node, frozen=True, kw_only=True):
    """A node with an input."""

    input: str
    """The name of the node whose items come in."""


class Map(Stage, frozen=True, kw_only=True):
    """Each item becomes another."""

    function: Callable[[Any], Any]


class Filter(Stage, frozen=True, kw_only=True):
    """Items that pass a test go on."""

    test: Callable[[Any], object]


class FlatMap(Stage, frozen=True, kw_only=True):
    """Each item becomes any number of items."""

    function: Callable[[Any], Any]


class KeyBy(Stage, frozen=True, kw_only=True):
    """Each item gets a key, which it keeps from here on."""

    key: Callable[[Any], str]


class ToEntity(Stage, frozen=True, kw_only=True):
    """Each item becomes a message to the entity with its key."""

    handler: Handler


class ToSink(Stage, frozen=True, kw_only=True):
    """Items leave the app."""

    sink: Any


KINDS: dict[type[Stage], str] = {
    Map: "map",
    Filter: "filter",
    FlatMap: "flat_map",
    KeyBy: "key_by",
    ToEntity: "to",
    ToSink: "sink",
}
"""The kinds of stages, as names are made of them."""


class Graph:
    """The nodes of one app, in the order in which the program declared them.

    Args:
        app: the app's name, for error messages.
    """

    def __init__(self, app: str) -> None:
        self._app = app
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> None:
        """Add a node whose name is complete. Raises BadApp: the name is taken."""
        if node.name in self.nodes:
            raise BadApp(
                f"App {self._app}: two of its sources, outputs and stages are called "
                f"{node.name!r}. Give one another name."
            )
        self.nodes[node.name] = node

    def add_stage(self, kind: type[Stage], *, input: str, name: str | None, **fields: Any) -> str:
        """Add a stage behind a node.

        Args:
            kind: the class of the stage.
            input: the name of the node before it.
            name: the stage's name; None to make one.
            **fields: the stage's own fields.

        Returns:
            The name of the stage.

        Raises:
            BadApp: a name that is taken, or can't be one.
        """
        if name is None:
            name = self._made_name(kind, input)
        elif not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX:
            raise BadApp(
                f"App {self._app}: a stage's name is 1 to {NAME_CHARS_MAX} characters, not {name!r}."
            )
        self.add(kind(name=name, input=input, **fields))
        return name

    def _made_name(self, kind: type[Stage], input: str) -> str:
        root = self.root_of(input).name
        # A stage with a name of its own counts, too: to name one renames no other.
        number = sum(type(node) is kind for node in self.behind(root))
        return f"{root} {KINDS[kind]} {number}"

    def root_of(self, name: str) -> Node:
        """Return the source or output that a node's items come from."""
        node = self.nodes[name]
        while isinstance(node, Stage):
            node = self.nodes[node.input]
        return node

    def after(self, name: str) -> list[Stage]:
        """Return the stages that take a node's items."""
        stages = (node for node in self.nodes.values() if isinstance(node, Stage))
        return [stage for stage in stages if stage.input == name]

    def behind(self, root: str) -> Iterator[Stage]:
        """Iterate over all stages that a root's items come to."""
        for node in self.nodes.values():
            if isinstance(node, Stage) and self.root_of(node.name).name == root:
                yield node
