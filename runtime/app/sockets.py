"""Where clients and workers find the processes of a run: a folder of sockets, and what is told of it.

    folder -> the supervisor's door, the end of the lease in a cluster -> announcement

A cleaner of old files may remove the folder while the app runs. Then another is made.

Does file I/O.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from skerry.runtime.app import control
from skerry.runtime.config import Config
from skerry.runtime.description import Running
from skerry.runtime.gateway import places
from skerry.runtime.ports import Coordinator
from skerry.runtime.private import SocketsFolder
from skerry.runtime.worker.leased import LeasePage

SOCKETS_EVERY_S = 2.0
"""How often to look whether the sockets are still where clients and peers expect them."""


class Sockets:
    """The sockets of one run.

    Args:
        data: the app's data directory, which the folder is in if its path is short enough.
    """

    def __init__(self, data: Path, config: Config, coordinator: Coordinator) -> None:
        self._data, self._coordinator = data, coordinator
        self._app, self._leased = config.program.app, config.cluster is not None
        self.secret = coordinator.secret
        self._look_s = 0.0
        self._told: Running | None = None
        self._lease: LeasePage | None = None
        self.make()

    def make(self) -> None:
        """Make a folder, and the supervisor's door in it."""
        self._folder = SocketsFolder(self._data)
        self.path = self._folder.path
        if self._leased:
            self._lease = LeasePage(self.path)
        self.tell_lease()
        self.door = control.Door(self.path, self.secret)

    def announce(self, shards: Sequence[int], *, leads: bool) -> None:
        """Tell clients and workers which shards there are, and where, if that has changed."""
        told = Running(
            pid=os.getpid(),
            app=self._app,
            sockets=os.fsencode(self.path).decode(errors="surrogateescape"),
            shards=list(shards),
            secret=self.secret,
            host=self._coordinator.host,
            leads=leads,
        )
        if told != self._told:
            self._coordinator.announce(told)
            self._told = told

    def tell_lease(self) -> None:
        """Tell workers up to when the lease holds; they answer nobody behind that."""
        if self._lease is not None:
            self._lease.put(self._coordinator.until_ns)

    @property
    def due(self) -> bool:
        """Whether it is time to look after them."""
        now = time.monotonic()
        if now < self._look_s:
            return False
        self._look_s = now + SOCKETS_EVERY_S
        return True

    def whole(self, serving: Iterable[int]) -> bool:
        """Whether the folder is ours still, and has the sockets of all that serve."""
        names = [f"{of}-{shard}" for shard in serving for of in ("door", "pipe", "beat")]
        there = all((self.path / name).exists() for name in [*names, places.CONTROL])
        return there and self._folder.stands()

    def make_again(self) -> None:
        """Make another folder in the place of one that somebody has removed."""
        self._folder.remove()
        self.door.close()
        self.make()

    def remove(self, *, ours: bool) -> None:
        """Remove the folder at the end, unless it is in data that are not ours any more."""
        if ours or self.path.parent != self._data.resolve():
            self._folder.remove()
