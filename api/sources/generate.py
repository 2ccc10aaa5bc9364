"""Generate: a source of items that a function makes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Any, Generic, TypeVar

from skerry.annotations import returned
from skerry.sources.lines import Batch

T = TypeVar("T")


class Generate(Generic[T]):
    """A source of items that a function makes, for examples, tests and load.

    Args:
        fn: the function, called as `fn(partition, position)` with the partition's name ("0",
            "1", …) and the position (0, 1, 2, …). It must return the same item each time.
        partitions: the number of partitions.
        count: the number of items in each partition; None for no end.

    Raises:
        TypeError: `fn` is no function, or a number is none.
        ValueError: a number is too small.

    Example:
        >>> app.source(Generate(lambda partition, position: position, count=1000))
    """

    def __init__(
        self, fn: Callable[[str, int], T], partitions: int = 4, count: int | None = None
    ) -> None:
        if not callable(fn):
            raise TypeError(f"Generate: fn is a function of partition and position, not {fn!r:.80}")
        if not isinstance(partitions, int) or not isinstance(count, int | None):
            raise TypeError(
                f"Generate: partitions and count are numbers, not {partitions!r}, {count!r}"
            )
        if partitions < 1 or (count is not None and count < 0):
            raise ValueError(
                f"Generate: partitions is at least 1 and count at least 0, not {partitions}, {count}"
            )
        self._fn, self._partitions, self._count = fn, partitions, count

    @property
    def item_type(self) -> Any:
        """What `fn` is annotated to return."""
        return returned(self._fn)

    def partitions(self) -> list[str]:
        """Return the names of the partitions: "0", "1", …"""
        return [str(number) for number in range(self._partitions)]

    def size(self, partition: str) -> int | None:
        """Return the number of items in a partition; None if it is endless."""
        return self._count

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, T]]:
        """Iterate over (position, item) pairs behind the position `after`."""
        for positions, items in self.batches(partition, after, 1024):
            yield from zip(positions, items)

    def batches(self, partition: str, after: int | None, size: int) -> Iterator[Batch[T]]:
        """Iterate over (positions, items), up to `size` at a time."""
        start = 0 if after is None else after + 1
        while self._count is None or start < self._count:
            end = start + size if self._count is None else min(start + size, self._count)
            positions = range(start, end)
            yield positions, list(map(self._fn, repeat(partition), positions))
            start = end
