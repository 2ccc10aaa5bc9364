"""Hosts of a cluster on this machine: each a launcher with a data directory of its own."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psutil

from skerry import Client
from skerry.runtime.app import directory
from skerry.runtime.description import Description
from tests.processes.started import CLI, ROOT

LEASE_S = "4"
"""Shorter than by default, so that tests need not wait as long, and than an election may take."""


MOVES_S = 90.0
"""After how long a test that waits for slots to move tells what there is, and fails."""


class Host:
    """One host. It runs until it is killed or stopped.

    Args:
        data: its data directory.
        by: the words before its command, which then run it elsewhere; they keep the process.
    """

    def __init__(
        self,
        data: Path,
        url: str,
        *options: str,
        target: str,
        serve: bool = True,
        by: Sequence[str] = (),
    ) -> None:
        self.data, self.target = data, target
        self._said = data.with_name(data.name + ".said")
        self._process: subprocess.Popen[bytes] | None = None
        self._command = [
            *(*by, *CLI, "run", target, "--data", str(data), "--cluster", url),
            *("--host", data.name),
            *("--lease", LEASE_S, *(["--serve"] if serve else []), *options),
        ]

    def start(self) -> None:
        """Start its launcher."""
        with open(self._said, "ab") as file:
            self._process = subprocess.Popen(self._command, cwd=ROOT, stderr=file, stdout=file)

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._said.read_text()

    def await_said(self, words: str, *, times: int = 1) -> None:
        """Wait until it has said this so often."""
        while self.said.count(words) < times:
            self._await_a_moment()

    @property
    def app(self) -> str:
        """The app's name."""
        return self._described.app

    @property
    def incarnation(self) -> str:
        """The app's incarnation."""
        return self._described.incarnation

    @property
    def shards(self) -> int:
        """How many the app has."""
        return len(self._described.placement.members)

    @property
    def _described(self) -> Description:
        found = directory.load(self.data)
        assert found is not None, "it has run"
        return found

    def await_homes(self, **wanted: int) -> None:
        """Wait until each host has so many shards, as this one knows, and nothing moves."""
        deadline_s = time.monotonic() + MOVES_S
        while self.homes != wanted:
            self._await_a_moment()
            if time.monotonic() > deadline_s:
                raise AssertionError(f"{self._described}\n{self.said}")

    @property
    def homes(self) -> dict[str, int]:
        """How many shards each host has; empty: something moves, or it has not heard yet."""
        found = directory.load(self.data)
        moves = found is None or found.goal or found.placement.coming
        return {} if found is None or moves else dict(Counter(found.homes.values()))

    def shards_of(self, host: str) -> list[int]:
        """The shards that a host has, as this one knows."""
        return [shard for shard, home in self._described.homes.items() if home == host]

    @property
    def version(self) -> int:
        """The version of the placement."""
        return self._described.placement.version

    def await_serving(self) -> None:
        """Wait until it runs the app."""
        while not (self.data / "run.json").exists():
            self._await_a_moment()

    def _await_a_moment(self) -> None:
        """Wait a little, for what must not come: the end of the launcher."""
        assert self._process is not None, "it was started"
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)
            raise AssertionError(self.said)

    @property
    def code(self) -> int | None:
        """The exit code of its launcher; None: it runs."""
        assert self._process is not None, "it was started"
        return self._process.poll()

    def client(self) -> Client:
        """Return a client of the app, which this host runs."""
        return Client(self.data)

    def _processes(self) -> list[psutil.Process]:
        assert self._process is not None, "it was started"
        launcher = psutil.Process(self._process.pid)
        return [launcher, *launcher.children(recursive=True)]

    def kill(self) -> None:
        """Kill all its processes at once, as a power cut does."""
        for process in self._processes():
            process.kill()
        assert self._process is not None
        self._process.wait()
        (self.data / "run.json").unlink(missing_ok=True)

    def kill_workers(self) -> None:
        """Kill its workers, and nothing else."""
        for process in self._processes():
            if "skerry.runtime.worker.process" in process.cmdline():
                process.kill()

    def freeze(self) -> None:
        """Stop all its processes in the midst of what they do."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let them go on."""
        for process in reversed(self._processes()):
            process.resume()

    def await_end(self) -> int:
        """Wait until it has ended; return its exit code."""
        assert self._process is not None, "it was started"
        return self._process.wait(60)

    def end(self) -> None:
        """Kill it, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.thaw()
            self.kill()

    def stop(self) -> str:
        """Stop it in order; returns all that it has said."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
        return self.said
