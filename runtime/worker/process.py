"""One process: a shard, its store, its ports, its loop. The only place where they meet.

    poll -> packets, requests, durable commits, items -> shard.run -> store.append -> effects

Everything is done once per round, never per message: one poll, one batch, one append. The
disk works on the store's own thread while the next batch runs; what a batch wants to say
leaves when its commit is durable.

Started by the supervisor, which holds what was our standard input open: its end is our end.
User code and what it starts meet an empty one, and have nothing of what is ours.
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
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import zmq

from skerry import portable
from skerry.app import App
from skerry.errors import SkerryError, StoreDamaged, StoreLocked
from skerry.runtime import forks
from skerry.runtime.app.load import import_from, load
from skerry.runtime.app.watch import NOTHING
from skerry.runtime.causes import explained, passes
from skerry.runtime.config import Program
from skerry.runtime.core.demand import Batch, Budget
from skerry.runtime.core.events import (
    SLOTS,
    Arrived,
    Cut,
    Durable,
    Identity,
    Keep,
    Reply,
    Requested,
    Rewind,
    Stop,
    Ticked,
    Told,
    Transmit,
    Write,
)
from skerry.runtime.core.results import Raised
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.streams.links import ACK_NS
from skerry.runtime.gateway.inquiries import Inquiries
from skerry.runtime.gateway.listener import Door, callers_that_fit, raise_limit
from skerry.runtime.gateway.protocol import Control
from skerry.runtime.ports import Copied, WorkerStore
from skerry.runtime.store.store import LmdbStore
from skerry.runtime.transport.pipe import Pipe
from skerry.runtime.worker import heartbeat
from skerry.runtime.worker.assignment import AGAIN, DAMAGED, HOPELESS, Assignment
from skerry.runtime.worker.heartbeat import Heartbeat
from skerry.runtime.worker.pace import Pace
from skerry.runtime.worker.sinks import Writers
from skerry.runtime.worker.sources import Partition, Readers
from skerry.runtime.worker.stopwatch import Stopwatch
from skerry.turn import Strayed, stray

TICK_MS = 100
"""The longest that a worker sleeps while a peer owes it something, and is asked again."""

IDLE_MS = 1000
"""The longest that it sleeps at all: then it sees that the clock was set, and is seen to live."""

ACK_MS = ACK_NS // 1_000_000 + 1
"""The same while a peer waits for an ack."""

BACKLOG_BYTES = 32 << 20
"""Sealed and not yet durable. Above, no batch runs until the disk has caught up (I7)."""

BACKLOG_RECORDS = 64
"""Likewise in records: a few fsyncs' worth."""

GARBAGE_OBJECTS = 100_000
"""Containers made and not freed before a young collection: a batch makes thousands that die with
it, and to look through them each time took 7 % of a worker. Bounds what cycles of handlers hold."""

COPIES_MAX = 2
"""Backups under way: each keeps a reader of the store, and the pages that were freed since."""

FAILED_S = 10.0
"""How long a shard that always has something to run goes on after a source of it has failed."""

LOCKED_S = 60.0
"""How long a dying worker may hold its store: a killed process ends when the disk has finished its
sync, which takes many seconds on a disk that is busy."""

LINGER_S = 2.0
"""How long what handlers have started may keep a process that is at its end."""

FULL = (
    "The store has used most of its quota, so nothing new is taken in; queries and what is under way "
    "go on. Make room by `skerry dead drop`, or start again with a larger --quota: then entities can "
    "be forgotten, too."
)


