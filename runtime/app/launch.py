"""Runs the apps of programs, and connects programs to apps that run.

Implements `skerry.host.Launch`: what programs ask for in `skerry` is done here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType

from skerry import portable
from skerry.app import App, args
from skerry.client import Client
from skerry.errors import SkerryError, StoreDamaged
from skerry.host import Session, SimulatedCluster
from skerry.runtime import as_json
from skerry.runtime.app.directory import find_data, is_running
from skerry.runtime.app.load import absolute_path, check, current_folder, hidden, not_while_loading
from skerry.runtime.app.premises import WITHOUT_NATS
from skerry.runtime.app.questions import Progress
from skerry.runtime.app.supervisor import LAPSED, Supervisor
from skerry.runtime.causes import exit_code, explained
from skerry.runtime.client.connection import Connection
from skerry.runtime.config import Config, Program, Supervision, urls_of
from skerry.runtime.ports import Interrupted
from skerry.runtime.printable import Say, say
from skerry.runtime.worker.assignment import DAMAGED
from skerry.testing import Faults

__all__ = ["Progress", "connect", "connect_to", "run_app", "running", "simulate", "supervise"]

START_S = 30.0
"""How long an app may take to come up under `app.running()`."""


def program_of(app: App) -> Program:
    """Return the program that defines an app. Workers import the file or module that has the app as a
    global; an app that no such file or module has is sent by value."""
    path, target = absolute_path(), _target_of(app)
    names = hidden(path[0])
    if (file := _main_file()) and str(file.parent.resolve()) == path[0]:
        path[0] = str(file.parent)  # Python knows it by what a link leads to.
    return Program(
        app=app.name,
        target=target,
        pickled="" if target else base64.b64encode(portable.dumps(app)).decode(),
        path=path,
        hidden=names,
        args=args(),
        renamed=app.renamed,
    )


def _target_of(app: App) -> str:
    """Return the target that loads an app; empty: there is none."""
    main = sys.modules["__main__"]
    modules = [m for m in list(sys.modules.values()) if isinstance(m, ModuleType) and m is not main]
    # The main program last: to import it is to run it again.
    for module in [*modules, main]:
        for name, value in list(vars(module).items()):
            if value is app and (place := _importable(module)):
                return f"{place}:{name}"
    return ""


def _importable(module: ModuleType) -> str | None:
    """Return the name or the file by which a worker can import a module; None: there is none."""
    if module is not sys.modules["__main__"]:
        return module.__name__
    if module.__spec__ is not None:
        return module.__spec__.name
    file = _main_file()
    return str(file) if file is not None and file.suffix == ".py" else None


def _main_file() -> Path | None:
    """Return the file of the main program, as it was named; None: there is none."""
    file = Path(getattr(sys.modules["__main__"], "__file__", None) or "notebook")
    if not file.is_file():
        return None
    here = Path.cwd()
    return current_folder() / file.relative_to(here) if file.is_relative_to(here) else file


def supervise(config: Config, say: Say, show: Callable[[Progress], None]) -> tuple[int, Progress]:
    """Run an app in this process; return its exit code and what it did."""
    refuse_free_threads()
    while True:
        supervisor = Supervisor(config, say=say, show=show)
        try:
            code = supervisor.run()
        except Interrupted as interrupted:
            say(str(interrupted))
            return 0, supervisor.progress
        if code != LAPSED:
            return code, supervisor.progress


def refuse_free_threads() -> None:
    """Refuse an interpreter that runs without its lock. Raises SkerryError."""
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise SkerryError(
            "skerry is not made for free-threaded Python: the threads of a worker rely on the "
            "interpreter's lock. Start it with PYTHON_GIL=1, or with a standard build."
        )


def run_app(app: App, workers: int | None, data: str | Path | None) -> None:
    """Run an app until it ends or is stopped. Raises SkerryError when it was refused or failed.

    In a script that does not catch the error, the error ends the script as it would end `skerry
    run`: with its sentence and exit code, and without a traceback through our own code.
    """
    not_while_loading()
    if threading.current_thread() is not threading.main_thread():
        raise SkerryError(
            f"The app {app.name} can't be run by this thread: `run` takes the program's main thread, "
            f"whose end is the workers' end. On another, use `with app.running() as client:`, or "
            f"start it with `skerry run`."
        )
    if sys.excepthook is sys.__excepthook__:  # Else the program has its own way with errors.
        sys.excepthook = _end
    program = program_of(app)
    folder = Path(data or Path(".skerry") / app.name).absolute()
    try:
        config = Config(program=program, data=str(folder), workers=workers)
    except ValueError as error:
        raise SkerryError(f"The app {app.name} can't run so: {error}.") from None
    try:
        check(app, program.target or app.name)
        code, _ = supervise(config, say, lambda progress: None)
    except (OSError, UnicodeError) as error:
        raise SkerryError(f"The app {app.name} can't run. {explained(error)}") from error
    if code:
        sort = StoreDamaged if code == DAMAGED else SkerryError
        raise sort(
            f"The app {app.name} ended with exit code {code}; its logs are in {folder}/logs."
        )


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End a program by an error that has left `run_app`, and that nobody has caught."""
    if not (isinstance(error, SkerryError) and _left_run_app(trace)) or hasattr(sys, "ps1"):
        sys.__excepthook__(kind, error, trace)
        return
    say(f"skerry: {error}")
    raise SystemExit(exit_code(error))


