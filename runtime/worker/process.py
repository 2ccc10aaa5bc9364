"""A worker's process: one shard on its real ports, and the poll that wakes its driver.

    poll -> packets, requests, wake-ups -> driver.round -> poll

The supervisor starts the process and holds its standard input open; when that ends, so does the
process. User code, and what it starts, finds an empty standard input and inherits no file of ours.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import zmq

from skerry import portable
from skerry.app import App
from skerry.errors import SkerryError, StoreDamaged, StoreLocked, Unavailable
from skerry.runtime import as_json, forks
from skerry.runtime.app.load import import_from, load
from skerry.runtime.causes import explained, passes
from skerry.runtime.config import Program
from skerry.runtime.core.events import SLOTS
from skerry.runtime.core.results import Raised
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.streams.links import Fenced
from skerry.runtime.gateway.listener import Listener, callers_that_fit, raise_limit
from skerry.runtime.gateway.protocol import Control
from skerry.runtime.ports import LogDamaged, WorkerStore
from skerry.runtime.printable import say
from skerry.runtime.store.store import LmdbStore
from skerry.runtime.transport.pipe import Pipe
from skerry.runtime.worker import heartbeat
from skerry.runtime.worker.assignment import AGAIN, DAMAGED, HOPELESS, LOG_DAMAGED, Assignment
from skerry.runtime.worker.copies import Copies
from skerry.runtime.worker.driver import Driver
from skerry.runtime.worker.heartbeat import Heartbeat
from skerry.runtime.worker.leased import LeasedListener, LeasePage
from skerry.runtime.worker.ports import Ports
from skerry.runtime.worker.sinks import Writers
from skerry.runtime.worker.sources import Readers
from skerry.runtime.worker.stopwatch import Stopwatch
from skerry.runtime.worker.takeover import open_shard
from skerry.turn import Strayed, stray

if TYPE_CHECKING:
    from skerry.runtime.cluster.replica import Replica

OPENING_MS = 100
"""How often a shard that opens looks whether its disk has come further."""

GARBAGE_OBJECTS = 100_000
"""Containers made and not freed before a young collection. A batch makes thousands that die with it,
and to look through them each time took 7 % of a worker. Bounds what cycles of handlers hold."""

LOCKED_S = 60.0
"""How long a dying worker may hold its store. A killed process ends only when the disk has finished
its sync, which may take many seconds on a busy disk."""

LINGER_S = 2.0
"""How long threads and children that handlers have started may delay the end of the process."""


class SystemClock:
    """The machine's clocks."""

    def now_ns(self) -> int:
        """Return the wall clock's time, ns since 1970."""
        return time.time_ns()

    def steady_ns(self) -> int:
        """Return the time since the machine started, including the time that it slept."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Worker:
    """The real ports of a shard, and the poll that wakes its driver."""

    def __init__(self, assignment: Assignment, app: App, lifeline: int) -> None:
        self._assignment, self._lifeline = assignment, lifeline
        description = assignment.description
        folder = Path(assignment.sockets)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._replica = _replica(assignment)
        self._store = self._open_store()
        settings = Settings.of(
            app,
            me=assignment.shard,
            incarnation=bytes.fromhex(description.incarnation),
            placement=description.placement,
            life=description.life,
            limits=assignment.config.limits,
            slow=assignment.slow,
            poison=assignment.poison,
            verdict=assignment.verdict,
            # Nobody presses Ctrl-C here: if KeyboardInterrupt is raised, the handler raised it.
            turn_errors=(BaseException,),
        )
        self._pipe = Pipe(folder, assignment.shard)
        fit = callers_that_fit(len(description.placement.members))
        self._door = _listener(assignment, folder, callers_max=fit)
        self._heartbeat = Heartbeat(assignment.beat)
        self._stirs = 0
        self._poller = zmq.Poller()
        for waker in (self._pipe.socket, self._door.fd, self._wake_fd, lifeline):
            self._poller.register(waker, zmq.POLLIN)
        forks.let_go_in_children(
            [folder, assignment.store], [lifeline, self._wake_fd, self._door.fd], also=stray
        )
        shard = Shard(settings, self._store, self._store.last, self._heartbeat.running)
        placement = shard.placement
        if placement.version > description.placement.version:
            if assignment.config.cluster is not None:  # Its host hears late of what others wrote.
                raise Unavailable(
                    f"Shard {assignment.shard} has seen version {placement.version} of the placement, "
                    f"and this host knows {description.placement.version} so far."
                )
            raise StoreDamaged(
                f"{Path(assignment.config.data) / 'app.json'} is older than the store "
                f"{assignment.store}: it describes version {description.placement.version} of the "
                f"placement, and the store has seen {placement.version}. Put the newest one back, "
                f"or restore the app's last backup. Nothing was changed."
            )
        clock = SystemClock()
        wait = partial(self._poller.poll, OPENING_MS)
        open_shard(shard, self._store, clock, wait, lambda: self._door.may_answer)
        self._copies = Copies(self._store, self._wake)
        ports = Ports(
            self._store,
            self._pipe,
            self._door,
            Readers(self._wake),
            Writers(app.outlets, self._wake),
            self._copies,
            clock,
            self._heartbeat,
            Stopwatch(),
        )
        half_life_s = assignment.config.supervision.half_life_s
        self._driver = Driver(
            shard, app, self._store, ports, self._vitals, load_half_life_s=half_life_s
        )

    def _open_store(self) -> WorkerStore:
        """Open the shard's store, which a dying worker may still hold for a while."""
        assignment, config = self._assignment, self._assignment.config
        open = partial(
            LmdbStore.open,
            assignment.store,
            shard=assignment.shard,
            sync=config.storage.sync,
            quota_bytes=config.storage.quota_bytes,
            memtable_bytes=config.memtable_bytes,
            wake=self._wake,
        )
        deadline, told = time.monotonic() + LOCKED_S, False
        while True:
            try:
                if self._replica is None:
                    return open()
                return self._replica.open(assignment.store, lambda log: open(replicate=log))
            except StoreLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            except Unavailable as error:  # The servers are away: nothing is wrong here.
                if not told:
                    say(f"worker {assignment.shard} waits: {error}")
                told = True

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def run(self) -> None:
        """Serve until told to stop. Raises what ends a worker."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS, *gc.get_threshold()[1:])
        self._heartbeat.watch_calls()
        while not self._driver.over:
            busy = self._driver.round()
            if self._replica is not None:
                self._replica.step()
            patience_ns = 0 if busy else self._driver.patience_ns()
            self._listen(patience_ns // 1_000_000 + 1 if patience_ns else 0)
        self._copies.close()
        self._store.close()
        if self._replica is not None:
            self._replica.close()

    def _listen(self, timeout_ms: int) -> None:
        """Poll once, and give the driver what came."""
        if timeout_ms:
            self._heartbeat.sleep(time.monotonic() + timeout_ms / 1000)
            ready = dict(self._poller.poll(timeout_ms))
            self._heartbeat.wake()
        else:
            ready = dict(self._poller.poll(0))
        stirred = not timeout_ms or self._wake_fd in ready or self._pipe.socket in ready
        if self._lifeline in ready and not os.read(self._lifeline, 1):
            raise SystemExit(0)  # The supervisor is gone. To end at once is as safe as a kill -9.
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        self._driver.tick()
        if self._pipe.socket in ready:
            for raw in self._pipe.receive():
                self._driver.arrived(raw)
        if self._door.fd in ready:
            for event in self._door.receive():
                stirred = stirred or not isinstance(event, Control)
                self._driver.called(event)
        if stirred:
            self._stirs += 1
            self._heartbeat.stir(self._stirs)

    def _vitals(self) -> dict[str, Any]:
        """Return the part of the status that only the process knows."""
        return {
            "pid": os.getpid(),
            "callers": self._door.callers,
            "callers_max": self._door.callers_max,
            "turned_away": self._door.turned_away,
            "waits": self._replica.waits if self._replica is not None else "",
        }


def _listener(assignment: Assignment, folder: Path, *, callers_max: int) -> Listener:
    if assignment.config.cluster is None:
        return Listener(assignment.listener, assignment.secret, callers_max=callers_max)
    lease = LeasePage(folder)
    return LeasedListener(
        assignment.listener, assignment.secret, lease=lease, callers_max=callers_max
    )


def _replica(assignment: Assignment) -> Replica | None:
    """Return the shard's log and snapshots in a cluster; None: the app lives on this machine."""
    if assignment.config.cluster is None:
        return None
    from skerry.runtime.cluster.replica import Replica  # With the client library, only when used.

    return Replica(assignment.config.cluster, assignment.description, assignment.shard, say)


