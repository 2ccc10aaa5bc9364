"""The machine under the app: its cores, its limit on open files, and what it does to processes."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Collection
from pathlib import Path

import psutil

from skerry.errors import SkerryError
from skerry.runtime.app import placer

FILES, FILES_PER_WORKER = 48, 8
"""Files that a worker has open: store, log and sockets; and for each other worker."""


def usable_cores() -> list[int]:
    """Return the cores that this process may use; fewer when the quota of its cgroup is smaller."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = cores[: max(1, -(-int(quota) // int(period)))]
    except (OSError, ValueError):
        pass  # No cgroup v2 here: the affinity is all there is.
    return cores


class Pins:
    """The cores of workers: each has one of its own, while they are as many as the cores."""

    def __init__(self) -> None:
        self._pids: list[list[int]] = []

    def deal(self, pids: list[list[int]]) -> None:
        """Give the processes of each worker their cores, if they are others than the last time."""
        if pids == self._pids:
            return
        self._pids, cores = pids, os.sched_getaffinity(0)
        for place, own in enumerate(pids):
            core = placer.core_of(place, len(pids), sorted(cores))
            for pid in own:
                _keep_to(pid, cores if core is None else {core})


def _keep_to(pid: int, cores: Collection[int]) -> None:
    """Let a process run on these cores only, with all its threads and those that they start."""
    kept: set[str] = set()
    # Linux has a set of cores for each thread. One that starts meanwhile has that of its starter.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # It has ended.
        while new := {task.name for task in Path(f"/proc/{pid}/task").iterdir()} - kept:
            for thread in new:
                with contextlib.suppress(ProcessLookupError):
                    os.sched_setaffinity(int(thread), cores)
            kept |= new


def allow_files(workers: int) -> None:
    """Raise the limit on open files to what each worker needs. Raises SkerryError if that is refused."""
    needed = FILES + FILES_PER_WORKER * workers
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise SkerryError(
            f"A process may have {hard:,} files open here, and with {workers} workers each needs "
            f"{needed:,}. Raise the limit (`ulimit -n`, LimitNOFILE= of systemd), or run fewer with "
            f"--workers."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def is_stopped(pid: int) -> bool:
    """Tell whether a process is stopped by a signal, as by SIGSTOP."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def oom_kills() -> int:
    """Return how many processes this machine has killed for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
