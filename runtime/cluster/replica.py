"""What a worker has to do with the cluster: its shard's log, and snapshots of its store.

    open:  what lies here, or a snapshot -> read on from the log
    then:  much was appended since the last snapshot -> copy the store -> snapshot -> purge the log

One object per worker, made only in a cluster. A snapshot is copied and sent on a thread of its own,
while turns go on.

Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from skerry.errors import SkerryError
from skerry.runtime.cluster import local, names
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.local import Open
from skerry.runtime.cluster.log import ReplicatedLog
from skerry.runtime.cluster.snapshots import Snapshots
from skerry.runtime.cluster.stream import JetStream
from skerry.runtime.config import Cluster
from skerry.runtime.description import Description
from skerry.runtime.ports import Copied
from skerry.runtime.printable import Say
from skerry.runtime.store.label import Label
from skerry.runtime.store.segments import Segments
from skerry.runtime.store.store import LmdbStore

SNAPSHOT_BYTES = 64 << 20
"""A snapshot is made when as much was appended since the last one, or as much as the store holds,
whichever is more: so a byte is sent twice at most, on average."""

AGAIN_S = 30.0
"""How long to wait after a snapshot that failed."""

PART_OF_NAME = ".snapshot"


def label_of(app: Description, shard: int) -> Label:
    """Return the label of a shard's store on a host of the cluster."""
    return Label(
        shard=shard,
        app=app.app,
        directory=app.directory,
        incarnation=app.incarnation,
        version=app.placement.version,
        generation=app.generation,
        opened=True,
    )


class Replica:
    """The log and the snapshots of one shard."""

    def __init__(self, cluster: Cluster, app: Description, shard: int, say: Say) -> None:
        self._engine = Engine(cluster.servers, name=f"skerry {app.app} shard {shard}")
        self._stream = JetStream(self._engine, names.log_of(app.app, app.incarnation, shard))
        self._snapshots = Snapshots(self._engine, app.app, app.incarnation, shard, cluster.replicas)
        self._label, self._say = label_of(app, shard), say
        self.waits = ""
        """What keeps commits waiting."""
        self._log: ReplicatedLog | None = None
        self._copied_bytes = 0
        """How much was appended when the last snapshot was begun."""
        self._thread: threading.Thread | None = None
        self._again_s = 0.0

    def open(self, folder: Path, open: Open) -> LmdbStore:
        """Open the shard's store in a folder, which is made from the cluster if need be.

        Raises LogDamaged, StoreDamaged, StoreLocked, Away; SkerryError: another app's store is there.
        """
        shutil.rmtree(folder.with_name(folder.name + PART_OF_NAME), ignore_errors=True)
        # What is there may have been appended long before the newest snapshot, or after it.
        self._copied_bytes = -self._stream.size_bytes()
        self._folder = folder
        self._store = local.opened(
            folder, self._label, self._replicated, self._snapshots, open, self._say
        )
        return self._store

    def _replicated(self, segments: Segments) -> ReplicatedLog:
        self._log = ReplicatedLog(segments, self._stream, says=self._wait)
        return self._log

    def _wait(self, why: str) -> None:
        if why and not self.waits:
            self._say(f"commits wait: {why}")
        elif self.waits and not why:
            self._say("commits go on")
        self.waits = why

    def step(self) -> None:
        """Begin a snapshot when it is time. The worker's thread calls this between batches."""
        log = self._log
        assert log is not None, "the store was opened"
        if log.appended_bytes - self._copied_bytes < SNAPSHOT_BYTES or self._thread is not None:
            return
        if log.appended_bytes - self._copied_bytes < self._store.used_bytes:
            return
        if time.monotonic() < self._again_s:
            return
        # Before the rows are held: a message that comes in between is in them, and kept all the same.
        sequence, appended = log.covered, log.appended_bytes
        folder = self._folder.with_name(self._folder.name + PART_OF_NAME)
        copy = self._store.copy_now(folder)
        self._thread = threading.Thread(
            target=self._save, args=(copy, folder, sequence, appended), name="snapshot", daemon=True
        )
        self._thread.start()

    def _save(self, copy: Callable[[], Copied], folder: Path, sequence: int, appended: int) -> None:
        try:
            copied = copy()
            self._snapshots.save(folder, commit=copied.commit, sequence=sequence)
            self._stream.purge(self._snapshots.safe_sequence() + 1)
            self._copied_bytes = appended
        except (SkerryError, OSError) as error:  # The log keeps what the snapshot would have had.
            self._again_s = time.monotonic() + AGAIN_S
            self._say(f"no snapshot could be made, and the log grows: {error}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            self._thread = None

    def close(self) -> None:
        """Let go of the servers. The store was closed before."""
        self._engine.close()
