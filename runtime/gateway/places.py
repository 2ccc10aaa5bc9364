"""Where the processes of a host listen for callers: names in its folder of sockets.

Names only.
"""

from __future__ import annotations

from pathlib import Path

CONTROL = "control"
"""The socket of the host's supervisor."""

LEADER = "leader"
"""The socket by which the supervisor that leads is reached, on a host that follows."""


def listener(folder: Path, shard: int) -> Path:
    """Return the socket on which callers reach a shard's worker."""
    return folder / f"door-{shard}"
