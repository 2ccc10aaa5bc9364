"""Streams: a source, pure stages, and the entities or sinks that the items go to.

A pipeline is compiled, not interpreted: for a batch of items each stage is one pass over a
list, so that nothing of ours runs per item. What comes out are columns: for each end of the
pipeline its handler, the keys and the arguments; or its exit, the keys and the items' bytes.

Pure but for the user's functions. Idea: docs/clients.md, "Sources".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from inspect import Parameter
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    NamedTuple,
    Protocol,
    TypeVar,
    overload,
    runtime_checkable,
)

import msgspec

from skerry.entity import Entity
from skerry.errors import BadApp
from skerry.handler import Handler
from skerry.limits import LARGE, check_keys

if TYPE_CHECKING:
    from skerry.output import Outlet

_encode = msgspec.msgpack.Encoder().encode

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)
U = TypeVar("U")
E = TypeVar("E", bound=Entity)


class BadRow(NamedTuple):
    """What a source found where an item should be. Alone in its batch, it becomes a dead letter."""

    raw: bytes
    error: str
    """Where it is, and what is wrong with it."""


@runtime_checkable
class Source(Protocol[T_co]):
    """Where items come from: partitioned and replayable.

    `read` must be repeatable: the same positions give the same items, whenever and however
    often it is asked. Positions are what msgpack carries: ints, strings, lists of them.
    A source may also offer `batches(partition, after, size)` when it never blocks: an iterator of
    (positions, items), two sequences of one length; and `size(partition)`, in units of its
    positions (of lists: of what is first in them), for the progress bar.
    """

    def partitions(self) -> Iterable[str]:
        """The names of the parts that can be read apart from each other."""
        ...

    def read(self, partition: str, after: Any) -> Iterator[tuple[Any, T_co]]:
        """(position, item) of a partition, in order, behind `after`; None: from the beginning."""
        ...


@runtime_checkable
class Sink(Protocol[T_contra]):
    """Where items go. One sink object is used by one thread at a time."""

    def write(self, partition: str, sequence: int, items: Sequence[T_contra], /) -> None:
        """Keep these items; when this returns they are safe, and not handed over again.

        Args:
            partition: "0", "1", …: items of one entity, or of one key or partition of a source,
                always come in the same one, in order.
            sequence: the number of the first item. The next call goes on behind the last one,
                or, after a crash, at an item that was handed over before: drop those.
            items: at least one.

        What it raises is tried again after a while, for ever; other sinks go on.

        A sink that can't write every item may also offer `check(item)`, which raises TypeError or
        ValueError for those that it never will, and does nothing else. They are refused in `emit`;
        of what stages or sources give to it, they are dead letters.
        """
        ...


class Exit(NamedTuple):
    """Where a stream ends in a sink."""

    output: str
    partitions: int
    sink: int
    """Its place among the output's sinks."""


Columns = tuple[Handler | Exit, list[str], Sequence[Any]]
"""(where to, keys, a column of arguments as `Handler.column` has it or of items' bytes). Keys of
messages are not looked at yet: a key that is known was, and most are (`check_keys`)."""
Stage = Callable[[list[Any]], list[Columns]]
KeyedStage = Callable[[list[str], list[Any]], list[Columns]]


class Root(Protocol):
    """Where a stream comes from: it says where one may end."""

    def end(self, sink: object, item: Any, stream: object) -> KeyedStage:
        """The last stage of this stream, to a sink of items of this type; keys: none, or of each.
        Raises BadApp."""
        ...

    def keyed(self) -> Pipeline:
        """The pipeline whose items may become messages. Raises BadApp: these may not."""
        ...


class Pipeline:
    """A source, and what its items become."""

    def __init__(
        self, name: str, source: Source[Any], way_out: Callable[[str, object], Outlet]
    ) -> None:
        self.name, self.source = name, source
        self.stream: Stream[Any] = Stream(self)
        self.targets: list[Handler] = []
        """The handlers that items are messages to."""
        self._way_out = way_out
        self._sinks = 0

    def end(self, sink: object, item: Any, stream: object) -> KeyedStage:
        """See `Root`. Each sink has an output of its own, that the items are put on."""
        outlet = self._way_out(f"{self.name} sink {self._sinks}", sink)
        self._sinks += 1
        leave = Exit(outlet.output.name, outlet.output.partitions, 0)
        return lambda keys, items: [(leave, keys, list(map(outlet.emitted, items)))]

    def keyed(self) -> Pipeline:
        """See `Root`."""
        return self

    def apply(self, items: Sequence[Any]) -> list[Columns]:
        """The messages of these items, a (handler, keys, arguments) per end of the pipeline."""
        return self.stream._apply(items if isinstance(items, list) else list(items))


class Stream(Generic[T]):
    """Items on their way. Each method adds a stage; one stream may feed several."""

    def __init__(self, root: Root, item: Any = Any) -> None:
        self._stages: list[Stage] = []
        self._root, self._item = root, item

    def _apply(self, items: list[Any]) -> list[Columns]:
        if len(self._stages) == 1:
            return self._stages[0](items)
        return [columns for stage in self._stages for columns in stage(items)]

    def map(self, function: Callable[[T], U]) -> Stream[U]:
        """Each item becomes `function(item)`."""
        following: Stream[U] = Stream(self._root)
        self._stages.append(lambda items: following._apply(list(map(function, items))))
        return following

    def filter(self, test: Callable[[T], object]) -> Stream[T]:
        """Only items that pass the test."""
        following: Stream[T] = Stream(self._root, self._item)
        self._stages.append(lambda items: following._apply(list(filter(test, items))))
        return following

    def flat_map(self, function: Callable[[T], Iterable[U]]) -> Stream[U]:
        """Each item becomes any number of items."""
        following: Stream[U] = Stream(self._root)
        self._stages.append(
            lambda items: following._apply([out for item in items for out in function(item)])
        )
        return following

    def sink(self, sink: Sink[T], /) -> None:
        """Items end here: the sink is handed them, numbered; those of a source, by its partitions.

        An output or source may have several sinks; each has numbers of its own, by its place.
        Add new ones behind the others.
        """
        leave = self._root.end(sink, self._item, self)
        self._stages.append(lambda items: leave([], items))

    def key_by(self, key: Callable[[T], str]) -> Keyed[T]:
        """Say which key each item belongs to."""
        following: Keyed[T] = Keyed(self._root.keyed())
        self._stages.append(lambda items: following._apply(list(map(key, items)), items))
        return following


