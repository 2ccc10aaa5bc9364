"""Starts apps as a user does: by the launcher, as real processes."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
CLI = [sys.executable, "-m", "skerry.runtime.cli"]


def limited(which: int, value: int) -> Callable[[], None]:
    """Sets a limit of a process that begins, and none of the process that starts it."""
    return lambda: resource.setrlimit(which, (value, value))


def interruptible() -> None:
    """Let SIGINT reach a process that begins. A shell that starts tests in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def launcher(
    *args: str, cwd: Path = ROOT, limit: Callable[[], None] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the launcher to its end."""
    return subprocess.run(
        [*CLI, *args],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=limit,
    )


def _said(path: Path) -> str:
    """What a file holds; nothing while it is not there."""
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""


def await_start(process: subprocess.Popen[bytes], data: Path, said: Path) -> None:
    """Wait until this process runs the app. `said`: the file with what it says, if it ends instead."""
    while f'"pid":{process.pid},' not in _said(data / "run.json"):
        assert process.poll() is None, _said(said)
        os.sched_yield()


@contextmanager
def running(
    data: Path,
    *options: str,
    target: str = "tests.processes.apps",
    cwd: Path = ROOT,
    said: Path | None = None,
    **environment: str,
) -> Iterator[subprocess.Popen[bytes]]:
    """The app, until the context ends. What it says goes into a file, beside its data if not said."""
    said = said or data.with_name(data.name + ".said")
    with open(said, "ab") as file:
        process = subprocess.Popen(
            [*CLI, "run", target, "--data", str(data), "--workers", "2", *options],
            cwd=cwd,
            env=os.environ | environment,
            stderr=file,
        )
    try:
        await_start(process, data, said)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)
