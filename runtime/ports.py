"""The ports: what core, worker and supervisor need from the outside, each with its promise.

A shard asks `Committed` one kind of question and no other. `Store` is what a worker
(or the simulator) keeps a shard's commits in. `Coordinator` is what a supervisor asks
whether it may run an app, and who serves which slots.

Imports the vocabulary only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from skerry.runtime.core.events import Commit
from skerry.runtime.description import Description, Running


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


class Coordinator(Protocol):
    """What all processes of an app agree on, and who may change it.

    Three things are kept, each replaced as a whole. The lease says who runs the app: one process at
    most, and only that one changes the others. The description says what the app is and, in its
    placement, which shard serves a slot. The announcement says where the shards are reached, while
    the app runs.
    """

    def acquire(self) -> None:
        """Take the lease. It lasts until `release`, or until this process ends in whatever way.

        Raises StoreLocked: another process holds it.
        """
        ...

    def holds(self) -> bool:
        """Whether the lease still guards what it was taken for. If somebody has removed or replaced
        that, nothing there is ours to change."""
        ...

    def release(self) -> None:
        """Give the lease back."""
        ...

    def read(self) -> Description | None:
        """The newest description; None: the app was never started. Raises StoreDamaged."""
        ...

    def replace(self, new: Description, *, generation: int) -> None:
        """Put a description in the place of the one of this generation (0: there is none), durably.

        Raises SkerryError: another one is there by now, or the new one could not be written. Then
        nothing has changed.
        """
        ...

    def announce(self, running: Running) -> None:
        """Tell clients and workers where the shards are reached, instead of what was told before."""
        ...

    def withdraw(self) -> None:
        """Tell them that nobody runs the app."""
        ...

    def last_running(self) -> Running | None:
        """The last announcement that was not withdrawn; None: there is none that can be read. Its
        process may have been killed since."""
        ...
