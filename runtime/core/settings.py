"""Who a shard is, the app that it runs, and what it holds at most.

Built once, by whoever starts a shard, and handed down whole. What an app hands in is named
here as protocols: the core runs pipelines and outputs, and knows nothing of how they are made.

Holds values only; imports the vocabulary and the public layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from skerry.app import App
from skerry.entity_type import EntityType
from skerry.runtime.core.events import Identity
from skerry.runtime.core.placement import Placement
from skerry.stream.columns import Columns, Pass

TURN_ERRORS = (Exception, SystemExit, GeneratorExit)
"""Exceptions of a handler that end its own turn only. Not KeyboardInterrupt: in a test, Ctrl-C has
to end the test. Workers never receive it and catch everything: see `Settings.turn_errors`."""


class Pipeline(Protocol):
    """The pure stages between a source and its entities and sinks: items in, messages out."""

    def apply(self, items: Sequence[Any], /) -> Sequence[Columns]:
        """Return the columns of messages that these items become, for each end of the pipeline."""
        ...


class Outlet(Protocol):
    """The pure stages between an output and its sinks."""

    @property
    def ends(self) -> int:
        """How many sinks the output has."""
        ...

    def emitted(self, item: object, /) -> bytes:
        """Encode an item to travel. Raises TypeError or ValueError if it cannot be encoded."""
        ...

    def apply(self, items: Sequence[bytes], /) -> Sequence[tuple[int, Sequence[bytes]]]:
        """Return the resulting items of each sink, as (its index among the sinks, items)."""
        ...


class Limits(Struct, frozen=True, kw_only=True):
    """Upper bounds of a shard. Everything in it that can grow is listed here (I7)."""

    turns_per_batch_max: int = 16_384
    """Bounds what one batch delays the next; a worker, which has a clock, lowers it: see `pace.py`."""

    requests_per_batch_max: int = 2048
    """Client requests per batch: each adds an outcome to the record."""

    waiting_requests_max: int = 16_384
    """Client requests queued for a batch; more are answered `busy`. Eight batches: some tenths of a
    second of work, so what is accepted is answered soon, and enough for four callers to have one
    batch running and one queued. About 5 MB."""

    waiting_bytes_max: int = 32 << 20
    """Bytes of queued client requests, as received: four of the largest requests."""

    held_requests_max: int = 16_384
    """Requests held back until an earlier one of their session arrives or is known to be lost."""

    held_bytes_max: int = 32 << 20
    """Bytes of the arguments of requests held back."""

    session_outcomes_max: int = 1 << 16
    """Unconfirmed outcomes of a session. A caller confirms four times a second and has no more than
    a few batches in flight: one that reaches this bound does not confirm."""

    outcomes_bytes_max: int = 64 << 20
    """Memory for the unconfirmed outcomes of all active sessions: some 200,000."""

    sessions_max: int = 1 << 16
    """Sessions in memory, about a kilobyte each; the longest silent are evicted first."""

    sessions_away_max: int = 1 << 18
    """Evicted sessions whose outcomes have not expired yet: beyond, no new session may begin."""

    sessions_of_caller_max: int = 16
    """Sessions in memory begun by one caller: a client has one."""

    looks_of_caller_max: int = 256
    """Open inquiries of one caller: a client has 64 in flight to a door."""

    looks_max: int = 8192
    """Open inquiries of all callers."""

    looks_bytes_max: int = 64 << 20
    """Answers to inquiries that wait for the disk or for their caller; one may exceed it."""

    operations_max: int = 1024
    """Operators' commands on dead letters that wait for a batch."""

    timers_per_batch_max: int = 2048
    """Due timers per batch."""

    cache_bytes: int = 256 << 20
    """Memory for entities cached as objects; the first cached are evicted first."""


class Settings(Struct, frozen=True):
    """Who a shard is, and the app that it runs."""

    me: int
    incarnation: bytes
    placement: Placement
    types: dict[str, EntityType]
    pipelines: dict[str, Pipeline]
    outlets: dict[str, Outlet] = {}
    changes: dict[str, Pass] = {}
    """What the changes of an entity type pass, by its name."""
    life: str = ""
    """Names the life of the app that numbers its outputs; empty in the first. See `Outputs`."""
    retries: int = 3
    limits: Limits = Limits()
    slow: bool = False
    """One message per commit: after a worker hung or ended, to find the message that it was in."""
    poison: Identity | None = None
    """The message that was found then: a dead letter instead of a turn."""
    verdict: str = ""
    """What the handler of that message did, again and again."""
    turn_errors: tuple[type[BaseException], ...] = TURN_ERRORS
    """Exceptions of a handler that end its own turn only."""

    @classmethod
    def of(cls, app: App, **own: Any) -> Settings:
        """Return settings to run `app`; `own`: the fields that the app does not determine."""
        return cls(
            types=app.types,
            pipelines={pipeline.name: pipeline for pipeline in app.pipelines},
            outlets=dict(app.outlets),
            changes=dict(app.change_passes),
            retries=app.retries,
            **own,
        )
