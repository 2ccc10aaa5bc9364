"""A worker's assignment: its shard, what it has to know of the app, and the exit codes of its end.

The supervisor sends it as one line of JSON on the worker's standard input, which stays open.
"""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from skerry.runtime.config import Config
from skerry.runtime.core.events import Identity
from skerry.runtime.core.placement import Placement
from skerry.runtime.description import Description
from skerry.runtime.gateway import places

DAMAGED, HOPELESS = 3, 5
"""Exit codes after which a worker is not started again."""

LOG_DAMAGED = 6
"""Exit code of a start that found the log in the cluster damaged: another host would find the same."""

AGAIN = 75
"""Exit code of a start that failed for a cause that may pass."""


class Assignment(Struct, frozen=True, kw_only=True):
    """One start of one worker."""

    shard: int
    config: Config
    description: Description
    sockets: str
    """The folder of the app's sockets."""
    secret: str
    """Proves to peers and clients that they belong to this app."""
    waits: bool = False
    """Whether to load the program, and wait for a word of the supervisor before opening the store."""
    slow: bool = False
    """Whether to run one message per commit, so that the one that ends workers is found."""
    poison: Identity | None = None
    """The message that was found to end workers: it becomes a dead letter, without a turn."""
    verdict: str = ""
    """What the handler of that message did."""

    @property
    def placement(self) -> Placement:
        """The owner of each slot."""
        return self.description.placement

    @property
    def store(self) -> Path:
        """The folder of the shard's store."""
        return Path(self.config.data) / f"shard-{self.shard}"

    @property
    def beat(self) -> Path:
        """The file of the worker's heartbeat."""
        return Path(self.sockets) / f"beat-{self.shard}"

    @property
    def loaded(self) -> Path:
        """The file that a worker makes when it has loaded the program, and waits."""
        return Path(self.sockets) / f"next-{self.shard}"

    @property
    def listener(self) -> Path:
        """The socket on which clients reach the worker."""
        return places.listener(Path(self.sockets), self.shard)

    @property
    def log(self) -> Path:
        """The file that keeps what the worker prints."""
        return Path(self.config.data) / "logs" / f"worker-{self.shard}.log"
