"""The ports: what core, worker and supervisor need from the outside, each with its promises.

A port is what its users call, and no more. Adapters live in the room of their technology, and
each passes the tests of its port: `tests/ports`.

Imports the vocabulary only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from skerry.errors import StoreDamaged, Unavailable
from skerry.runtime.core.commit import Decoded
from skerry.runtime.core.events import SLOTS, Commit
from skerry.runtime.description import Description, Running


class Last(Struct, frozen=True):
    """The newest commit of a log or store; all zero when there is none."""

    no: int = 0
    checksum: int = 0
    epoch: int = 0
    time_ns: int = 0


# ── a shard's log ──


class LogDamaged(StoreDamaged):
    """A log in a cluster does not hold what was written. What lies on this host can't mend it."""


class LogSnapshot(Protocol):
    """A log as it was at one moment. It stays readable while the log goes on, rolls and trims."""

    @property
    def no(self) -> int:
        """The newest commit of that moment."""
        ...

    def copy(self, folder: Path) -> int:
        """Copy it into a store's folder, synced; return how many bytes. Any thread may call this.

        Raises StoreDamaged: the log can't be read; OSError: the copy can't be written.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Log(Protocol):
    """A shard's commit records, in the order of their numbers.

    Prefix-durable: whatever crashes, `replay` yields every record that was synced, then perhaps
    some of those that were appended after them, without a gap. What was synced and is damaged
    raises StoreDamaged and is never skipped, nor cut off.

    Fenced: while one process has the log open, no other can append to it.

    Opened by a token and by the commit that the oldest record follows; the rows stand in the tree
    beside both, and so can't be of another time than the log. An `append` or `sync` that raises
    ends the log's use: a second try could claim success.

    Called by one thread at a time, but for `last`, `bytes` and `hold`.
    """

    @property
    def last(self) -> Last:
        """The newest record that was replayed or appended."""
        ...

    @property
    def size_bytes(self) -> int:
        """What the log takes of the disk quota."""
        ...

    def replay(self) -> Iterator[Decoded]:
        """Yield every record, verified; called once, before all else. Changes nothing. Raises
        StoreDamaged."""
        ...

    def resume(self) -> None:
        """Make durable what was replayed. Appends may follow."""
        ...

    def append(self, waiting: Sequence[bytes], *, sync: bool) -> None:
        """Append records, at least one; with `sync` they are durable when this returns.

        A log is always synced in the same way: all appends with `sync`, or none.
        """
        ...

    def sync(self) -> None:
        """Make durable all that was appended."""
        ...

    def prepare_roll(self) -> bytes:
        """Sync, and prepare to roll: to go on at a place that `trim` can cut at.

        Returns the token by which the log opens once it has rolled. Its owner makes the token
        durable and then calls `roll`, before it appends more. After a crash in between, either
        token opens the log.
        """
        ...

    def roll(self) -> None:
        """Go on at the prepared place."""
        ...

    @property
    def boundary(self) -> Last:
        """The newest record before the place that the log last rolled to."""
        ...

    def trim(self) -> None:
        """Drop the records up to `boundary`. Their rows are durable elsewhere, and that the log
        follows that commit is durable beside its token."""
        ...

    def hold(self) -> LogSnapshot:
        """Hold all that is appended now. Any thread may call this, but not during `roll` or
        `trim`."""
        ...

    def close(self) -> None:
        """Sync, and let go."""
        ...


# ── a shard's rows ──

EVERY_SLOT = range(SLOTS)


class Committed(Protocol):
    """The newest sealed rows: those of every commit given to `append`, durable or not."""

    def state(self, type: str, key: str) -> bytes | None:
        """Return an entity's state, or None when it has none. Raises StoreDamaged."""
        ...

    def states_at(self, type: str, keys: Sequence[str], slots: Sequence[int]) -> list[bytes | None]:
        """Return the states of entities of a type, each given with its slot. Raises
        StoreDamaged."""
        ...

    def read(self, table: int, key: bytes) -> bytes | None:
        """Return one row of any table but STATE. Raises StoreDamaged."""
        ...

    def scan(
        self, table: int, prefix: bytes = b"", after: bytes = b""
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the rows of a table (not STATE) whose keys begin with `prefix` and are greater than
        `after`, in order of key."""
        ...

    def states(
        self, type: str, prefix: str = "", after: str = "", slots: Sequence[int] = EVERY_SLOT
    ) -> Iterator[tuple[str, bytes]]:
        """Yield (key, state) of a type in slots, which ascend, in order of (slot, key); keys begin
        with `prefix`.

        `after` is a key of an earlier answer, and the states behind it follow. A page costs what
        is on it, however many rows the store holds.
        """
        ...


class Copied(Struct, array_like=True, frozen=True):
    """A finished copy of a store."""

    commit: int
    """Its newest commit."""
    size: int
    """Bytes."""


class Store(Committed, Protocol):
    """A shard's log and rows. One thread calls it, but for the copying."""

    last: Last
    """The newest commit when the store was opened."""

    def append(self, commit: Commit) -> None:
        """Make a commit visible to reads at once, and durable later, in order. Never waits for a
        sync."""
        ...

    def durable(self) -> int:
        """Return the newest durable commit. Raises what ended the store's use."""
        ...

    @property
    def backlog(self) -> tuple[int, int]:
        """How many commits and bytes were not durable yet when `durable` was last called, and were
        appended since."""
        ...

    @property
    def nearly_full(self) -> bool:
        """Whether most of the disk quota is used, so intake from outside should pause."""
        ...

    @property
    def used_bytes(self) -> int:
        """What the rows take on the disk, about."""
        ...

    def keep(self, no: int) -> None:
        """Keep the rows as they are durable now, for backup `no`, in place of any kept before.

        They may be a few commits ahead of what `durable` has said, never behind it.
        """
        ...

    def close(self) -> None:
        """Wait until all is durable, and let go. Raises what ended the store's use."""
        ...


class WorkerStore(Store, Protocol):
    """A store that is copied for backups."""

    def copy_kept(self, no: int, folder: Path) -> Callable[[], Copied]:
        """Return what copies the rows kept for backup `no` into a new folder, on any thread.

        Raises SkerryError: nothing is kept for it any more.
        """
        ...


# ── an app's processes ──


class Interrupted(Unavailable):
    """Somebody wants the process to end, while it waited to run the app. Nothing was changed."""


class Deposed(Unavailable):
    """Another host changes what hosts agree on by now. Nothing was changed."""


class Coordinator(Protocol):
    """Keeps what all processes of an app agree on, and lets one of them change it.

    Three things are kept, each replaced as a whole. The lease says who runs the app: one process at
    most, and only that one changes the others. The description says what the app is and, in its
    placement, which shard serves a slot. The announcement says where the shards are reached, while
    the app runs.
    """

    def acquire(self) -> None:
        """Take the lease. It lasts until `release`, or until this process ends in whatever way.

        Where an app has several hosts, this waits while another one holds it; and a process that is
        silent for the time of a lease loses it.

        Raises StoreLocked: another process uses this data directory.
        """
        ...

    def holds(self) -> bool:
        """Whether the lease still guards what it was taken for. If somebody has removed or replaced
        that, nothing there is ours to change."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the lease is another's by now, or gone: it will not hold again. While nobody can be
        asked, a lease may neither hold nor be lost."""
        ...

    @property
    def until_ns(self) -> int:
        """Up to when nobody else can have taken the lease: ns since this machine started, including
        the time that it slept."""
        ...

    @property
    def leads(self) -> bool:
        """Whether this process changes the description, as far as it knows: of several hosts that hold
        a lease, one does."""
        ...

    @property
    def secret(self) -> str:
        """What the app's processes prove themselves to each other by."""
        ...

    @property
    def host(self) -> str:
        """The name of this host; empty: there is no other."""
        ...

    @property
    def nonce(self) -> str:
        """What tells this process from others of the same host."""
        ...

    def newest(self) -> Description | None:
        """The newest description by another process that this one has heard of, without asking; None:
        none. Raises StoreDamaged."""
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
