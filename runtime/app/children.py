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
from typing import Any, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from skerry.runtime import as_json, forks
from skerry.runtime.app.machine import is_stopped
from skerry.runtime.app.watch import Beat, Watch
from skerry.runtime.printable import Say
from skerry.runtime.worker import heartbeat
from skerry.runtime.worker.assignment import Assignment

STOP_S = 30.0
"""How long a worker that is told to stop may take to commit what runs."""


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


def start(module: str, told: bytes, *, apart: bool = False) -> subprocess.Popen[bytes]:
    """Start a process that loads the program.

    Args:
        module: what it runs.
        told: what it reads first from its standard input, which stays open.
        apart: whether its error output has a pipe of its own.
    """
    environment = dict(os.environ)
    environment.pop("PYTHONOPTIMIZE", None)  # Assertions stay on: they stop a worker loudly.
    environment["PYTHONUNBUFFERED"] = "1"  # What a handler prints is seen when it prints it.
    # A signal to all our processes must not end the new one before it ignores them.
    forks.block_signals()
    try:
        process = subprocess.Popen(
            # Not -m alone: it would import from the folder that we are in, whatever lies there.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if apart else subprocess.STDOUT,
            env=environment,
        )
    finally:
        forks.unblock_signals()
    tell(process, told)
    return process


def tell(process: subprocess.Popen[bytes], told: bytes) -> None:
    """Write to the standard input of a process."""
    assert process.stdin is not None, "its standard input is a pipe"
    try:
        process.stdin.write(told)
        process.stdin.flush()
    except BrokenPipeError:  # Killed before it read: its end is seen like any other.
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()


class _Started(NamedTuple):
    """A process, and what it was started for."""

    process: subprocess.Popen[bytes]
    assignment: Assignment
    at_s: float


class Child:
    """The worker of one shard, as one process after the other."""

    def __init__(self, shard: int, say: Say) -> None:
        self.shard, self._say = shard, say
        self.process: subprocess.Popen[bytes] | None = None
        self.watch = Watch()
        self.start_at = 0.0
        """When the next process may start."""
        self.started_s = 0.0
        """When the newest process was started."""
        self.done = False
        """Whether no other process will start."""
        self.beat: Beat | None = None
        """The newest heartbeat that was looked at."""
        self._next: _Started | None = None
        """The process that waits for the end of this one."""
        self.serves = False
        """Whether the process has opened its sockets: after them it begins its heartbeat."""

    @property
    def pids(self) -> list[int]:
        """Its processes."""
        processes = (self.process, self._next and self._next.process)
        return [process.pid for process in processes if process is not None]

    @property
    def serving_since_s(self) -> float | None:
        """When the process was started; None: its loop has not begun, or there is none."""
        serves = self.process is not None and self.beat is not None and self.beat.rounds
        return self.started_s if serves else None

    def spawn(self, assignment: Assignment) -> None:
        """Start a process."""
        self._begin(self._started(assignment))

    def _started(self, assignment: Assignment) -> _Started:
        process = start(
            "skerry.runtime.worker.process",
            as_json.encode(assignment) + b"\n",
        )
        threading.Thread(target=self._collect, args=(process, assignment), daemon=True).start()
        return _Started(process, assignment, time.monotonic())

    def _begin(self, started: _Started) -> None:
        """Let this process be the worker."""
        # Without a heartbeat of its own, a process that ends has not served.
        started.assignment.beat.unlink(missing_ok=True)
        self.process, self._assignment, self.started_s = started
        self.beat = None
        self.watch.started(time.monotonic())

    def _collect(self, process: subprocess.Popen[bytes], assignment: Assignment) -> None:
        """Copy a worker's output into its log, and to our own error output with its name."""
        assert process.stdout is not None, "a worker's output is a pipe"
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            # A full disk must not keep a worker from saying that the disk is full.
            with (
                contextlib.suppress(OSError),
                open(assignment.log, "a", encoding="utf-8") as file,
            ):
                file.write(f"{line}\n")
            self._say(f"[{self.shard}] {line}")

    # ── the process that comes after this one ──

    def prepare(self, assignment: Assignment) -> None:
        """Start a process that loads the program, and then waits until this one has ended."""
        assignment = replace(assignment, waits=True)
        assignment.loaded.unlink(missing_ok=True)
        self._next = self._started(assignment)

    def prepared(self) -> bool | Ended:
        """Whether the next process has loaded the program, or how it has ended before; False: not yet,
        or there is none."""
        if self._next is None:
            return False
        code = self._next.process.poll()
        if code is not None:
            self._next = None
            return Ended(code, True, None)
        return self._next.assignment.loaded.exists()

    @property
    def prepares(self) -> bool:
        """Whether there is a next process."""
        return self._next is not None

    def take_over(self) -> None:
        """Let the next process be the worker, if there is one. It has another program: what earlier
        processes did says nothing of it."""
        self.watch, self.start_at = Watch(), 0.0
        if self._next is None:
            return
        started, self._next = self._next, None
        self._begin(started)
        started.assignment.loaded.unlink(missing_ok=True)
        tell(started.process, b"\n")

    def drop_next(self) -> None:
        """End the next process, if there is one."""
        if self._next is not None:
            self._next.process.kill()
            self._next.process.wait()
            self._next = None

    # ── ends ──

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
                    f"worker {self.shard} has not moved for {hang_s:g} s: "
                    f"{beat.call or 'a handler'} does not return. Its stack follows; the worker is "
                    f"killed and started again."
                )
                self.process.send_signal(signal.SIGUSR2)
            case "kill":
                self.kill()
                self.wait()
                self.watch.hung(
                    beat, f"did not return within {hang_s:g} s and its worker was killed"
                )

    def kill(self) -> None:
        """End the process now, if there is one, and none comes after it."""
        self.drop_next()
        self.end()

    def end(self) -> None:
        """End the process now, if there is one."""
        self.serves = False
        if self.process is not None:
            self.process.kill()

    def wait(self) -> None:
        """Wait for the end of the process, if there is one."""
        if self.process is not None:
            self.process.wait()


def stuck_of(children: Iterable[Child]) -> list[dict[str, Any]]:
    """Return what workers run for so long that they answer nobody."""
    now_s = time.monotonic()
    return [
        {
            "shard": child.shard,
            "call": child.beat.call,
            "seconds": round(child.watch.still_s(now_s, child.beat), 1),
        }
        for child in children
        if child.process is not None and child.beat is not None and child.beat.call
    ]


def reap_orphans(children: Iterable[Child]) -> None:
    """Reap processes that handlers started and left behind, where orphans become our children."""
    ours = {pid for child in children for pid in child.pids}
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
