"""What goes wrong in a simulated cluster, and how often.

Everything is drawn from the cluster's one seed. A fault that needs a moment names it: the
points of a shard's life at which a crash is told apart, since most bugs live between two.
"""

from __future__ import annotations

from msgspec import Struct

POINTS = (
    "before its batch",
    "batch run, not appended",
    "appended, not synced",
    "synced, not told",
    "told, nothing sent",
    "half of it sent",
)
"""Where in a step a shard can be killed."""


class Faults(Struct, frozen=True, kw_only=True):
    """How often what goes wrong: probabilities per packet, or per step of each shard.

    Example:
        >>> Faults(lose=0.2, crash=0)  # a bad network, and machines that never die
    """

    lose: float = 0.05
    """A packet is lost."""
    repeat: float = 0.05
    """A packet arrives twice."""
    delay_steps_max: int = 20
    """A packet takes 1 to so many steps, each its own: later ones overtake."""
    cut: float = 0.001
    """A pipe is cut, in one direction, for up to `hold_steps_max` steps."""
    crash: float = 0.002
    """A shard is killed, at one of `POINTS`; it keeps what was synced, and maybe more."""
    blackout: float = 0.0001
    """All shards are killed at once."""
    hang: float = 0.0005
    """A shard stands still for up to `hold_steps_max` steps, and goes on as if nothing was."""
    clock: float = 0.0005
    """A shard's wall clock is set, up to two seconds ahead or back."""
    sync: float = 0.5
    """The disk finishes something in a step."""
    hold_steps_max: int = 400

    def __post_init__(self) -> None:
        for name in ("lose", "repeat", "cut", "crash", "blackout", "hang", "clock", "sync"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"Faults: {name} is a probability, 0 to 1, not {value!r}")
        for name in ("delay_steps_max", "hold_steps_max"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"Faults: {name} is a number of steps from 1 on, not {value!r}")


NO_FAULTS = Faults(
    lose=0, repeat=0, delay_steps_max=1, cut=0, crash=0, blackout=0, hang=0, clock=0, sync=1
)
