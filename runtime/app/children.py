"""The worker processes: starts, watches and reaps them.

    assignment on standard input, held open -> heartbeat, output, exit code

What an end means is decided in `watch.py` and acted upon by the supervisor. The next worker of a
shard starts only after the last one has ended: the store's lock would refuse it before, and to
wait here saves the attempt.

A child dies with the thread that spawned it, so all of this runs in the main thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from msgspec import Struct

from skerry.runtime import as_json, forks
from skerry.runtime.app.machine import is_stopped
from skerry.runtime.app.watch import Beat, Watch
from skerry.runtime.printable import Say
from skerry.runtime.worker import heartbeat
from skerry.runtime.worker.assignment import Assignment


class Ended(Struct, frozen=True):
    """How a worker ended."""

    code: int
    """The exit code; negative: the number of the signal that killed it."""
    deliberate: bool
    """Whether the worker itself chose this code; a handler may end the process with any code."""
    beat: Beat | None
    """The last heartbeat."""

    @property
    def how(self) -> str:
        """The end in words."""
        return f"killed by signal {-self.code}" if self.code < 0 else f"exit code {self.code}"

    @property
    def was_killed(self) -> bool:
        """Whether somebody else may have ended it on purpose."""
        return self.code in (-signal.SIGKILL, -signal.SIGTERM)

    @property
    def had_served(self) -> bool:
        """Whether its loop had begun."""
        return self.beat is not None and self.beat.rounds > 0

    def done_by_handler(self, *, for_memory: bool) -> str:
        """Say in words how the process ended, if a handler did it."""
        if self.code >= 0:
            return f"ended its process with exit code {self.code}"
        number = -self.code
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        why = ", which the system sends when memory runs out" if for_memory else ""
        return f"ended its process by signal {name}{why}"


class Child:
    """The worker of one shard, as one process after the other."""

    def __init__(self, shard: int, say: Say) -> None:
        self.shard, self._say = shard, say
        self.process: subprocess.Popen[bytes] | None = None
        self.watch = Watch()
        self.start_at = 0.0
        """When the next process may start."""
        self.done = False
        """Whether no other process will start."""
        self.beat: Beat | None = None
        """The newest heartbeat that was looked at."""
        self.serves = False
        """Whether the process has opened its sockets: after them it begins its heartbeat."""

    def spawn(self, assignment: Assignment) -> None:
        """Start a process."""
        self._assignment = assignment
        environment = dict(os.environ)
        environment.pop("PYTHONOPTIMIZE", None)  # Assertions stay on: they stop a worker loudly.
        environment["PYTHONUNBUFFERED"] = "1"  # What a handler prints is seen when it prints it.
        # Without a heartbeat of its own, a process that ends has not served.
        assignment.beat.unlink(missing_ok=True)
        # A signal to all our processes must not end the new one before it ignores them.
        forks.block_signals()
        try:
            self.process = subprocess.Popen(
                # Not -m alone: it would import from the folder that we are in, whatever lies there.
                [sys.executable, "-P", "-m", "skerry.runtime.worker.process"],
                cwd=assignment.config.program.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        finally:
            forks.unblock_signals()
        assert self.process.stdin is not None, "a worker has a lifeline"
        try:
            self.process.stdin.write(as_json.encode(assignment) + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:  # Killed before it read: its end is seen like any other.
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        self.watch.started(time.monotonic())
        threading.Thread(target=self._collect, args=(self.process,), daemon=True).start()

    def _collect(self, process: subprocess.Popen[bytes]) -> None:
        """Copy a worker's output into its log, and to our own error output with its name."""
        assert process.stdout is not None, "a worker's output is a pipe"
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            # A full disk must not keep a worker from saying that the disk is full.
            with (
                contextlib.suppress(OSError),
                open(self._assignment.log, "a", encoding="utf-8") as file,
            ):
                file.write(f"{line}\n")
            self._say(f"[{self.shard}] {line}")

    def reap(self) -> Ended | None:
        """Return how the process ended; None: it runs, or there is none."""
        if self.process is None or self.process.poll() is None:
            return None
        code, self.process, self.serves = self.process.returncode, None, False
        assignment = self._assignment
        # A process that a handler forked may still hold the listener: nobody connects to it any more.
        assignment.listener.unlink(missing_ok=True)
        deliberate = code == heartbeat.last_word(assignment.beat)
        return Ended(code, deliberate, heartbeat.read(assignment.beat))

    def look(self, hang_s: float) -> None:
        """Read the heartbeat; kill a worker whose handler does not return."""
        if self.process is None:
            return
        beat = self.beat = heartbeat.read(self._assignment.beat)
        if beat is None:
            return
        self.serves = True
        stopped = partial(is_stopped, self.process.pid)
        match self.watch.look(time.monotonic(), beat, hang_s, stopped):
            case "stopped":
                self._say(f"worker {self.shard} is stopped (SIGSTOP); it goes on with SIGCONT")
            case "dump":
                self._say(
                    f"worker {self.shard} has not moved for {hang_s:g} s: a handler does not "
                    f"return. Its stack follows; the worker is killed and started again."
                )
                self.process.send_signal(signal.SIGUSR2)
            case "kill":
                self.kill()
                self.wait()
                self.watch.hung(
                    beat, f"did not return within {hang_s:g} s and its worker was killed"
                )

    def kill(self) -> None:
        """End the process now, if there is one."""
        self.serves = False
        if self.process is not None:
            self.process.kill()

    def wait(self) -> None:
        """Wait for the end of the process, if there is one."""
        if self.process is not None:
            self.process.wait()


def reap_orphans(children: Iterable[Child]) -> None:
    """Reap processes that handlers started and left behind, where orphans become our children."""
    ours = {child.process.pid for child in children if child.process is not None}
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, look)) and ended.si_pid not in ours:
            os.waitpid(ended.si_pid, 0)


def spawn_due(children: Sequence[Child], assignment_of: Callable[[Child], Assignment]) -> None:
    """Start each worker that has no process and may have one now."""
    now = time.monotonic()
    for child in children:
        if child.process is None and not child.done and now >= child.start_at:
            child.spawn(assignment_of(child))
