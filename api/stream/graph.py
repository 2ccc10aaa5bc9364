"""The graph of an app's streams: frozen nodes, each with a stable name.

    FromSource ─┬─ Map, Filter, FlatMap, … ─── KeyBy ─── … ─── ToEntity, Reduce ─── … ─── ToSink
    FromOutput ─┘           └─ ToSink                 └─ ToSink
    FromChanges ────────────────────────────────────────┘

A node names its input. So a graph can be compiled, checked and drawn, and nothing of the
program's runs for it. Whatever a node keeps in the store is kept under its name, which is unique
in the app: given by the program, or made of its root's name, its kind and its number among those
of its kind behind that root: "TextFiles-0 map 1".

Pure data; knows nothing of how items are run.
"""

from __future__ import annotations

from collections.abc import Callable
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


class FromChanges(Node, frozen=True, kw_only=True):
    """The committed changes of an entity type, each under the entity's key."""

    entity: str


class Stage(Node, frozen=True, kw_only=True):
    """A node with an input."""

    input: str
    """The name of the node whose items come in."""
    root: str
    """The name of the source or output that the items come from; of two that are merged, the first."""


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


class Merge(Stage, frozen=True, kw_only=True):
    """Items of two nodes flow on together."""

    other: str
    """The name of the second node whose items come in."""


class Branch(Stage, frozen=True, kw_only=True):
    """A test of each item, whose two results are two `Side`s."""

    test: Callable[[Any], object]


class Side(Stage, frozen=True, kw_only=True):
    """Items with one result of their `Branch`'s test go on."""

    passed: bool


class ToEntity(Stage, frozen=True, kw_only=True):
    """Each item becomes a message to the entity with its key; its reply is the next item."""

    handler: Handler


class Reduce(Stage, frozen=True, kw_only=True):
    """Each item changes the value of its key, which is the next item."""

    start: Any
    function: Callable[[Any, Any], Any]
    combine: Callable[[Any, Any], Any] | None


class ToSink(Stage, frozen=True, kw_only=True):
    """Items leave the app."""

    sink: Any


KINDS: dict[type[Stage], str] = {
    Map: "map",
    Filter: "filter",
    FlatMap: "flat_map",
    KeyBy: "key_by",
    Merge: "merge",
    Branch: "branch",
    Side: "side",
    ToEntity: "to",
    Reduce: "reduce",
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
        self._after: dict[str, list[Stage]] = {}
        self._behind: dict[str, list[Stage]] = {}

    def add(self, node: Node) -> None:
        """Add a node whose name is complete. Raises BadApp: the name is taken."""
        if node.name in self.nodes:
            raise BadApp(
                f"App {self._app}: two of its sources, outputs and stages are called "
                f"{node.name!r}. Give one another name."
            )
        self.nodes[node.name] = node
        self._after[node.name] = []
        if isinstance(node, Stage):
            self._after[node.input].append(node)
            if isinstance(node, Merge):
                self._after[node.other].append(node)
            self._behind[node.root].append(node)
        else:
            self._behind[node.name] = []

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
        root = self.root_of(input).name
        if name is None:
            # A stage with a name of its own counts, too: to name one renames no other.
            number = sum(type(stage) is kind for stage in self._behind[root])
            name = f"{root} {KINDS[kind]} {number}"
        elif not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX:
            raise BadApp(
                f"App {self._app}: a stage's name is 1 to {NAME_CHARS_MAX} characters, not {name!r}."
            )
        self.add(kind(name=name, input=input, root=root, **fields))
        return name

    def root_of(self, name: str) -> Node:
        """Return the source or output that a node's items come from."""
        node = self.nodes[name]
        return self.nodes[node.root] if isinstance(node, Stage) else node

    def after(self, name: str) -> list[Stage]:
        """Return the stages that take a node's items, in the order of their declaration."""
        return self._after[name]

    def behind(self, root: str) -> list[Stage]:
        """Return all stages whose root is this source or output."""
        return self._behind[root]