def die_with_parent() -> None:
    """Make the process die with its parent."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _prepare(assignment: Assignment) -> None:
    """Make the process die with its parent, and dump its stack when asked."""
    die_with_parent()
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=False)
    forks.ignore_signals()
    forks.heed_signals_in_children()
    raise_limit()
    # A committer that has finished its fsync waits this long for a busy interpreter.
    sys.setswitchinterval(0.0005)
    assert len(assignment.placement.slots) == SLOTS, "a placement owns every slot"


def _lifeline() -> int:
    """Put an empty standard input in the place of ours; return ours, which no child inherits."""
    lifeline = os.dup(sys.stdin.fileno())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, sys.stdin.fileno())
    os.close(null)
    return lifeline


def end_soon(code: int) -> None:
    """End the process soon, since its shard has ended. Threads and children that handlers have started
    get a moment to end by themselves; the interpreter would wait for them for ever."""

    def end() -> None:
        time.sleep(LINGER_S)
        os._exit(code)

    threading.Thread(target=end, daemon=True).start()


def _end_child(strayed: Strayed) -> NoReturn:
    """End a child that a handler has forked, and that has come back from the handler. It ends as it was
    going to: with the code of its `sys.exit`, or with the traceback of what it raised."""
    cause = strayed.__context__
    while isinstance(cause, Raised):
        cause = cause.__cause__
    code = cause.code if isinstance(cause, SystemExit) else 0 if cause is None else 1
    if cause is not None and not isinstance(cause, SystemExit):
        traceback.print_exception(cause)
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def load_program(program: Program) -> App:
    """Load the app: from where the supervisor says, or from the value that it sent."""
    try:
        os.chdir(program.folder or ".")
    except OSError as error:
        raise SkerryError(
            f"The app {program.app} runs in the folder {program.folder}, which can't be entered: "
            f"{error.strerror}. Put it back; or stop the app, and start it where its program is."
        ) from None
    for name in program.hidden:
        importlib.import_module(name)
    if program.pickled:
        import_from(program.path)
        return portable.loads(base64.b64decode(program.pickled))
    os.environ["SKERRY_ARGS"] = json.dumps(program.args)
    return load(program.target, program.path)


def _start(assignment: Assignment, lifeline: int) -> Worker:
    """Make a worker that can serve. Raises SkerryError: it can't, nor could it if started again."""
    try:
        _prepare(assignment)
        app = load_program(assignment.config.program)
        forks.ignore_signals()  # A program may have set handlers of its own, as for a server.
        if assignment.waits:
            assignment.loaded.touch()
            if not os.read(lifeline, 1):
                raise SystemExit(0)  # The supervisor is gone.
        return Worker(assignment, app, lifeline)
    except SkerryError:
        raise
    except Exception as error:
        if passes(error):
            raise
        with contextlib.suppress(OSError), open(assignment.log, "a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise SkerryError(
            f"Worker {assignment.shard} of {assignment.config.data} can't start. {explained(error)} "
            f"Where it happened is in {assignment.log}."
        ) from error


