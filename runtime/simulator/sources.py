"""Simulated reading: the app's own sources, a few items at a time, and now and then read again.

A port of the driver. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

from skerry.runtime.core.events import Items
from skerry.stream.ends import BadRow

ITEMS_MAX = 5
"""Items that are read of a partition at once."""


class Reader:
    """A source partition as it is being read."""

    def __init__(self, source: Any, partition: str, after: Any) -> None:
        self._source, self._partition = source, partition
        self.start_at(after)

    def start_at(self, after: Any) -> None:
        """Read on behind this position."""
        self.position, self.ended = after, False
        self._items: Iterator[tuple[Any, Any]] = iter(self._source.read(self._partition, after))

    def next(self, items_max: int) -> tuple[list[Any], list[Any]]:
        """Positions and items: fewer at the end, and around a bad row, which comes alone."""
        batch: list[tuple[Any, Any]] = []
        for found in islice(self._items, items_max):
            bad = type(found[1]) is BadRow
            if bad and batch:
                self._items = chain([found], self._items)
                break
            batch.append(found)
            if bad:
                break
        self.ended = not batch
        positions, items = [position for position, _ in batch], [item for _, item in batch]
        if positions:
            self.position = positions[-1]
        return positions, items


class Sources:
    """The partitions that one shard reads."""

    failure: Exception | None = None
    """A source that raises ends the simulation."""
    skipped = 0

    def __init__(self, rng: random.Random, repeat: float) -> None:
        self._rng, self._repeat = rng, repeat
        self._readers: dict[tuple[str, str], Reader] = {}
        self.items = 0

    def open(self, name: str, source: Any, partition: str, after: Any) -> None:
        """Read a partition from now on."""
        assert (name, partition) not in self._readers, "a partition is read once"
        self._readers[name, partition] = Reader(source, partition, after)

    def close(self, name: str, partition: str) -> None:
        """Read a partition no longer."""
        del self._readers[name, partition]

    @property
    def finished(self) -> bool:
        """Whether every partition has been read to its end."""
        return all(reader.ended for reader in self._readers.values())

    @property
    def inline(self) -> bool:
        """Whether some partition can be read at once."""
        return not self.finished

    def next(self, items_max: int) -> Iterator[Items]:
        """Yield a few items of each partition, and some of them again, as a reader that was ahead
        and reads on from where it thinks it stands."""
        for (source, partition), reader in self._readers.items():
            after = reader.position
            positions, items = reader.next(self._rng.randint(1, max(1, min(items_max, ITEMS_MAX))))
            if items:
                self.items += len(items)
                read = Items(source, partition, after, positions, items)
                yield read
                if self._rng.random() < self._repeat:
                    yield read

    def rewind(self, source: str, partition: str, after: Any) -> None:
        """Read on behind another position."""
        self._readers[source, partition].start_at(after)

    def progress(self) -> None:
        """Nobody looks at it."""
