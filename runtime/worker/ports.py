"""What the driver of a shard stands on, each port with its promise.

A worker's process has real ports, the simulator has simulated ones. None of them ever blocks.

Imports the core's vocabulary, and the protocol by which callers are answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from skerry.runtime.core.events import Commit, Identity, Items, Reply, Write, Written
from skerry.runtime.gateway.inquiries import Answers
from skerry.runtime.gateway.protocol import Caller


class Commits(Protocol):
    """Where commits go."""

    @property
    def backlog(self) -> tuple[int, int]:
        """Records and bytes that are not durable yet."""
        ...

    @property
    def nearly_full(self) -> bool:
        """Whether most of the quota is used: nothing new should be accepted."""
        ...

    @property
    def used_bytes(self) -> int:
        """What the rows take on the disk, about."""
        ...

    def append(self, commit: Commit, /) -> None:
        """Make a commit visible to reads at once, and durable later, in order. Never blocks."""
        ...

    def durable(self) -> int:
        """Return the newest durable commit. Raises what the disk raised."""
        ...

    def keep(self, no: int, /) -> None:
        """Keep the rows as they are durable now, for the backup of this number."""
        ...


class Packets(Protocol):
    """Where packets to peers go."""

    def send(self, peer: int, raw: bytes, /) -> object:
        """Send a packet, or lose it. Never blocks."""
        ...


class Listener(Answers, Protocol):
    """Where answers to clients go."""

    def replies(self, replies: list[Reply], /) -> None:
        """Tell callers the outcomes of their requests."""
        ...


class Sources(Protocol):
    """The source partitions that this shard reads. Never blocks."""

    items: int
    """Items that were read."""
    failure: Exception | None
    """What a source raised. Nothing is read any more until a partition is rewound."""

    @property
    def inline(self) -> bool:
        """Whether some partition can be read at once."""
        ...

    @property
    def finished(self) -> bool:
        """Whether every partition has been read to its end."""
        ...

    @property
    def skipped(self) -> int:
        """Rows that sources passed over."""
        ...

    def open(self, name: str, source: Any, partition: str, after: Any, /) -> None:
        """Read a partition from now on, behind a position. Raises SkerryError if it is read already."""
        ...

    def close(self, source: str, partition: str, /) -> None:
        """Read a partition no longer."""
        ...

    def next(self, items_max: int, /) -> Iterable[Items]:
        """Read so many items at most."""
        ...

    def rewind(self, source: str, partition: str, after: Any, /) -> None:
        """Read on behind another position."""
        ...

    def progress(self) -> tuple[float, float] | None:
        """Return how much was read, and of how much; None: some source has no size."""
        ...


class Sinks(Protocol):
    """The sinks of the app's outputs. Never blocks."""

    def write(self, write: Write, /) -> None:
        """Hand items to a sink, again and again until it has taken them."""
        ...

    def finished(self) -> Sequence[Written]:
        """Return the writes that have ended since the last call."""
        ...


class Copies(Protocol):
    """Backups of the store that are being copied."""

    def check_room(self) -> None:
        """Raise SkerryError when no other copy may begin now."""
        ...

    def begin(self, caller: Caller, n: int, no: int, folder: str, /) -> None:
        """Begin to copy the rows that were kept for this backup. Raises SkerryError."""
        ...

    def finished(self) -> Sequence[tuple[Caller, int, Exception | tuple[int, int]]]:
        """Return (caller, number of its call, result) of each copy that has ended since the last call.

        A result is an error, or the newest commit and the bytes that were copied.
        """
        ...


class Clock(Protocol):
    """Two clocks."""

    def now_ns(self) -> int:
        """Return the wall clock's time, ns since 1970. It may be set, also back."""
        ...

    def steady_ns(self) -> int:
        """Return the time of a clock that is never set, and goes on while the machine sleeps."""
        ...


class Heartbeat(Protocol):
    """Where the supervisor reads how the loop is doing, even after the process has ended."""

    def round(self, commit: int, *, slow: bool) -> None:
        """Note that a round begins."""
        ...

    def running(self, identity: Identity | None, /) -> None:
        """Note which message runs next, in quarantine; None: the message has run."""
        ...

    def work(self) -> None:
        """Note that the app's own code may run now."""
        ...


class Stopwatch(Protocol):
    """How long a batch takes."""

    @property
    def clock_s(self) -> float:
        """Time by the clock since `start`."""
        ...

    @property
    def own_s(self) -> float:
        """The thread's own time since `start`."""
        ...

    @property
    def cpu_s(self) -> float:
        """Processor time of the process, in its life."""
        ...

    def start(self) -> None:
        """Set both times to 0."""
        ...


class Ports(NamedTuple):
    """All that a shard stands on, except the rows that it reads."""

    commits: Commits
    packets: Packets
    listener: Listener
    sources: Sources
    sinks: Sinks
    copies: Copies
    clock: Clock
    heartbeat: Heartbeat
    stopwatch: Stopwatch