class Worker:
    """The loop around one shard."""

    def __init__(self, assignment: Assignment, app: App, lifeline: int) -> None:
        self._assignment, self._app, self._lifeline = assignment, app, lifeline
        description, config = assignment.description, assignment.config
        folder = Path(assignment.sockets)
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = self._open_store()
        settings = Settings.of(
            app,
            me=assignment.shard,
            incarnation=bytes.fromhex(description.incarnation),
            placement=description.placement,
            life=description.life,
            limits=config.limits,
            slow=assignment.slow,
            poison=assignment.poison,
            verdict=assignment.verdict,
            # Nobody presses Ctrl-C here: who raises KeyboardInterrupt is the handler.
            turn_errors=(BaseException,),
        )
        self._shard = Shard(settings, self._store, self._store.last, self._watch)
        self._pipe = Pipe(folder, assignment.shard)
        fit = callers_that_fit(len(description.placement.members))
        self._door = Door(assignment.listener, assignment.secret, callers_max=fit)
        self._heartbeat = Heartbeat(assignment.beat)
        self._pace, self._stopwatch = Pace(settings.limits.turns_per_batch_max), Stopwatch()
        self._rounds = self._stirs = 0
        self._hurry = False
        """Whether the newest batch was for clients first."""
        self._watched = NOTHING
        self._inquiries = Inquiries(self._shard, self._store, self._door, self)
        self._writers = Writers(app.outlets, self._wake)
        self._draining = self._stopping = False
        self._failed_at: float | None = None
        self._copier = ThreadPoolExecutor(1, "copier")
        self._copies: list[tuple[Any, int, Future[Copied]]] = []
        self._turns = self._commits = 0
        self._started = time.monotonic()
        self._poller = zmq.Poller()
        for source in (self._pipe.socket, self._door.fd, self._wake_fd, lifeline):
            self._poller.register(source, zmq.POLLIN)
        forks.let_go_in_children(
            [folder, assignment.store], [lifeline, self._wake_fd, self._door.fd], also=stray
        )

    def _open_store(self) -> WorkerStore:
        """Ours; for a moment the worker of a supervisor that was killed may still hold it."""
        assignment, config = self._assignment, self._assignment.config
        deadline = time.monotonic() + LOCKED_S
        while True:
            try:
                return LmdbStore.open(
                    assignment.store,
                    shard=assignment.shard,
                    sync=config.storage.sync,
                    quota_bytes=config.storage.quota_bytes,
                    memtable_bytes=config.memtable_bytes,
                    wake=self._wake,
                )
            except StoreLocked:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    # ── the loop ──

    def run(self) -> None:
        """Serve until told to stop. Raises what ends a worker."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS, *gc.get_threshold()[1:])
        self._heartbeat.watch_calls()
        while not self._stopping or self._shard.durable < self._shard.no:
            busy = self._round()
            self._listen(0 if busy else self._patience_ms())
        self._copier.shutdown()
        self._store.close()

    def open(self) -> None:
        """The new epoch must be durable before anything leaves."""
        self._shard.accept(_clocks())
        opening = self._shard.open()
        self._store.append(opening)
        while self._store.durable() < opening.no:
            self._poller.poll(TICK_MS)
        self._shard.accept(Durable(self._store.durable()))
        self._readers = Readers(list(self._partitions()))

    def _partitions(self) -> Iterator[Partition]:
        for pipeline in self._app.pipelines:
            for partition in pipeline.source.partitions():
                if self._shard.reads(pipeline.name, partition):
                    after = self._shard.position(pipeline.name, partition)
                    yield Partition(pipeline.name, pipeline.source, partition, after, self._wake)

    def _patience_ms(self) -> int:
        # A peer that hears late what is durable keeps its frames, and may be asked if all is over.
        demand = self._shard.demand()
        longest = ACK_MS if demand.owes_acks else TICK_MS if demand.restless else IDLE_MS
        if demand.wake_ns is None:
            return longest
        return max(0, min(longest, (demand.wake_ns - time.time_ns()) // 1_000_000 + 1))

    def _listen(self, timeout_ms: int) -> None:
        """One poll; what came is given to the shard."""
        if timeout_ms:
            self._heartbeat.sleep(time.monotonic() + timeout_ms / 1000)
            ready = dict(self._poller.poll(timeout_ms))
            self._heartbeat.wake()
        else:
            ready = dict(self._poller.poll(0))
        stirred = not timeout_ms or self._wake_fd in ready or self._pipe.socket in ready
        if self._lifeline in ready and not os.read(self._lifeline, 1):
            raise SystemExit(0)  # The supervisor is gone: kill -9 of us is always safe, so is this.
        if self._wake_fd in ready:
            os.eventfd_read(self._wake_fd)
        self._shard.accept(_clocks())
        if self._pipe.socket in ready:
            for raw in self._pipe.receive():
                self._shard.accept(Arrived(raw))
        if self._door.fd in ready:
            for event in self._door.receive():
                if isinstance(event, Control):
                    self._inquiries.serve(event)
                    continue
                stirred = True
                if self._draining and isinstance(event, Requested):
                    continue  # Unanswered: the caller tries again, and meets our successor.
                self._shard.accept(event)
        if stirred:
            self._stirs += 1
            self._heartbeat.stir(self._stirs)

    def _round(self) -> bool:
        """One batch. Whether there is more to do at once."""
        self._note_beat()
        durable = self._store.durable()
        if durable > self._shard.durable:
            self._shard.accept(Durable(durable))
        for written in self._writers.finished():
            self._shard.accept(written)
        # Whoever waited for what is durable now does not wait for the next batch as well; and rows
        # are kept for a backup before a batch runs frames from behind its cut.
        self._perform()
        behind = self._behind
        if not behind:
            demand = self._shard.demand()
            # Clients who wait have the next batch without what sources bring; every other at most,
            # so that these are read.
            hurry = self._hurry = not self._hurry and demand.asking
            if not (hurry or self._draining or demand.backpressured or self._store.pressed):
                # What is here already runs first; sources that add as much as runs would keep it.
                share = 4 if demand.inside else 1
                for items in self._readers.next(self._pace.items // share):
                    self._shard.accept(items)
            # What waits is on the disk; a stop need not come to its end, which may never be.
            if self._shard.runnable and not self._stopping:
                batch = self._batch()
                if batch is not None and batch.commit is not None:
                    self._store.append(batch.commit)
                    self._commits += 1
        self._perform()
        if self._readers.failure is not None:
            self._fail(self._readers.failure)
        self._inquiries.step()
        if self._copies:
            self._answer_copies()
        if behind:
            return False
        demand = self._shard.demand()
        reading = not self._draining and not demand.backpressured and self._readers.inline
        return bool(demand.runnable or reading or self._inquiries.busy)

    def _batch(self) -> Batch | None:
        """One batch; the bounds of the next follow the time that it took."""
        self._heartbeat.work()
        self._stopwatch.start()
        batch = self._shard.run(Budget(self._pace.turns, FULL if self._store.pressed else ""))
        if self._watched != NOTHING:
            self._watch(NOTHING)
        if batch is not None:
            self._turns += batch.turns
            self._pace.took(
                self._stopwatch.clock_s,
                self._stopwatch.own_s,
                turns=batch.turns,
                items=batch.items,
                asked=batch.requests,
                crowded=batch.crowded,
            )
        return batch

    def _fail(self, failure: Exception) -> None:
        """A source can't go on. Raises what it raised, when all that it gave before has counted."""
        now = time.monotonic()
        self._failed_at = self._failed_at or now
        shard = self._shard
        demand = shard.demand()
        counted = not demand.runnable and not demand.unacked and shard.durable == shard.no
        if counted or now > self._failed_at + FAILED_S:
            raise failure

    @property
    def _behind(self) -> bool:
        records, size = self._store.backlog
        return records >= BACKLOG_RECORDS or size >= BACKLOG_BYTES

    def _perform(self) -> None:
        """What the shard wants outside, in its order."""
        replies: list[Reply] = []
        for effect in self._shard.take_effects():
            match effect:
                case Transmit(peer, raw):
                    self._pipe.send(peer, raw)
                case Reply():
                    replies.append(effect)
                case Told((caller, n), _, outcome):
                    self._door.answer(caller, n, [outcome.kind, outcome.body])
                case Rewind(source, partition, after):
                    self._readers.rewind(source, partition, after)
                case Write():
                    self._writers.write(effect)
                case Keep(no):
                    self._store.keep(no)
                case Stop(error):
                    raise error
        if replies:
            self._door.replies(replies)

    # ── the supervisor's view ──

    def _note_beat(self) -> None:
        self._rounds += 1
        slow = self._shard.slow
        self._heartbeat.write(self._rounds, self._shard.no, self._watched, slow=slow)

    def _watch(self, identity: Identity) -> None:
        self._watched = identity
        self._heartbeat.write(self._rounds, self._shard.no, self._watched, slow=True)

    # ── what inquiries need of us ──

    def greeting(self) -> dict[str, Any]:
        """See `inquiries.Host`."""
        return {
            "incarnation": bytes.fromhex(self._assignment.description.incarnation),
            "shard": self._assignment.shard,
            "epoch": self._shard.epoch,
            "placement": self._shard.placement,
            "now_ns": time.time_ns(),
            "app": self._app.name,
            "types": {
                name: [h.name for h in kind.handlers.values() if not h.private]
                for name, kind in self._app.types.items()
            },
            "kept": sorted(self._shard.kept_types),
        }

    def status(self) -> dict[str, Any]:
        """See `inquiries.Host`."""
        store = self._store
        records, size = store.backlog
        return {
            **self._shard.stats(),
            "shard": self._assignment.shard,
            "pid": os.getpid(),
            "turns": self._turns,
            "items": self._readers.items,
            "skipped": self._readers.skipped,
            "commits": self._commits,
            "backpressured": self._shard.demand().backpressured or store.pressed,
            "backlog_records": records,
            "backlog_bytes": size,
            "uptime_s": round(time.monotonic() - self._started, 3),
            "callers": self._door.callers,
            "callers_max": self._door.callers_max,
            "turned_away": self._door.turned_away,
        }

    def backup(self, caller: Any, n: int, no: int, folder: str) -> None:
        """See `inquiries.Host`. The copying is done by a thread; turns go on meanwhile."""
        if len(self._copies) >= COPIES_MAX:
            raise SkerryError(f"{COPIES_MAX} backups are under way already. Wait for one to end.")
        self._shard.accept(Cut(no))
        self._perform()
        copy = self._store.copy_kept(no, Path(folder))
        copying = self._copier.submit(copy)
        copying.add_done_callback(lambda _: self._wake())
        self._copies.append((caller, n, copying))

    def _answer_copies(self) -> None:
        under_way, self._copies = self._copies, []
        for caller, n, copying in under_way:
            if not copying.done():
                self._copies.append((caller, n, copying))
            elif error := copying.exception():
                assert isinstance(error, Exception), "a copy is not interrupted"
                self._door.error(caller, n, error)
            else:
                copied = copying.result()
                self._door.answer(caller, n, [self._shard.epoch, copied.commit, copied.size])

    def steer(self, word: str) -> dict[str, Any]:
        """See `inquiries.Host`."""
        match word:
            case "quiet":
                pass
            case "stop":
                self._draining = self._stopping = True
            case unknown:
                raise ValueError(f"a worker can't be told {unknown!r}")
        finite, placement = bool(self._app.pipelines), self._shard.placement
        return {
            "quiet": self._shard.quiet and self._readers.finished and not self._behind,
            "finite": finite,
            "epoch": self._shard.epoch,
            "commit": self._shard.no,
            "version": placement.version,
            "turns": self._turns,
            "items": self._readers.items,
            "commits": self._commits,
            "skipped": self._readers.skipped,
            "progress": self._readers.progress(),
            "dead": self._shard.buried,
        }


