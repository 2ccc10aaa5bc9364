"""Runs an app: takes its data, keeps a worker per shard alive, and ends the workers in order.

    lease -> open -> announce -> workers, until all say that they are done, or somebody says stop
    a worker ended -> start it again | end the app, loudly

The decisions are elsewhere: `opening.py` refuses data that must not run, `watch.py` says what the
end of a worker means and when the app is over. Here they are carried out and reported.

Runs in the main thread of its process, since a child dies with the thread that spawned it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from skerry.errors import SkerryError
from skerry.runtime import forks
from skerry.runtime.app import control
from skerry.runtime.app.children import STOP_S, Child, reap_orphans, spawn_due, stuck_of
from skerry.runtime.app.coordinator import DirectoryCoordinator
from skerry.runtime.app.ends import Ends
from skerry.runtime.app.machine import Pins, allow_files
from skerry.runtime.app.opening import open_app
from skerry.runtime.app.questions import Progress, Questions
from skerry.runtime.app.restarter import Restarter
from skerry.runtime.app.scaler import Held, Scaler
from skerry.runtime.app.signals import Signals
from skerry.runtime.config import Config, Program
from skerry.runtime.description import Running
from skerry.runtime.gateway import knock
from skerry.runtime.ports import Coordinator
from skerry.runtime.printable import Say
from skerry.runtime.private import SocketsFolder, narrow, remove_left
from skerry.runtime.worker.assignment import Assignment

POLL_S = 0.05
"""How often to look while workers come up or end."""

BEATS_S = 0.5
"""How often to look at least. A change of a heartbeat may go unnoticed for as long."""

SOCKETS_EVERY_S = 2.0
"""How often to look whether the sockets are still where clients and peers expect them."""


class Supervisor:
    """Runs an app until it ends or is stopped. `run` returns the exit code."""

    def __init__(
        self,
        config: Config,
        *,
        say: Say,
        show: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        self._config, self._say, self._show = config, say, show
        self._data = Path(config.data).absolute()
        self._coordinator: Coordinator = DirectoryCoordinator(self._data)
        self._secret = knock.new_secret()
        self._sockets: SocketsFolder | None = None
        self._look_at_sockets_s = 0.0
        self._children: list[Child] = []
        self._signals = Signals()
        self._exit: int | None = None
        """The exit code, once the app is to end."""
        self._ends = Ends(self._data, say)
        self._adopts = forks.adopts_orphans()
        self._pins = Pins()
        self.progress = Progress()

    # ── the whole run ──

    def run(self) -> int:
        """Run the app; return the exit code. Raises SkerryError: it was refused.

        0: it ended or was stopped. 1: the supervisor gave it up. 3: a store is damaged.
        """
        if self._data.is_dir():
            narrow(self._data, self._say)
        self._coordinator.acquire()
        try:
            # A supervisor that was killed has left it; until we announce ourselves, nobody runs the app.
            if left := self._coordinator.last_running():
                remove_left(left.folder)
            self._coordinator.withdraw()
            app = open_app(self._config, self._coordinator, self._data, self._say)
            self._description, members = app, app.placement.members
            allow_files(len(members))
            logs = self._data / "logs"
            logs.mkdir(mode=0o700, exist_ok=True)
            narrow(logs, self._say)
            supervision = self._config.supervision
            weigh_s = supervision.look_s if supervision.rebalance else None
            self._children = [Child(shard, self._say) for shard in members]
            self._questions = Questions(
                members, self._secret, serve=supervision.serve, weigh_s=weigh_s
            )
            self.progress = self._questions.progress
            self._restarter = Restarter(self._children, self._questions, self, logs, self._say)
            self._make_sockets()
            self._scaler = Scaler(
                self._data, app, self._coordinator, self._questions, self, self._say
            )
            self._scaler.start(self._config.workers)
            forks.let_go_in_children([self._data, self._questions.folder])
            with self._signals.heeded():
                self._supervise()
            return self._exit or 0
        finally:
            self._clean_up()
            self._coordinator.release()

    def _make_sockets(self) -> None:
        """Make a folder for the sockets and our own door, and tell clients of it."""
        self._sockets = SocketsFolder(self._data)
        self._questions.folder = self._sockets.path
        self._door = control.Door(self._sockets.path, self._secret)
        self.announce(self._description.placement.members)

    def announce(self, shards: Sequence[int]) -> None:
        """Tell clients and workers which shards there are, and where."""
        assert self._sockets is not None, "there are sockets to tell of"
        self._coordinator.announce(
            Running(
                pid=os.getpid(),
                app=self._config.program.app,
                sockets=os.fsencode(self._sockets.path).decode(errors="surrogateescape"),
                shards=list(shards),
                secret=self._secret,
            )
        )

    def _supervise(self) -> None:
        """Keep the workers until all have come to their end."""
        started = time.monotonic()
        while not all(child.done for child in self._children):
            if self._exit is None:
                spawn_due(self._children, self.assignment)
            if self._config.supervision.pin:
                self._pins.deal([child.pids for child in self._children])
            self._questions.listen(self._signals.bell, self._door.fd, self._patience_s())
            self._door.serve(self)
            # Before any end of a worker is looked at: it may have been told to stop as we were.
            if self._signals.count and self._exit is None:
                self._say("stopping: what runs is committed …")
                self._stop(0)
            self._reap()
            if self._exit is None:
                for child in self._children:
                    child.look(self._config.supervision.hang_s)
                self._look_at_sockets()
                if self._exit is None:
                    self._go_on()
            else:
                self._press()
            self.progress.seconds = time.monotonic() - started
            self._show(self.progress)
        self._questions.count()

    def _go_on(self) -> None:
        """Move slots, if some are to move; see whether all is over, if not."""
        if not self._scaler.busy:
            self._restarter.step(held=self._scaler.held)
            if self._questions.step(self._children):
                self._stop(0)
            elif (loads := self._questions.take_loads()) and not self._restarter.busy:
                self._scaler.weigh(loads)
            return
        try:
            self._scaler.step()
        except (SkerryError, OSError) as error:
            self._say(f"{error} The app ends; the next start goes on with the move.")
            self._stop(1)

    def _patience_s(self) -> float:
        """Return how long to wait for something to happen before looking again."""
        if self._exit is not None:
            return POLL_S
        if self._scaler.busy or self._restarter.busy:
            return POLL_S
        longest_s = min(BEATS_S, self._config.supervision.hang_s / 4)
        if any(child.watch.dumping for child in self._children):
            longest_s = POLL_S
        return self._questions.patience_s(self._children, longest_s, POLL_S)

    def _clean_up(self) -> None:
        """End workers that still run, and leave the data as the next start expects it."""
        for child in self._children:
            child.kill()
        for child in self._children:
            child.wait()
        if self._sockets is None:
            return
        self._restarter.close()
        self._questions.close()
        ours = self._coordinator.holds()
        if ours or self._sockets.path.parent != self._data.resolve():
            self._sockets.remove()
        if not ours:
            self._say(f"{self._data} was removed or replaced; what is there now is left alone.")
            return
        self._coordinator.withdraw()
        if self._exit == 0:
            app = self._description
            app.clean = True
            try:
                self._coordinator.replace(app, generation=app.generation)
            except SkerryError as error:
                self._say(str(error))  # Only a start after `--sync off` depends on it.

    # ── what we are told to do (`control.Host`) ──

    def scale(self, workers: int) -> None:
        """Begin to change to this many workers. Raises SkerryError."""
        self._restarter.check_idle("Scale")
        self._scaler.scale(workers)

    def hold(self) -> Held:
        """Let no slot begin to move for a while, and no worker be replaced; say what still moves."""
        self._restarter.check_whole()
        return self._scaler.hold()

    def restart(self) -> None:
        """Begin to replace the workers. Raises SkerryError."""
        self._scaler.check_idle("Restart")
        self._restarter.begin(self._config)

    @property
    def stopping(self) -> bool:
        """Whether the app comes to its end."""
        return self._exit is not None

    def status(self) -> dict[str, Any]:
        """Say what is under way."""
        stuck = {"stuck": stuck_of(self._children)}
        return self._scaler.status() | self._restarter.status() | stuck

    def adopt(self, program: Program) -> None:
        """Start workers with this program from now on. Raises SkerryError: it is as it was."""
        new = replace(self._description, renamed=program.renamed)
        self._coordinator.replace(new, generation=new.generation)
        self._description.renamed = program.renamed
        self._config = replace(self._config, program=program)

    # ── workers ──

    def hire(self, shard: int) -> None:
        """Keep a worker of this shard, too."""
        if all(child.shard != shard for child in self._children):
            self._children.append(Child(shard, self._say))

    def dismiss(self, shard: int) -> None:
        """End the worker of a shard, and keep none any more."""
        for child in [child for child in self._children if child.shard == shard]:
            child.kill()
            child.wait()
            self._children.remove(child)

    def assignment(self, child: Child) -> Assignment:
        """Return the assignment of a worker that is started now."""
        return Assignment(
            shard=child.shard,
            config=self._config,
            description=self._description,
            sockets=str(self._questions.folder),
            secret=self._secret,
            slow=child.watch.slow,
            poison=child.watch.poison,
            verdict=child.watch.verdict,
        )

    def _reap(self) -> None:
        """Reap the workers that have ended; start them again, or end the app."""
        for child in self._children:
            ended = child.reap()
            if ended is not None:
                self._questions.lost(child.shard)
                code = self._exit
                if code is None and not self._restarter.ended(child, ended):
                    patient = self._restarter.is_patient(ended)
                    code = self._ends.judge(child, ended, patient=patient)
                if code is not None:
                    child.done = True
                    if self._exit is None:
                        self._stop(code)
            elif child.process is None and self._exit is not None:
                child.done = True
        if self._adopts:
            reap_orphans(self._children)

    def _look_at_sockets(self) -> None:
        """Make the sockets again when somebody has removed them, as a cleaner of old files does. Without
        them, no client finds a worker, nor does another worker. The workers are started anew."""
        now = time.monotonic()
        if now < self._look_at_sockets_s or self._sockets is None:
            return
        self._look_at_sockets_s = now + SOCKETS_EVERY_S
        if not self._coordinator.holds():
            self._say(f"{self._data} was removed or replaced while the app ran. The app ends.")
            self._stop(1)
            return
        folder = self._sockets
        serving = [child.shard for child in self._children if child.serves]
        names = [f"{of}-{shard}" for shard in serving for of in ("door", "pipe", "beat")]
        names.append(control.NAME)
        if folder.stands() and all((folder.path / name).exists() for name in names):
            return
        try:
            folder.remove()
            self._door.close()
            self._make_sockets()
        except (SkerryError, OSError) as error:
            self._say(
                f"the sockets in {folder.path} were removed, and can't be made again. The app ends."
            )
            self._say(str(error))
            self._stop(1)
            return
        self._say(
            f"the sockets in {folder.path} were removed. They are made again, in "
            f"{self._sockets.path}, and the workers started anew; nothing is lost."
        )
        for child in self._children:
            child.kill()

    # ── the end ──

    def _stop(self, code: int) -> None:
        """Tell the workers to commit what runs, and to end."""
        self._exit = code
        self._stop_by_s = time.monotonic() + STOP_S
        self._questions.tell_all(self._alive, "stop")

    def _press(self) -> None:
        """Tell the workers to stop again; kill them when they take too long, or a person is impatient."""
        if self._signals.count > 1 or time.monotonic() > self._stop_by_s:
            for child in self._children:
                child.kill()
        elif self._questions.due:
            self._questions.tell_all(self._alive, "stop")

    @property
    def _alive(self) -> list[int]:
        """The shards that have a process."""
        return [child.shard for child in self._children if child.process is not None]
