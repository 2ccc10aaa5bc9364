"""Spawns workers, watches them, restarts them within a budget, gives up loudly.

    spawn (config on stdin, held open) -> beat file, exit code, door -> restart | stop | end

One worker per shard. Before another is started for a shard, the old one's end is waited
for: the store's lock is the fence, this only saves the wait. What is made of what is seen is
decided in `watch.py`; here it is done, and said.

Runs in the main thread of its process, since a child dies with the thread that spawned it.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import msgspec
import psutil
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged, storable
from skerry.runtime import forks
from skerry.runtime.app import directory, membership
from skerry.runtime.app.reshard import reshard
from skerry.runtime.app.watch import RESTARTS_WITHIN_S, Beat, GiveUp, Restart, Rounds, Watch
from skerry.runtime.config import Config
from skerry.runtime.description import Description, Running, boot_id
from skerry.runtime.gateway import knock, protocol
from skerry.runtime.gateway.channel import Broken, Channel
from skerry.runtime.printable import one_line
from skerry.runtime.private import SocketsFolder, narrow, remove_left
from skerry.runtime.store.check import check_apart
from skerry.runtime.worker import heartbeat
from skerry.runtime.worker.assignment import Assignment
from skerry.runtime.worker.process import AGAIN, DAMAGED, HOPELESS

T = TypeVar("T")

POLL_S = 0.05
"""How often one looks while workers come up or end."""

BEATS_S = 0.5
"""How often one looks at the least, and what a worker that has no more to tell may leave untold."""

QUIET_EVERY_S = 0.1

ANSWER_S = 1.0
"""A question that is not answered so long is asked again."""
ANSWER_BYTES_MAX = 1 << 20
"""What a worker says of itself: far less."""

LOOK_S = 2.0
"""How often it is looked whether the sockets are still where clients and peers look for them."""

FILES, FILES_PER_WORKER = 48, 8
"""Files that a worker has open: store, log, sockets; and to each other worker, or for it."""
SAME_WISH_S = 1.0
"""Told to end twice within this time, we were told once; but for Ctrl-C, which a person presses."""

STOP_S = 30.0
"""How long a worker may take to commit what runs, when told to stop."""


class Progress(Struct):
    """Where the app stands, for who shows it."""

    turns: int = 0
    items: int = 0
    commits: int = 0
    dead: int = 0
    """Dead letters that came."""
    skipped: int = 0
    """Rows of sources that were passed over."""
    part: float | None = None
    seconds: float = 0.0


class _Child:
    """One worker process."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.process: subprocess.Popen[bytes] | None = None
        self.watch = Watch()
        self.start_at = 0.0
        self.before = Progress()
        """What earlier processes of this shard have done."""
        self.latest = Progress()
        self.beat: Beat | None = None
        self.done = False