def main() -> int:
    """Run a worker; return its exit code.

    0: it was stopped. 3: its store is damaged, or its disk failed. 5: it has named another cause that
    a restart does not mend. 6: its log is damaged, in a cluster. 75: the cause may pass. Else: it crashed.
    """
    assignment = as_json.decode(sys.stdin.buffer.readline(), Assignment)
    code = 1
    try:
        code = _run(assignment, _lifeline())
        heartbeat.leave_word(assignment.beat, code)
    finally:
        end_soon(code)
    return code


def _run(assignment: Assignment, lifeline: int) -> int:
    try:
        worker = _start(assignment, lifeline)
    except StoreDamaged as damage:
        return _end(damage, LOG_DAMAGED if isinstance(damage, LogDamaged) else DAMAGED)
    except Unavailable as error:
        return _end(error, AGAIN)
    except SkerryError as error:
        return _end(error, HOPELESS)
    except Exception as error:
        return _end(SkerryError(explained(error)), AGAIN)
    try:
        worker.run()
    except Strayed as strayed:
        _end_child(strayed)
    except StoreDamaged as damage:
        moved = isinstance(damage, Fenced) and assignment.config.cluster is not None
        return _end(damage, AGAIN if moved else DAMAGED)
    except Unavailable as error:
        return _end(error, AGAIN)
    except SkerryError as error:
        return _end(error, HOPELESS)
    return 0


def _end(error: SkerryError, code: int) -> int:
    print(f"skerry: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
