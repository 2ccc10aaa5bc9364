"""What the worker needs from the outside, each with its promise.

A shard asks `Committed` one kind of question and no other. `Store` is what a worker
(or the simulator) keeps a shard's commits in.

Imports the core's vocabulary only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from skerry.runtime.core.events import Commit


class Committed(Protocol):
    """The newest sealed rows: those of every commit given to `append`, durable or not."""

    def state(self, type: str, key: str) -> bytes | None:
        """The state of an entity, or None when it has none. Raises StoreDamaged on a bad checksum."""
        ...

    def states_at(self, type: str, keys: Sequence[str], slots: Sequence[int]) -> list[bytes | None]:
        """The same for many entities of a type, each with its slot."""
        ...

    def read(self, table: int, key: bytes) -> bytes | None:
        """One row of any table but STATE."""
        ...

    def scan(
        self, table: int, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Rows of a table (not STATE) whose keys begin with `prefix` and are greater than `after`, in
        order of key."""
        ...

    def states(self, type: str, prefix: str = "", after: str = "") -> Iterator[tuple[str, bytes]]:
        """(key, state) of a type, keys beginning with `prefix` and greater than `after`.

        In order of (slot, key): `after` is a key of an earlier answer and continues behind it."""
        ...


class Last(Struct, frozen=True):
    """The newest commit that a store holds; all zero in a new one."""

    no: int = 0
    checksum: int = 0
    epoch: int = 0
    time_ns: int = 0


class Store(Committed, Protocol):
    """A shard's log and rows."""

    last: Last

    def append(self, commit: Commit) -> None:
        """Visible to reads at once, durable later and in order. Never blocks on the disk."""
        ...

    def durable(self) -> int:
        """The newest durable commit. Raises what the disk raised."""
        ...

    def keep(self, no: int) -> None:
        """Keep the rows as they are durable now, for a backup; what was kept before is let go.

        They may be a few commits ahead of what `durable` has said, never behind it.
        """
        ...

    def close(self) -> None:
        """Wait until all is durable, and let go."""
        ...
