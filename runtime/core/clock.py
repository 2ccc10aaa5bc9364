"""When a shard believes the wall clock: a leap ahead is taken for a mistake.

Time never goes back in a shard. If it followed a clock that was set years ahead, every timer
would fire, and the shard would live in the future for ever. So the wall clock is compared with
one that is never set.

Reads no clock: both times come in.
"""

from __future__ import annotations

LEAP_NS = 24 * 3600 * 10**9
"""How far the wall clock may be set ahead while the shard runs."""


class Clocks:
    """The wall clock and the steady clock, as they were last read."""

    def __init__(self) -> None:
        self._before = (0, 0)

    def leap(self, now_ns: int, steady_ns: int) -> str:
        """Read both clocks. Returns why the wall clock can't be believed; empty: it can."""
        (wall_ns, awake_ns), self._before = self._before, (now_ns, steady_ns)
        ahead_ns = (now_ns - wall_ns) - (steady_ns - awake_ns) if wall_ns else 0
        if ahead_ns <= LEAP_NS:
            return ""
        return (
            f"The machine's clock was set ahead by {ahead_ns / 86400e9:,.1f} days while the app "
            f"ran; nothing has run at that time. If the clock is right now, start the app again; "
            f"else set it first."
        )
