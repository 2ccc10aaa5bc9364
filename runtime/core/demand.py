"""What a shard and its driver agree on for each batch: how much it takes, what came of it.

    Budget (driver -> shard)   how much the next batch may take
    Batch  (shard -> driver)   the commit to append, and the measures that pace the next batch
    Demand (shard -> driver)   what the shard would have its driver do now
    Standing (shard -> leader) how far it is with the placement
    Load   (driver -> leader)  how busy it is, and with what

Plain values, like events and effects; nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

from skerry.runtime.core.events import Commit


class Budget(Struct, frozen=True):
    """How much the next batch may take. The shard's own limits hold in any case."""

    turns: int = 1 << 30
    """Turns, about: the driver asks for fewer while turns are slow."""
    full: str = ""
    """Why nothing new is accepted from clients; empty: it is."""
    ran: Callable[[str, Sequence[str]], None] | None = None
    """Told the entity type and the keys of turns that have run; None: nobody asks."""


ALL = Budget()
"""As much as the shard's limits allow."""


class Batch(Struct, frozen=True):
    """What one batch did."""

    commit: Commit | None
    """To be appended to the store; None: the batch left nothing behind."""
    turns: int
    items: int
    """Items of sources among its work."""
    requests: int
    """Requests of clients among its work."""
    crowded: bool
    """Whether more requests waited than it had room for."""


class Demand(Struct, frozen=True):
    """What a shard would have its driver do now."""

    runnable: bool
    """A batch would find work."""
    wake_ns: int | None
    """When the next timer is due, in the shard's time."""
    owes_acks: bool
    """A peer waits for an ack that the next ticks will send."""
    restless: bool
    """A peer may have to be asked again by the next ticks."""
    unacked: bool
    """Frames are on their way to peers, or wait here."""
    inside: bool
    """Messages wait on the shard's own stream: sources should add little."""
    backpressured: bool
    """Sources should add nothing: frames or output items pile up, here or at a peer."""
    asking: bool
    """Clients wait for the next batch, and all their requests fit in it."""


class Standing(Struct, frozen=True):
    """How far a shard is on the way to the placement that it should have."""

    version: int
    """The placement that it goes by."""
    settled: bool
    """No slot is on its way from it or to it, and that is durable."""
    unacked: list[int]
    """Peers that have not acked every frame."""
    slots: int = 0
    """Slots that came to it with this version."""
    size: int = 0
    """Bytes that it has sent of its slots with this version."""
    pause_ns: int = 0
    """The longest time that a slot was waited for."""


class Load(Struct, frozen=True):
    """How busy a worker is, in seconds per second: 1 is a whole core."""

    busy: float
    slots: dict[int, float] = {}
    """The part of each slot that has a part worth telling."""
    slot_bytes: int = 0
    """What a slot takes on the disk, on average."""
    hot: list[tuple[str, str, float]] = []
    """The heaviest entities: type, key, and their part at least."""
