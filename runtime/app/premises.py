"""Where an app lives: on this machine, or in a cluster.

    config -> who coordinates the app's processes, and who keeps its members' stores

What only a cluster needs is imported only for one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from skerry.errors import SkerryError
from skerry.runtime.app.coordinator import DirectoryCoordinator
from skerry.runtime.app.members import DirectoryMembers, Members
from skerry.runtime.config import Config
from skerry.runtime.ports import Coordinator
from skerry.runtime.printable import Say

if TYPE_CHECKING:
    from skerry.runtime.cluster.coordinator import ClusterCoordinator

WITHOUT_NATS = "A cluster needs the client library of NATS: pip install 'skerry[cluster]'."


class Premises(NamedTuple):
    """Where an app lives."""

    coordinator: Coordinator
    members: Members
    close: Callable[[], None]
    """Lets go of what both have in common."""
    cluster: ClusterCoordinator | None = None
    """The coordinator, if it is a cluster's."""


def premises(config: Config, data: Path, say: Say, stop: Callable[[], bool]) -> Premises:
    """Choose where an app lives.

    Args:
        stop: whether somebody wants the app to end, while it waits for its lease.

    Raises SkerryError: what a cluster needs is not installed, or the folder is another app's.
    """
    if config.cluster is None:
        alone = DirectoryCoordinator(data)
        return Premises(alone, DirectoryMembers(data, alone, say), _nothing)
    try:
        from skerry.runtime.app.hosted import in_cluster
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise SkerryError(WITHOUT_NATS) from None
    coordinator, members, close = in_cluster(config.cluster, config.program.app, data, say, stop)
    return Premises(coordinator, members, close, coordinator)


def _nothing() -> None:
    """Nothing is shared by files."""