def usable_cores() -> list[int]:
    """The cores that this process may use, fewer when a cgroup's quota is smaller."""
    cores = sorted(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            cores = cores[: max(1, -(-int(quota) // int(period)))]
    except (OSError, ValueError):
        pass  # No cgroup v2 here: the affinity is all there is.
    return cores


def allow_files(workers: int) -> None:
    """As many open files as a worker of so many needs. Raises SkerryError: the limit is lower."""
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


class Supervisor:
    """Runs an app until it ends or is stopped. `run` returns the exit code."""

    def __init__(
        self,
        config: Config,
        *,
        say: Callable[[str], None],
        show: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._config, self._say, self._show = config, say, show
        self._data = Path(config.data).absolute()
        self._children: list[_Child] = []
        self._signals = 0
        self._told_s = -math.inf
        self._exit: int | None = None
        self._folder: SocketsFolder | None = None
        self._secret = knock.new_secret()
        self._doors: dict[int, Channel] = {}
        self._numbers: dict[int, bytes] = {}
        """What doors have still to prove themselves with."""
        self._look_at = 0.0
        self._asked_at = 0.0
        self._round = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._judged = self._ends = False
        """Whether the newest round was looked at; whether it may have been the last but one."""
        self._stirs: list[int] = []
        """What had happened at each worker before it was asked."""
        self._rounds = Rounds()
        self.progress = Progress()
        self._oom_kills = oom_kills_so_far()
        self._adopts = forks.adopts_orphans()

    # ── the whole run ──

    def run(self) -> int:
        """0: ended or stopped; 1: gave up; 3: a store is damaged."""
        if self._data.is_dir():
            narrow(self._data, self._say)
        lock = self._lock = directory.lock(self._data, self._config.program.app)
        try:
            # Left by one that was killed: nobody runs until we say so.
            if left := directory.last_running(self._data):
                remove_left(left.folder)
            (self._data / "run.json").unlink(missing_ok=True)
            self._file = self._open_app()
            allow_files(len(self._file.placement.members))
            self._make_logs()
            self._announce()
            self._children = [_Child(shard) for shard in self._file.placement.members]
            forks.let_go_in_children([self._data, Path(self._sockets)])
            return self._supervise()
        finally:
            self._clean_up()
            os.close(lock)

    def _open_app(self) -> Description:
        """The app's description, made when there is none. Refuses another app's data."""
        config, program = self._config, self._config.program
        known = directory.load(self._data)
        if known is None:
            workers = config.workers or len(usable_cores())
            known = membership.create(self._data, app=program.app, workers=workers)
        else:
            known = self._checked(known)
        known.sync, known.target = config.storage.sync, storable(program.target)
        known.renamed = program.renamed
        known.boot_id, known.clean = boot_id(), False
        membership.enlist(self._data, known)
        return known

    def _checked(self, known: Description) -> Description:
        """An app that ran before, as it is to run now."""
        config = self._config
        if known.app != config.program.app:
            raise SkerryError(
                f"{self._data} holds the app {known.app!r}, not {config.program.app!r}. "
                f"Choose another folder with --data."
            )
        if known.backup is not None:
            raise SkerryError(
                f"{self._data} is a backup, which is kept as it is. `skerry restore {self._data} "
                f"--data DIR` makes a data directory from it that can run."
            )
        for _, damage in membership.disagreements(self._data, known):
            raise StoreDamaged(damage)
        for sentence in membership.clear(self._data, known):
            self._say(sentence)
        shards = len(known.placement.members)
        workers = config.workers or shards
        lost = known.may_have_lost
        if lost and not config.storage.accept_loss:
            raise SkerryError(
                f"{self._data} ran with --sync off when the machine went down: its last commits "
                f"may be lost. Start with --accept-loss to go on from what is there."
            )
        if lost:
            known.begin_anew()
        if lost or workers != shards:
            # Shards that lost different amounts no longer agree on the numbers of their frames:
            # new ones begin their streams anew, with what is there.
            self._say(f"dealing {shards} shards out to {workers} …")
            known = reshard(self._data, known, workers)
        return known

    def _make_logs(self) -> None:
        logs = self._data / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        narrow(logs, self._say)

    def _announce(self) -> None:
        """Make a place for the sockets, and tell clients of it."""
        self._folder = SocketsFolder(self._data)
        running = Running(
            os.getpid(),
            self._config.program.app,
            os.fsencode(self._folder.path).decode(),
            self._file.placement.members,
            self._secret,
        )
        directory.announce(self._data, running)

    @property
    def _sockets(self) -> str:
        assert self._folder is not None, "there is a place before there are workers"
        return str(self._folder.path)

    def _supervise(self) -> int:
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in forks.OURS_TO_HANDLE
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
        }
        # That a child has ended wakes us, as does any signal.
        previous[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._bell, rung = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        before = signal.set_wakeup_fd(rung, warn_on_full_buffer=False)
        started = time.monotonic()
        try:
            while not all(child.done for child in self._children):
                self._spawn_due()
                self._listen()
                self._heed()
                self._reap()
                self._reap_orphans()
                self._watch()
                self._ask()
                self._look_at_sockets()
                self.progress.seconds = time.monotonic() - started
                self._show(self.progress)
            self._count()
        finally:
            signal.set_wakeup_fd(before)
            for number, handler in previous.items():
                signal.signal(number, handler)
            os.close(self._bell)
            os.close(rung)
        return self._exit or 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # Service managers and `timeout` tell the group, and us besides: that is one wish, not two.
        now = time.monotonic()
        if number == signal.SIGINT or now - self._told_s > SAME_WISH_S:
            self._signals, self._told_s = self._signals + 1, now

    def _heed(self) -> None:
        """Stop when told to. Before any worker's end is looked at: it may have been told so, too."""
        if self._signals and self._exit is None:
            self._say("stopping: what runs is committed …")
            self._stop(0)

    def _clean_up(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                child.process.kill()
                child.process.wait()
        for door in self._doors.values():
            door.close()
        ours = self._data_stands()
        if self._folder is not None and (ours or self._folder.path.parent != self._data.resolve()):
            self._folder.remove()
        if not ours:
            self._say(f"{self._data} was removed or replaced; what is there now is left alone.")
            return
        (self._data / "run.json").unlink(missing_ok=True)
        if self._exit == 0 and self._children:
            self._file.clean = True
            try:
                directory.save(self._data, self._file)
            except SkerryError as error:
                self._say(str(error))  # Only a start behind `--sync off` would have liked to know.

    # ── children ──

    def _spawn_due(self) -> None:
        now = time.monotonic()
        for place, child in enumerate(self._children):
            if child.process is None and not child.done and now >= child.start_at:
                if self._exit is not None:
                    child.done = True
                else:
                    self._spawn(child, place)

    def _spawn(self, child: _Child, place: int) -> None:
        pin, cores = self._config.supervision.pin, usable_cores()
        assignment = Assignment(
            shard=child.shard,
            config=self._config,
            description=self._file,
            sockets=self._sockets,
            secret=self._secret,
            core=cores[place] if pin and len(self._children) <= len(cores) else None,
            slow=child.watch.slow,
            poison=child.watch.poison,
            verdict=child.watch.verdict,
        )
        environment = dict(os.environ)
        environment.pop("PYTHONOPTIMIZE", None)  # Assertions stay on: they stop a worker loudly.
        environment["PYTHONUNBUFFERED"] = "1"  # What a handler prints is seen when it prints it.
        # Its own, if it comes so far: who ends without one has not served.
        Path(self._beat_file(child)).unlink(missing_ok=True)
        # Until it has its own way with signals to all of us, it is not ended by one.
        forks.block_signals()
        try:
            child.process = subprocess.Popen(
                # Not -m alone: it would import from the folder that we are in, whatever lies there.
                [sys.executable, "-P", "-m", "skerry.runtime.worker.process"],
                cwd=self._config.program.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        finally:
            forks.unblock_signals()
        assert child.process.stdin is not None, "a worker has a lifeline"
        try:
            child.process.stdin.write(assignment.line())
            child.process.stdin.flush()
        except BrokenPipeError:  # Killed before it could read: that it ended is seen as ever.
            with contextlib.suppress(BrokenPipeError):
                child.process.stdin.close()
        child.watch.started(time.monotonic())
        child.before = Progress(
            child.before.turns + child.latest.turns,
            child.before.items + child.latest.items,
            child.before.commits + child.latest.commits,
            child.before.dead + child.latest.dead,
            child.before.skipped + child.latest.skipped,
        )
        child.latest = Progress()
        threading.Thread(target=self._collect, args=(child, child.process), daemon=True).start()

    def _collect(self, child: _Child, process: subprocess.Popen[bytes]) -> None:
        """A worker's output: into its log, and to our own error output with its name."""
        assert process.stdout is not None, "a worker's output is a pipe"
        log = self._log_of(child)
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\n")
            # A full disk must not keep a worker from saying that the disk is full.
            with contextlib.suppress(OSError), open(log, "a", encoding="utf-8") as file:
                file.write(f"{line}\n")
            self._say(f"[{child.shard}] {line}")

    def _reap(self) -> None:
        for child in self._children:
            if child.process is None or child.process.poll() is None:
                continue
            code = child.process.returncode
            child.process = None
            named = code == heartbeat.last_word(self._beat_file(child))
            # Whatever still holds its listener, nobody knocks there any more.
            Path(f"{self._sockets}/door-{child.shard}").unlink(missing_ok=True)
            # Its last words: what it says to "stop" counts all its turns.
            self._hear(child)
            self._close_door(child.shard)
            self._answers.clear()
            self._rounds.interrupted()
            if self._exit is not None:
                child.done = True
            elif code == DAMAGED and named:
                self._say(f"worker {child.shard} stopped: its store needs a person. The app ends.")
                self._stop(DAMAGED)
                child.done = True
            elif code == HOPELESS and named:
                self._say(f"worker {child.shard} stopped for the reason above. The app ends.")
                self._stop(1)
                child.done = True
            else:
                self._restart(child, code)

    def _reap_orphans(self) -> None:
        """Where we are process 1, or in its place: what handlers have started and left behind."""
        if not self._adopts:
            return
        ours = {child.process.pid for child in self._children if child.process is not None}
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitid(os.P_ALL, 0, look)) and ended.si_pid not in ours:
                os.waitpid(ended.si_pid, 0)

    def _restart(self, child: _Child, code: int) -> None:
        now = time.monotonic()
        how = f"killed by signal {-code}" if code < 0 else f"exit code {code}"
        oom_kills, before = oom_kills_so_far(), self._oom_kills
        self._oom_kills = oom_kills
        did = _what_its_handler_did(code, for_memory=oom_kills != before)
        if code in (-signal.SIGBUS, -signal.SIGSEGV):
            store = self._data / f"shard-{child.shard}"
            if damage := check_apart(store, shard=child.shard):
                self._say(f"worker {child.shard} ended ({how}): {damage[0]}")
                self._stop(DAMAGED)
                child.done = True
                return
        killed = code in (-signal.SIGKILL, -signal.SIGTERM)
        if not killed and code != AGAIN and not self._served(child):
            self._say(
                f"worker {child.shard} ended ({how}) before it served anybody, and would again. The "
                f"app ends; its log: {self._log_of(child)}"
            )
            self._stop(1)
            child.done = True
            return
        if killed and oom_kills == before:
            verdict: Restart | GiveUp = child.watch.killed(now, self._beat(child), did)
        else:
            verdict = child.watch.crashed(now, self._beat(child), did)
        match verdict:
            case Restart(at_s):
                self._say(f"worker {child.shard} ended ({how}) and is started again")
                child.start_at = at_s
            case GiveUp(crashes):
                self._say(
                    f"worker {child.shard} ended {crashes} times in {RESTARTS_WITHIN_S:.0f} s "
                    f"(now: {how}). The app gives up; its log: {self._log_of(child)}"
                )
                self._stop(1)
                child.done = True

    def _served(self, child: _Child) -> bool:
        """Whether the process that ended had come so far."""
        beat = self._beat(child)
        return beat is not None and beat.rounds > 0

    def _log_of(self, child: _Child) -> Path:
        return self._data / "logs" / f"worker-{child.shard}.log"

    def _beat(self, child: _Child) -> Beat | None:
        return heartbeat.read(self._beat_file(child))

    def _beat_file(self, child: _Child) -> str:
        return f"{self._sockets}/beat-{child.shard}"

    def _watch(self) -> None:
        """Rounds that stand still: a handler does not return."""
        hang_s = self._config.supervision.hang_s
        for child in self._children:
            beat = child.beat = self._beat(child)
            if child.process is None or self._exit is not None or beat is None:
                continue
            stopped = partial(is_stopped, child.process.pid)
            match child.watch.look(time.monotonic(), beat, hang_s, stopped):
                case "stopped":
                    self._say(f"worker {child.shard} is stopped (SIGSTOP); it goes on with SIGCONT")
                case "dump":
                    self._say(
                        f"worker {child.shard} has not moved for {hang_s:g} s: a handler does not "
                        f"return. Its stack follows; the worker is killed and started again."
                    )
                    child.process.send_signal(signal.SIGUSR2)
                case "kill":
                    child.process.kill()
                    child.process.wait()
                    child.watch.hung(
                        beat, f"did not return within {hang_s:g} s and its worker was killed"
                    )

    def _data_stands(self) -> bool:
        """Whether the data directory is still the one that we have locked."""
        try:
            return os.path.samestat(os.fstat(self._lock), (self._data / "lock").stat())
        except OSError:
            return False

    def _look_at_sockets(self) -> None:
        """Somebody may have swept them away: a cleaner of old files, say. Then nobody finds a door,
        and no worker another: they are made again, at the cost of a start of the workers."""
        now = time.monotonic()
        if self._exit is not None or now < self._look_at or self._folder is None:
            return
        self._look_at = now + LOOK_S
        if not self._data_stands():
            self._say(f"{self._data} was removed or replaced while the app ran. The app ends.")
            self._stop(1)
            return
        names = [f"{kind}-{shard}" for shard in self._doors for kind in ("door", "pipe")]
        folder = self._folder
        if folder.stands() and all((folder.path / name).exists() for name in names):
            return
        try:
            folder.remove()
            self._announce()
        except (SkerryError, OSError) as error:
            self._say(
                f"the sockets in {folder.path} were removed, and can't be made again. The app ends."
            )
            self._say(str(error))
            self._stop(1)
            return
        self._say(
            f"the sockets in {folder.path} were removed. They are made again, in {self._sockets}, and "
            f"the workers started anew; nothing is lost."
        )
        for child in self._children:
            if child.process is not None:
                child.process.kill()

    def _stop(self, code: int) -> None:
        self._exit = code
        for child in self._children:
            if child.process is not None and child.process.poll() is None:
                self._tell(child.shard, "stop")
        self._stop_by = time.monotonic() + STOP_S

    # ── doors ──

    def _tell(self, shard: int, word: str) -> None:
        """Say this to a worker. One that is away is told in the next round."""
        door = self._doors.get(shard) or self._knock(shard)
        if door is not None:
            self._with(shard, lambda: door.say(protocol.encode(protocol.Steer(self._round, word))))

    def _knock(self, shard: int) -> Channel | None:
        """A way to a worker. It is told things before it has proven who it is, and believed after."""
        door = Channel.to(f"{self._sockets}/door-{shard}", message_bytes_max=ANSWER_BYTES_MAX)
        if door is not None:
            self._doors[shard], self._numbers[shard] = door, knock.drawn()
            raw = knock.knock(self._secret, self._numbers[shard])
            self._with(shard, lambda: door.say(raw))
        return self._doors.get(shard)

    def _with(self, shard: int, speak: Callable[[], T]) -> T | None:
        """Do this at a door; None when it is gone."""
        try:
            return speak()
        except Broken:
            self._close_door(shard)
            return None

    def _close_door(self, shard: int) -> None:
        if door := self._doors.pop(shard, None):
            door.close()

    def _ask(self) -> None:
        """Begin a round of questions when the one before has ended; act on what was said."""
        now = time.monotonic()
        if self._exit is not None and (self._signals > 1 or now > self._stop_by):
            for child in self._children:
                if child.process is not None:
                    child.process.kill()
            return
        if now - self._asked_at < QUIET_EVERY_S:
            return
        if self._exit is not None:
            for child in self._children:
                if child.process is not None:
                    self._tell(child.shard, "stop")
            self._asked_at = now
            return
        if len(self._answers) == len(self._children):
            if not self._judged:
                self._judge_round()
            if self._exit is not None or self._nothing_new():
                return
        elif len(self._doors) == len(self._children) and now - self._asked_at < ANSWER_S:
            return  # Each has its question; one that is not there yet is asked again at once.
        self._round += 1
        self._answers.clear()
        self._judged = False
        self._stirs = self._stirs_now()
        self._asked_at = now
        for child in self._children:
            self._tell(child.shard, "quiet")

    def _judge_round(self) -> None:
        self._judged = True
        self._sum_up()
        over = self._rounds.over(self._answers)
        answers = self._answers.values()
        serve = self._config.supervision.serve
        finite = not serve and all(answer["finite"] for answer in answers)
        self._ends = finite and all(answer["quiet"] for answer in answers)
        if over and finite:
            self._stop(0)

    def _stirs_now(self) -> list[int]:
        return [0 if child.beat is None else child.beat.stirs for child in self._children]

    def _nothing_new(self) -> bool:
        """Whether all have told all that there is, and nothing has happened at any since they were
        asked. But when all are quiet, one more round says whether that is the end."""
        return self._judged and not self._ends and self._stirs_now() == self._stirs

    def _sum_up(self) -> None:
        """What a whole round says of the run."""
        self._count()
        parts = [answer["progress"] for answer in self._answers.values()]
        read = total = 0.0
        if all(part is not None for part in parts):
            read, total = (sum(column) for column in zip(*parts))
        self.progress.part = read / total if total else None

    def _count(self) -> None:
        """What was done so far, in all lives of all workers."""
        whole = [(child.before, child.latest) for child in self._children]
        self.progress.turns = sum(a.turns + b.turns for a, b in whole)
        self.progress.items = sum(a.items + b.items for a, b in whole)
        self.progress.commits = sum(a.commits + b.commits for a, b in whole)
        self.progress.dead = sum(a.dead + b.dead for a, b in whole)
        self.progress.skipped = sum(a.skipped + b.skipped for a, b in whole)

    def _patience_s(self) -> float:
        """How long one waits for something to happen before one looks again."""
        if self._exit is not None or len(self._doors) < len(self._children):
            return POLL_S
        longest = min(BEATS_S, self._config.supervision.hang_s / 4)
        if any(child.watch.dumping for child in self._children):
            longest = POLL_S
        whole = len(self._answers) == len(self._children)
        if whole and self._nothing_new():
            return longest
        due = self._asked_at + (QUIET_EVERY_S if whole else ANSWER_S)
        return min(longest, max(0.0, due - time.monotonic()))

    def _listen(self) -> None:
        poll = select.poll()
        for door in self._doors.values():
            poll.register(door, select.POLLIN | (select.POLLOUT if door.unsent else 0))
        poll.register(self._bell, select.POLLIN)
        poll.poll(self._patience_s() * 1000)
        with contextlib.suppress(BlockingIOError):
            os.read(self._bell, 4096)
        for child in self._children:
            self._hear(child)

    def _hear(self, child: _Child) -> None:
        """What a worker has said; and what it is told leaves, as much as it takes."""
        door = self._doors.get(child.shard)
        if door is None:
            return
        for raw in self._with(child.shard, door.hear) or ():
            if number := self._numbers.pop(child.shard, b""):
                if not knock.is_answer(self._secret, number, raw):
                    self._close_door(child.shard)
                    return
                continue
            kind, n, *rest = msgspec.msgpack.decode(raw)
            if kind == "answer" and n == self._round:
                answer = self._answers[child.shard] = rest[0]
                child.latest = Progress(
                    *(answer[of] for of in ("turns", "items", "commits", "dead", "skipped"))
                )
        self._with(child.shard, door.go_on)


def _what_its_handler_did(code: int, *, for_memory: bool) -> str:
    """What a message did to its worker that ended so, if it was the message that did it."""
    if code >= 0:
        return f"ended its process with exit code {code}"
    number = -code
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    why = ", which the system sends when memory runs out" if for_memory else ""
    return f"ended its process by signal {name}{why}"


def is_stopped(pid: int) -> bool:
    """Whether a process was told to stand still."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def oom_kills_so_far() -> int:
    """How many processes this machine has killed for their memory; 0 where it does not tell."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _say(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)


def main() -> int:
    """Run as a process of its own, for `app.running()`. The configuration comes as a line of JSON on
    standard input, whose end is the supervisor's end."""
    config = msgspec.json.decode(sys.stdin.buffer.readline(), type=Config)
    parent_gone = threading.Thread(target=_end_with_parent, daemon=True)
    parent_gone.start()
    try:
        return Supervisor(config, say=_say).run()
    except SkerryError as error:
        print(f"skerry: {error}", file=sys.stderr)
        return 1


def _end_with_parent() -> None:
    # Unbuffered: a thread that holds the buffer's lock stops the interpreter's exit.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
