"""The workers of this host: one per shard that lives here, started again and again.

Idea: docs/ideas/architecture.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from skerry.runtime import forks
from skerry.runtime.app.children import Child, reap_orphans, spawn_due
from skerry.runtime.app.machine import Pins
from skerry.runtime.config import Supervision
from skerry.runtime.printable import Say
from skerry.runtime.worker.assignment import Assignment


class Crew:
    """The workers of a host.

    Attributes:
        children: one for each shard; the same list all the time.
    """

    def __init__(self, supervision: Supervision, say: Say) -> None:
        self._supervision, self._say = supervision, say
        self.children: list[Child] = []
        self._pins = Pins()
        self._adopts = forks.adopts_orphans()

    def hire(self, shard: int) -> None:
        """Keep a worker of this shard, too."""
        if all(child.shard != shard for child in self.children):
            self.children.append(Child(shard, self._say))

    def dismiss(self, shard: int) -> None:
        """End the worker of a shard, and keep none any more."""
        for child in [child for child in self.children if child.shard == shard]:
            child.kill()
            child.wait()
            self.children.remove(child)

    def start(self, assignment_of: Callable[[Child], Assignment]) -> None:
        """Start each worker that has no process and may have one now."""
        spawn_due(self.children, assignment_of)

    def pin(self) -> None:
        """Keep each worker to a core of its own."""
        if self._supervision.pin:
            self._pins.deal([child.pids for child in self.children])

    def look(self) -> None:
        """Read the heartbeats; kill workers whose handlers do not return."""
        for child in self.children:
            child.look(self._supervision.hang_s)

    def reap_orphans(self) -> None:
        """Reap processes that handlers have left behind."""
        if self._adopts:
            reap_orphans(self.children)

    def kill(self) -> None:
        """End all processes now."""
        for child in self.children:
            child.kill()

    def wait(self) -> None:
        """Wait until all processes have ended."""
        for child in self.children:
            child.wait()

    @property
    def over(self) -> bool:
        """Whether no process runs, nor will."""
        return all(child.done for child in self.children)

    @property
    def dumping(self) -> bool:
        """Whether a worker writes its stack before it is killed."""
        return any(child.watch.dumping for child in self.children)

    @property
    def alive(self) -> list[int]:
        """The shards that have a process."""
        return [child.shard for child in self.children if child.process is not None]

    @property
    def serving(self) -> Iterable[int]:
        """The shards whose workers have opened their sockets."""
        return (child.shard for child in self.children if child.serves)