class Keyed(Generic[T]):
    """Items with a key, which they keep through the stages."""

    def __init__(self, root: Pipeline) -> None:
        self._stages: list[KeyedStage] = []
        self._root = root

    def _apply(self, keys: list[str], items: list[Any]) -> list[Columns]:
        if len(self._stages) == 1:
            return self._stages[0](keys, items)
        return [columns for stage in self._stages for columns in stage(keys, items)]

    def map(self, function: Callable[[T], U]) -> Keyed[U]:
        """Each item becomes `function(item)`, under the same key."""
        following: Keyed[U] = Keyed(self._root)
        self._stages.append(lambda keys, items: following._apply(keys, list(map(function, items))))
        return following

    def filter(self, test: Callable[[T], object]) -> Keyed[T]:
        """Only items that pass the test."""
        following: Keyed[T] = Keyed(self._root)

        def stage(keys: list[str], items: list[Any]) -> list[Columns]:
            passed = [(key, item) for key, item in zip(keys, items) if test(item)]
            return following._apply([key for key, _ in passed], [item for _, item in passed])

        self._stages.append(stage)
        return following

    def flat_map(self, function: Callable[[T], Iterable[U]]) -> Keyed[U]:
        """Each item becomes any number of items, under the same key."""
        following: Keyed[U] = Keyed(self._root)

        def stage(keys: list[str], items: list[Any]) -> list[Columns]:
            made = [(key, out) for key, item in zip(keys, items) for out in function(item)]
            return following._apply([key for key, _ in made], [out for _, out in made])

        self._stages.append(stage)
        return following

    def sink(self, sink: Sink[T], /) -> None:
        """Items end here, as with `Stream.sink`; those of one key in the same partition.

        Items of one key keep the order that they had in their source's partition.
        """
        leave = self._root.end(sink, Any, self)

        def stage(keys: list[str], items: list[Any]) -> list[Columns]:
            check_keys(keys)
            return leave(keys, items)

        self._stages.append(stage)

    @overload
    def to(self, handler: Callable[[E, T], object], /) -> None: ...
    @overload
    def to(self, handler: Callable[[E], object], /) -> None: ...
    def to(self, handler: Callable[..., object], /) -> None:
        """Each item is a message to the entity with its key: `to(Word.seen)`.

        Args:
            handler: a method of an entity class, of no argument or of one, the item.

        Raises:
            TypeError: not a public handler, or of other arguments.
        """
        found = _handler_of(handler)
        self._root.targets.append(found)
        scalar = found.params[0].annotation if found.arity and found.scalar else None

        def without_item(keys: list[str], items: list[Any]) -> list[Columns]:
            return [(found, keys, ())]

        def with_item(keys: list[str], items: list[Any]) -> list[Columns]:
            # One look at all items; at each by itself only when one is unlike, or does not fit.
            if scalar is not None and set(map(type, items)) == {scalar} and _fit(items):
                return [(found, keys, items)]
            return [(found, keys, found.column([found.bind((item,), {}) for item in items]))]

        self._stages.append(with_item if found.arity else without_item)


def _fit(items: list[Any]) -> bool:
    """Whether scalars of one type are such as messages carry."""
    try:
        size = len(_encode(items))  # The quickest look at all of them: 2 to 4 ns an item.
    except (ValueError, OverflowError):
        return False
    return size <= LARGE or type(items[0]) not in (str, bytes) or max(map(len, items)) <= LARGE


def _handler_of(function: Any) -> Handler:
    name = getattr(function, "__name__", repr(function))
    owner = getattr(function, "__qualname__", "").rpartition(".")[0].rpartition(".")[2]
    for cls in _entity_classes(Entity):
        made = cls.__skerry__.handlers.get(name)
        if made is not None and getattr(cls, name) is function:
            if made.private or made.query:
                raise TypeError(f"`to` takes a public handler that is no query, not {owner}.{name}")
            if made.arity > 1 or (
                made.arity == 1 and made.params[0].default is not Parameter.empty
            ):
                raise TypeError(
                    f"`to` takes a handler of no argument, or of one (the item) without a default; "
                    f"{made.entity}.{name} has {made.arity}"
                )
            return made
    raise TypeError(f"`to` takes a handler of an entity class, as `to(Word.seen)`, not {name}")


def _entity_classes(cls: type[Entity]) -> Iterator[type[Entity]]:
    for sub in cls.__subclasses__():
        if hasattr(sub, "__skerry__"):  # One that was refused may not be gone yet.
            yield sub
            yield from _entity_classes(sub)


def check_source(source: object) -> None:
    """Refuse what is no source. Raises BadApp."""
    if not isinstance(source, Source):
        raise BadApp(
            f"app.source takes a source with `partitions` and `read`, as TextFiles(…), not {source!r:.100}"
        )
