"""How an app is run to be measured: how it starts, what its workers use, how fast it goes.

The supervisor runs in this process and its workers are watched from outside, by what the
kernel knows of them: processor time, memory, bytes given to the disk. Nothing is built into
the runtime to be measured, so what is measured is what users run.

A rate is taken between two answers of the workers, the first one and the last but one: the
start of the processes is not in it, nor the last tenth of a second, of which only a part was
worked. What lies before is the warm-up, and is said. It is longer where something is done only
once in the life of an app, as making its entities is.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct
from msgspec.structs import replace

from benchmarks.figures import ROOT
from skerry.runtime.app.directory import is_running
from skerry.runtime.app.questions import Progress
from skerry.runtime.app.supervisor import Supervisor
from skerry.runtime.config import Config, Program, Supervision

CORES = len(os.sched_getaffinity(0))
LOOK_EVERY_S = 0.1
SEARCH_EVERY_S = 1.0
WORKER = "skerry.runtime.worker.process"


class TooShort(Exception):
    """A run was over before it could be measured: this machine needs more work."""

    exit_status = 3
    """What `benchmarks.run` ends with then."""


class Used(Struct, frozen=True):
    """What all workers have used so far."""

    cpu_s: float = 0.0
    written: int = 0
    """Bytes given to the disk."""


class Moment(Struct, frozen=True):
    """Where a run stood when its workers last answered."""

    seconds: float
    turns: int
    used: Used


class Measured(Struct):
    """A whole run."""

    progress: Progress
    moments: list[Moment]
    memory_peak: int
    """The most anonymous memory that one worker held, as seen ten times a second."""
    used: Used
    """To the end, but for what a worker did after it was last seen."""
    warm_turns: int = 0
    """So many turns belong to the warm-up."""

    @property
    def window(self) -> tuple[Moment, Moment]:
        """The moments that a rate is taken between."""
        moments = [moment for moment in self.moments if moment.turns >= self.warm_turns]
        if len(moments) < 2:
            raise TooShort(
                f"The run was over after {self.progress.seconds:.1f} s, before its workers had "
                f"answered twice: give it more work with a larger --scale."
            )
        last = -2 if len(moments) > 2 else -1
        return moments[0], moments[last]

    @property
    def rate(self) -> float:
        """Turns per second."""
        first, last = self.window
        return (last.turns - first.turns) / (last.seconds - first.seconds)

    @property
    def cpu_us_per_turn(self) -> float:
        """Processor time of the workers per turn, microseconds."""
        first, last = self.window
        used_s = last.used.cpu_s - first.used.cpu_s
        if used_s <= 0:
            raise TooShort(
                "Its workers were seen at work only once: give it more work with a larger --scale."
            )
        return used_s * 1e6 / (last.turns - first.turns)

    @property
    def lengths(self) -> str:
        """How long it was warmed up, and measured."""
        first, last = self.window
        return f"{first.seconds:.1f} s of warm-up, {last.seconds - first.seconds:.1f} s measured"


class Workers:
    """The workers below a process, as the kernel sees them."""

    def __init__(self, parent: int) -> None:
        self._parent, self._search_at = psutil.Process(parent), 0.0
        self._known: dict[int, psutil.Process] = {}
        self._used: dict[int, Used] = {}
        """Of each, when it was last seen: it may have ended since."""
        self.memory_peak = 0

    def find(self) -> list[psutil.Process]:
        """Those that live now. Looking through all processes costs, so more of them are seen late."""
        if self._known and time.monotonic() < self._search_at:
            return [process for process in self._known.values() if process.is_running()]
        self._search_at = time.monotonic() + SEARCH_EVERY_S
        for child in self._parent.children(recursive=True):
            if child.pid not in self._known:
                try:
                    is_worker = WORKER in child.cmdline()
                except psutil.Error:
                    continue
                if is_worker:
                    self._known[child.pid] = child
        return [process for process in self._known.values() if process.is_running()]

    def look(self) -> Used:
        """What they have used; remembers the most memory."""
        for process in self.find():
            try:
                times = process.cpu_times()
                self._used[process.pid] = Used(
                    times.user + times.system, process.io_counters().write_bytes
                )
                self.memory_peak = max(self.memory_peak, anonymous(process.pid))
            except (psutil.Error, OSError):
                continue  # It has ended; what it had used before stays in the sum.
        return Used(
            sum(used.cpu_s for used in self._used.values()),
            sum(used.written for used in self._used.values()),
        )

    def memory(self) -> int:
        """Anonymous memory of all of them now."""
        return sum(anonymous(process.pid) for process in self.find())


def anonymous(pid: int | str) -> int:
    """Bytes of memory that belong to a process alone; "self": to this one.

    Not the pages of its files: they are the page cache's, and leave when somebody needs room.
    """
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0  # It is ending: the kernel has taken its memory already.


def options(
    folder: str,
    target: str,
    args: list[str],
    name: str,
    *,
    workers: int = CORES,
    serve: bool = False,
) -> Config:
    """How an app is run: everything as users have it."""
    program = Program(app=name, target=target, path=[str(ROOT)], args=args)
    supervision = Supervision(serve=serve)
    return Config(program=program, data=f"{folder}/data", workers=workers, supervision=supervision)


def sized(folder: str, partitions: int, keys: int, count: int, *, workers: int = CORES) -> Config:
    """How `benchmarks/sized_app.py` is run: so many items from each partition, to so many keys."""
    args = [str(partitions), str(keys), str(count)]
    return options(folder, "benchmarks.sized_app:app", args, "sized", workers=workers)


def cached(given: Config, cache_bytes: int) -> Config:
    """The same run with another size of the cache."""
    return replace(given, limits=replace(given.limits, cache_bytes=cache_bytes))


def served(given: Config, args: list[str]) -> Config:
    """The same app, to be run again with other arguments until it is stopped."""
    program = replace(given.program, args=args)
    return replace(given, program=program, supervision=Supervision(serve=True))


def measured(given: Config, warm_turns: int = 0) -> Measured:
    """Run an app to its end, and watch; what counts begins behind so many turns."""
    workers = Workers(os.getpid())
    moments: list[Moment] = []
    looked_at, used = 0.0, Used()

    def show(progress: Progress) -> None:
        nonlocal looked_at, used
        moved = progress.turns and (not moments or moments[-1].turns != progress.turns)
        if moved or time.monotonic() - looked_at > LOOK_EVERY_S:
            looked_at, used = time.monotonic(), workers.look()
        if moved:
            moments.append(Moment(progress.seconds, progress.turns, used))

    supervisor = Supervisor(given, say=lambda line: print(line, file=sys.stderr), show=show)
    code = supervisor.run()
    assert code == 0, (
        f"The app {given.program.app} ended with {code}; its workers' words stand above."
    )
    return Measured(supervisor.progress, moments, workers.memory_peak, used, warm_turns)


def started(given: Config) -> subprocess.Popen[bytes]:
    """A supervisor in a process of its own; returns when its app can be reached."""
    process = subprocess.Popen(
        [sys.executable, "-m", "skerry.runtime.app.background"], stdin=subprocess.PIPE
    )
    assert process.stdin is not None, "the supervisor has a lifeline"
    process.stdin.write(msgspec.json.encode(given) + b"\n")
    process.stdin.flush()
    named = f'"pid":{process.pid},'
    while not (is_running(data := Path(given.data)) and named in _said(data / "run.json")):
        assert process.poll() is None, f"The app {given.program.app} did not start; see above."
        time.sleep(0.001)
    return process


def _said(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop an app; what runs is committed first."""
    process.terminate()
    process.wait()
    if process.stdin is not None:
        process.stdin.close()
