"""A folder in which a client of a cluster finds the app as if it ran here.

    the app's bucket in NATS -> hosts, homes, keys -> a link of our own -> pipes and doors in a folder

Beside the doors the folder has what a data directory has for a client: the description, and where the
doors are. So a client of a cluster is a client like any other. The folder is private to this process,
and goes with it.

Two threads: one asks the servers now and then, one carries. Imported only for clients of clusters.
Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import os
import queue
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app import directory
from skerry.runtime.cluster import keys as keys_
from skerry.runtime.cluster import lease, names
from skerry.runtime.cluster.bucket import Bucket, patiently
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.keys import Keys
from skerry.runtime.cluster.presence import DESCRIPTION
from skerry.runtime.description import Description, Running
from skerry.runtime.link.line import BEAT_S
from skerry.runtime.link.link import Link
from skerry.runtime.link.table import Table, peers_of
from skerry.runtime.transport.curve import Pair

LOOK_S = 0.5
"""How often the servers are asked where everything is."""


class Outpost:
    """The folder, and what keeps it.

    Raises Unavailable: no app of this name is in the cluster, or no server answers.
    """

    def __init__(self, servers: list[str], app: str) -> None:
        self._app = app
        self._engine = Engine(servers, name=f"skerry client of {app}")
        self._bucket = Bucket(self._engine, names.of_app(app))
        self.folder = Path(tempfile.mkdtemp(prefix="skerry-"))
        self._tables: queue.SimpleQueue[Table] = queue.SimpleQueue()
        self._bell, self._rung = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._ends = threading.Event()
        self._threads: list[threading.Thread] = []
        self._lock: int | None = None
        try:
            self._keys = self._read_keys()
            self._lock = directory.lock(self.folder)
            self._told: tuple[Description, Table] | None = None
            self._look()
        except BaseException:
            self.close()
            raise
        for work in (self._watch, self._carry):
            thread = threading.Thread(target=work, name=f"outpost {work.__name__}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _read_keys(self) -> Keys:
        there = patiently(self._bucket.is_there)
        found = self._bucket.get(keys_.KEY) if there else None
        if found is None or found.value is None:
            raise Unavailable(
                f"No app {self._app!r} is in the cluster of {', '.join(self._engine.servers)}. Start "
                f"one with `skerry run --cluster`, or look at the name."
            )
        return keys_.decoded(found.value, self._bucket.name)

    def _look(self) -> None:
        """Ask where everything is; tell the link, and write it into the folder. Raises SkerryError."""
        hosts = self._bucket.look_all(names.HOSTS)
        found = self._bucket.look(DESCRIPTION)
        if found.value is None:
            raise Unavailable(f"The app {self._app!r} has not been started yet.")
        app = directory.decoded(found.value, f"The description of {self._app!r} in NATS")
        leases = [lease.decoded(entry.value) for entry in hosts.values() if entry.value is not None]
        table = Table(peers_of(filter(None, leases)), app.homes)
        if self._told == (app, table):
            return
        self._told = app, table
        directory.save(self.folder, app)
        directory.announce(
            self.folder,
            Running(
                pid=os.getpid(),
                app=app.app,
                sockets=str(self.folder),
                shards=app.placement.members,
                secret=self._keys.secret,
            ),
        )
        self._tables.put(table)
        os.write(self._rung, b".")

    def _watch(self) -> None:
        while not self._ends.wait(LOOK_S):
            with suppress(SkerryError):  # What is known is used until more is.
                self._look()

    def _carry(self) -> None:
        pair = Pair(self._keys.public, self._keys.private)
        link = Link("", self.folder, pair, bind="", admitted=set())
        link.go_around(self._engine, self._app)
        while not self._ends.is_set():
            with suppress(queue.Empty):
                while True:
                    link.route(self._tables.get_nowait())
            link.round(self._bell, BEAT_S)
            with suppress(BlockingIOError):
                os.read(self._bell, 4096)
        link.close()

    def close(self) -> None:
        """Let go of the cluster, and remove the folder."""
        self._ends.set()
        os.write(self._rung, b".")
        for thread in self._threads:
            thread.join()
        self._engine.close()
        for fd in (self._bell, self._rung, *([self._lock] if self._lock is not None else [])):
            os.close(fd)
        shutil.rmtree(self.folder, ignore_errors=True)
