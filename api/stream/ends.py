"""Source and Sink: what the two ends of a stream promise.

Programs may bring their own of either; `skerry.sources` and `skerry.sinks` hold ready-made ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


@runtime_checkable
class Source(Protocol[T_co]):
    """A partitioned, replayable origin of items.

    A source may also offer these. `batches(partition, after, size)`, for a source that never
    blocks, iterates over (positions, items): two sequences of one length, at most `size`.
    `size(partition)` tells the progress bar how large a partition is, in units of its positions
    (of the first part, if positions are lists), or None. `item_type` is the type of its items, for
    stages that have no annotation to tell it, such as `reduce`.

    Example:
        >>> class Countdown:
        ...     def partitions(self) -> list[str]:
        ...         return ["0"]
        ...
        ...     def read(self, partition: str, after: int | None) -> Iterator[tuple[int, int]]:
        ...         for position in range(0 if after is None else after + 1, 10):
        ...             yield position, 10 - position
    """

    def partitions(self) -> Iterable[str]:
        """Return the names of the parts that can be read independently of each other."""
        ...

    def read(self, partition: str, after: Any) -> Iterator[tuple[Any, T_co]]:
        """Iterate over a partition's (position, item) pairs, in order.

        Reading must be repeatable: a position gives the same item, whenever and however often it
        is read.

        Args:
            partition: one of `partitions()`.
            after: the position of the last item that was read before; None to begin at the
                first. A position is anything that msgpack carries: an int, a str, a list of them.
        """
        ...


class BadRow(NamedTuple):
    """Stands in a source's batch, alone, for a row that is no item; it becomes a dead letter."""

    raw: bytes
    """The row, or its beginning."""
    error: str
    """Where the row is, and what is wrong with it."""


@runtime_checkable
class Sink(Protocol[T_contra]):
    """A destination of items. One sink object is used by one thread at a time.

    A sink that can't write every item may also offer `check(item)`, which does nothing but raise
    TypeError or ValueError for an item that the sink will never write. `emit` refuses such an
    item; one that a stage or source makes becomes a dead letter.

    Example:
        >>> class Shelf:
        ...     def __init__(self) -> None:
        ...         self.rows: dict[tuple[str, int], object] = {}
        ...
        ...     def write(self, partition: str, sequence: int, items: Sequence[object], /) -> None:
        ...         for number, item in enumerate(items, sequence):
        ...             self.rows[partition, number] = item
    """

    def write(self, partition: str, sequence: int, items: Sequence[T_contra], /) -> None:
        """Store items durably; when this returns they are not handed over again.

        An exception makes skerry call again, later and without end; other sinks go on meanwhile.

        Args:
            partition: "0", "1", …: the items of one entity, of one key, or of one partition of a
                source always come in the same one, in order.
            sequence: the number of the first item. The next call goes on behind the last item,
                or, after a crash, with items that were handed over before: drop those.
            items: at least one.
        """
        ...
