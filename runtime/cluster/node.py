"""One NATS server on this machine: its process, its files, and what it says.

    n1/nats.conf     written at each start
       server.log    what it says; in `output`, what it says before it has opened its log
       jetstream/    its data

A server outlives the command that has started it. It is known by its command line, `nats-server -c`
and the path of its configuration, which is looked for among the processes. No file says which
process it is, so none can name one of another boot, or another program's.

Starts and signals; what a server is told stands in `server.py`. Idea: docs/how-to/hosts.md.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from skerry.errors import SkerryError
from skerry.runtime.store import sealed_file

CONFIGURATION, LOG, OUTPUT = "nats.conf", "server.log", "output"

END_S = 10.0
"""How long a server may take to end before it is killed."""


def processes(folder: Path) -> dict[str, int]:
    """Return the processes that serve nodes of a folder, by node; also when the folder is gone."""
    found = {}
    for pid in psutil.pids():
        if (path := served_by(pid)) and path.parent.parent == folder:
            found[path.parent.name] = pid
    return dict(sorted(found.items()))


def served_by(pid: int) -> Path | None:
    """Return the configuration that a process serves; None: it is no server that we may end."""
    try:
        process = psutil.Process(pid)
        words = process.cmdline()
        # The second word, while the program is a script that will start the real one.
        named = any(Path(word).name.startswith("nats-server") for word in words[:-2][:2])
        ours = os.geteuid() in (0, process.uids().effective)
        return Path(words[-1]) if words[-2:-1] == ["-c"] and named and ours else None
    except psutil.Error:
        return None  # It has ended meanwhile.


class Node:
    """A server, whether it runs or not."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name, self._home = name, folder / name
        self._path = self._home / CONFIGURATION
        self._child: subprocess.Popen[bytes] | None = None

    def start(self, program: Path, configuration: str) -> None:
        """Start a node that is down; returns before it answers."""
        self._home.mkdir(mode=0o700, exist_ok=True)
        sealed_file.write(self._path, configuration.encode())
        with open(self._home / OUTPUT, "wb", opener=_private) as output:
            self._child = subprocess.Popen(
                [program, "-c", self._path],
                cwd=self._home,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                umask=0o077,
            )

    def check(self) -> None:
        """Raise SkerryError: the server that was started here has ended."""
        if self._child is not None and (code := self._child.poll()) is not None:
            raise SkerryError(
                f"The server of {self.name} has ended with code {code}: {self._last_words()}. Its "
                f"log is {self._home / LOG}."
            )

    def _last_words(self) -> str:
        for file in (OUTPUT, LOG):
            with suppress(OSError):
                lines = (self._home / file).read_text(errors="replace").split("\n")
                if said := [line.strip() for line in lines if line.strip()]:
                    return said[-1][-300:].rstrip(".")
        return "it has said nothing"

    def send(self, number: signal.Signals) -> bool:
        """Signal the server. Returns False: it does not run."""
        with self._process() as fd:
            if fd is not None:
                signal.pidfd_send_signal(fd, number)
            return fd is not None

    def end(self, number: signal.Signals = signal.SIGTERM) -> bool:
        """End the server with a signal, and wait. Returns whether it had to be killed in the end."""
        with self._process() as fd:
            late = fd is not None and _ended_late(fd, number)
        if self._child is not None:
            self._child.wait()
            self._child = None
        return late

    @contextmanager
    def _process(self) -> Iterator[int | None]:
        """The server's process, as a descriptor by which no other one can be signalled; None: it
        does not run."""
        pid = processes(self._home.parent).get(self.name)
        fd = None
        with suppress(ProcessLookupError):
            fd = None if pid is None else os.pidfd_open(pid)
        try:
            # It may have ended before there was a descriptor, and its number be another's now.
            same = fd is not None and pid is not None and served_by(pid) == self._path
            yield fd if same else None
        finally:
            if fd is not None:
                os.close(fd)


def _ended_late(fd: int, number: signal.Signals) -> bool:
    """End a process with a signal, and wait. Returns whether it had to be killed in the end."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, number)
        signal.pidfd_send_signal(fd, signal.SIGCONT)  # One that is frozen ends when it goes on.
    ended = select.poll()
    ended.register(fd, select.POLLIN)
    if ended.poll(END_S * 1000):
        return False
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(fd, signal.SIGKILL)
    ended.poll()
    return True


def silence(pid: int) -> str:
    """Return why a server does not answer: it is down, frozen by a signal, or silent."""
    try:
        stopped = psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return "down"
    return "frozen" if stopped else "silent"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
