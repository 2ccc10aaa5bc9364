"""Faults: how often things go wrong in a simulation."""

from __future__ import annotations

from msgspec import Struct


class Faults(Struct, frozen=True, kw_only=True):
    """The faults of a `Simulation`: probabilities per packet, or per step of each shard.

    Raises:
        ValueError: a probability that is none, or a number of steps below 1.

    Example:
        >>> Faults(lose=0.2, crash=0)  # a bad network, and machines that never die
    """

    lose: float = 0.05
    """A packet is lost."""
    repeat: float = 0.05
    """A packet arrives twice."""
    delay_steps_max: int = 20
    """How many steps a packet takes at most; each takes its own, so that some overtake others."""
    cut: float = 0.001
    """A pipe is cut, in one direction, for up to `hold_steps_max` steps."""
    crash: float = 0.002
    """A shard is killed at some point of its work; it keeps what was synced, and maybe more."""
    blackout: float = 0.0001
    """All shards are killed at once."""
    hang: float = 0.0005
    """A shard stands still for up to `hold_steps_max` steps, and goes on as if nothing had happened."""
    clock: float = 0.0005
    """A shard's wall clock is set, up to two seconds ahead or back."""
    disk_slow: float = 0.0003
    """A shard's disk is twenty times slower for up to `hold_steps_max` steps."""
    disk_full: float = 0.0002
    """A shard's disk is full for up to `hold_steps_max` steps: sources pause, clients are refused."""
    disk_fails: float = 0.00003
    """A disk reports an error: the app ends at once, and is started again on what the disks hold."""
    stranger: float = 0.0
    """A packet comes that no shard of the app sends: of another incarnation, of an epoch that no
    shard has reached, or a frame without messages."""
    sync: float = 0.5
    """In a step, the disk finishes something."""
    hold_steps_max: int = 400
    """How many steps a fault that lasts takes at most."""

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if name.endswith("_steps_max"):
                if not isinstance(value, int) or value < 1:
                    raise ValueError(
                        f"Faults: {name} is a number of steps from 1 on, not {value!r}"
                    )
            elif not 0 <= value <= 1:
                raise ValueError(f"Faults: {name} is a probability, 0 to 1, not {value!r}")


KINDS = tuple(
    name for name in Faults.__struct_fields__ if name != "sync" and not name.endswith("_max")
)
"""The names of the faults, which are those of their probabilities."""

NO_FAULTS = Faults(
    lose=0,
    repeat=0,
    delay_steps_max=1,
    cut=0,
    crash=0,
    blackout=0,
    hang=0,
    clock=0,
    disk_slow=0,
    disk_full=0,
    disk_fails=0,
    sync=1,
)
"""A world in which nothing goes wrong, and nothing is slow."""