def _clocks() -> Ticked:
    return Ticked(time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME))


def _prepare(assignment: Assignment) -> None:
    """The process: dies with its parent, runs on its core, dumps its stack when asked."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=False)
    forks.ignore_signals()
    forks.heed_signals_in_children()
    raise_limit()
    if assignment.core is not None:
        os.sched_setaffinity(0, {assignment.core})
    # A committer that has finished its fsync waits this long for a busy interpreter.
    sys.setswitchinterval(0.0005)
    assert len(assignment.placement.slots) == SLOTS, "a placement owns every slot"


def _lifeline() -> int:
    """What was our standard input, from now on an empty one. Not inherited by what we start."""
    lifeline = os.dup(sys.stdin.fileno())
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, sys.stdin.fileno())
    os.close(null)
    return lifeline


def end_soon(code: int) -> None:
    """The shard has come to its end. What handlers have started gets a moment to do so, too: else a
    thread or a child that nobody ends would be waited for by the interpreter, for ever."""

    def end() -> None:
        time.sleep(LINGER_S)
        os._exit(code)

    threading.Thread(target=end, daemon=True).start()


def _end_child(strayed: Strayed) -> NoReturn:
    """A handler has forked, and this is its child, back from the handler. It ends as it was going to:
    with the code of its `sys.exit`, or with the traceback of what it raised."""
    cause = strayed.__context__
    while isinstance(cause, Raised):
        cause = cause.__cause__
    code = cause.code if isinstance(cause, SystemExit) else 0 if cause is None else 1
    if cause is not None and not isinstance(cause, SystemExit):
        traceback.print_exception(cause)
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def _load(program: Program) -> App:
    """The app: imported where the supervisor says, or sent by value through our standard input."""
    for name in program.hidden:
        importlib.import_module(name)
    if program.pickled:
        import_from(program.path)
        return portable.loads(base64.b64decode(program.pickled))
    os.environ["SKERRY_ARGS"] = json.dumps(program.args)
    return load(program.target, program.path)


def _start(assignment: Assignment, lifeline: int) -> Worker:
    """A worker that can serve. Raises SkerryError: it can't, and starting it again mends nothing."""
    try:
        _prepare(assignment)
        app = _load(assignment.config.program)
        forks.ignore_signals()  # A program may have set handlers of its own, as for a server.
        worker = Worker(assignment, app, lifeline)
        worker.open()
        return worker
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
    """Run a worker. 0: stopped; 3: its store is damaged or its disk failed; 5: another cause
    that starting it again does not mend, and that it has named; 75: one that may pass; else it
    crashed."""
    assignment = Assignment.of(sys.stdin.buffer.readline())
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
        return _end(damage, DAMAGED)
    except SkerryError as error:
        return _end(error, HOPELESS)
    except Exception as error:
        return _end(SkerryError(explained(error)), AGAIN)
    try:
        worker.run()
    except Strayed as strayed:
        _end_child(strayed)
    except StoreDamaged as damage:
        return _end(damage, DAMAGED)
    except SkerryError as error:
        return _end(error, HOPELESS)
    return 0


def _end(error: SkerryError, code: int) -> int:
    print(f"skerry: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