def _left_run_app(trace: TracebackType | None) -> bool:
    """Tell whether an error went from `run_app` through all frames of its program. A console that runs
    cells or lines catches an error earlier, to show it."""
    if trace is None or trace.tb_frame.f_back is not None:
        return False
    while trace is not None and trace.tb_frame.f_code is not run_app.__code__:
        trace = trace.tb_next
    return trace is not None


@contextlib.contextmanager
def running(app: App) -> Iterator[Client]:
    """Run an app in processes of its own while the context is open."""
    not_while_loading()
    refuse_free_threads()
    app.check()
    with tempfile.TemporaryDirectory(prefix="skerry-data-") as data:
        config = Config(
            program=program_of(app), data=data, workers=2, supervision=Supervision(serve=True)
        )
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "skerry.runtime.app.background"], stdin=subprocess.PIPE
        )
        try:
            assert process.stdin is not None, "the supervisor has a lifeline"
            process.stdin.write(as_json.encode(config) + b"\n")
            process.stdin.flush()
            _await_start(process, Path(data))
            with Client(data) as client:
                yield client
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            if process.stdin is not None:
                process.stdin.close()


def _await_start(process: subprocess.Popen[bytes], data: Path) -> None:
    deadline = time.monotonic() + START_S
    while not (is_running(data) and (data / "run.json").exists()):
        if process.poll() is not None or time.monotonic() > deadline:
            raise SkerryError("The app did not start; what its workers said stands above.")
        time.sleep(0.01)


def simulate(
    app: App, *, seed: int, shards: int, faults: Faults, start_ns: int | None = None
) -> SimulatedCluster:
    """Make a simulation of the app."""
    from skerry.runtime.core.settings import Limits
    from skerry.runtime.simulator.cluster import START_NS, Cluster

    app.check_targets()
    return Cluster(
        app,
        seed=seed,
        shards=shards,
        faults=faults,
        # Small batches, so that often more messages come than fit into one.
        limits=Limits(turns_per_batch_max=64),
        start_ns=START_NS if start_ns is None else start_ns,
    )


async def connect(data: str | Path | None) -> Session:
    """Open a session with the app that runs on a data directory. Raises Unavailable."""
    return await Connection.open(find_data(data))


async def connect_to(cluster: str, app: str) -> Session:
    """Open a session with an app in a cluster, by the URLs of its servers. Raises Unavailable."""
    try:
        from skerry.runtime.client.outpost import Outpost
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise SkerryError(WITHOUT_NATS) from None
    outpost = await asyncio.to_thread(Outpost, urls_of(cluster), app)
    try:
        return await Connection.open(outpost.folder, after=outpost.close)
    except BaseException:
        await asyncio.to_thread(outpost.close)
        raise
