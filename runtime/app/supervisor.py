"""Runs an app: takes its data, keeps a worker per shard alive, and ends the workers in order.

    lease -> open -> announce -> workers, until all say that they are done, or somebody says stop
    a worker ended -> start it again | end the app, loudly

The decisions are elsewhere: `opening.py` refuses data that must not run, `watch.py` says what the
end of a worker means and when the app is over. Here they are carried out and reported.

Runs in the main thread of its process, since a child dies with the thread that spawned it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from skerry.errors import SkerryError
from skerry.runtime import forks
from skerry.runtime.app.children import STOP_S, Child, reap_orphans, spawn_due, stuck_of
from skerry.runtime.app.ends import Ends
from skerry.runtime.app.machine import Pins, allow_files
from skerry.runtime.app.premises import premises
from skerry.runtime.app.questions import Progress, Questions
from skerry.runtime.app.restarter import Restarter
from skerry.runtime.app.scaler import Held, Scaler
from skerry.runtime.app.signals import Signals
from skerry.runtime.app.sockets import Sockets
from skerry.runtime.config import Config, Program
from skerry.runtime.printable import Say
from skerry.runtime.private import narrow, remove_left
from skerry.runtime.worker.assignment import Assignment

LAPSED = -1
"""The exit code of a run whose lease has ended: the app can be run again."""

POLL_S = 0.05
"""How often to look while workers come up or end."""

BEATS_S = 0.5
"""How often to look at least. A change of a heartbeat may go unnoticed for as long."""


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
        self._signals = Signals()
        self._coordinator, self._members, self._leave = premises(
            config, self._data, say, lambda: self._signals.count > 0
        )
        self._sockets: Sockets | None = None
        self._children: list[Child] = []
        self._exit: int | None = None
        """The exit code, once the app is to end."""
        self._ends = Ends(self._data, say)
        self._adopts = forks.adopts_orphans()
        self._pins = Pins()
        self.progress = Progress()

    # ── the whole run ──

    def run(self) -> int:
        """Run the app; return the exit code. Raises SkerryError: it was refused.

        0: it ended or was stopped. 1: the supervisor gave it up. 3: a store is damaged. LAPSED: its
        lease has ended, and another host may run it.
        """
        if self._data.is_dir():
            narrow(self._data, self._say)
        try:
            return self._run()
        finally:
            self._leave()

    def _run(self) -> int:
        with self._signals.heeded():
            self._coordinator.acquire()
        try:
            # A supervisor that was killed has left it; until we announce ourselves, nobody runs the app.
            if left := self._coordinator.last_running():
                remove_left(left.folder)
            self._coordinator.withdraw()
            app = self._members.open(self._config)
            self._config = self._members.settled(self._config)
            self._description, members = app, app.placement.members
            allow_files(len(members))
            logs = self._data / "logs"
            logs.mkdir(mode=0o700, exist_ok=True)
            narrow(logs, self._say)
            supervision = self._config.supervision
            weigh_s = supervision.look_s if supervision.rebalance else None
            self._children = [Child(shard, self._say) for shard in members]
            sockets = Sockets(self._data, self._config, self._coordinator)
            self._questions = Questions(
                members, sockets.secret, serve=supervision.serve, weigh_s=weigh_s
            )
            self._questions.folder = sockets.path
            self.progress = self._questions.progress
            self._restarter = Restarter(self._children, self._questions, self, logs, self._say)
            self._sockets = sockets
            self.announce(members)
            self._scaler = Scaler(
                self._data, app, self._coordinator, self._members, self._questions, self, self._say
            )
            self._scaler.start(self._config.workers)
            forks.let_go_in_children([self._data, self._questions.folder])
            with self._signals.heeded():
                self._supervise(sockets)
            return self._exit or 0
        finally:
            self._clean_up()
            self._coordinator.release()

    def announce(self, shards: Sequence[int]) -> None:
        """Tell clients and workers which shards there are, and where."""
        assert self._sockets is not None, "there are sockets to tell of"
        self._sockets.announce(shards)

    def _supervise(self, sockets: Sockets) -> None:
        """Keep the workers until all have come to their end."""
        started = time.monotonic()
        while not all(child.done for child in self._children):
            sockets.tell_lease()
            if self._exit is None and self._coordinator.lost:
                self._stand_down()
            if self._exit is None:
                spawn_due(self._children, self.assignment)
            if self._config.supervision.pin:
                self._pins.deal([child.pids for child in self._children])
            self._questions.listen(self._signals.bell, sockets.door.fd, self._patience_s())
            sockets.door.serve(self)
            # Before any end of a worker is looked at: it may have been told to stop as we were.
            if self._signals.count and self._exit is None:
                self._say("stopping: what runs is committed …")
                self._stop(0)
            self._reap()
            if self._exit is None:
                for child in self._children:
                    child.look(self._config.supervision.hang_s)
                self._look_at(sockets)
                if self._exit is None:
                    self._go_on()
            else:
                self._press()
            self.progress.seconds = time.monotonic() - started
            self._show(self.progress)
        self._questions.count()

    def _stand_down(self) -> None:
        """End the workers, whose data are not ours any more."""
        if self._config.cluster is None:
            self._say(f"{self._data} was removed or replaced while the app ran. The app ends.")
            self._stop(1)
            return
        self._say("the lease of this host has ended, and its workers with it; it joins again")
        self._exit, self._stop_by_s = (
            LAPSED,
            0.0,
        )  # Killed at once: others run them by now, or will.

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
        ours = self._exit == LAPSED or not self._coordinator.lost
        self._sockets.remove(ours=ours)
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
        assert self._sockets is not None, "there is a place to meet"
        return Assignment(
            shard=child.shard,
            config=self._config,
            description=self._description,
            sockets=str(self._sockets.path),
            secret=self._sockets.secret,
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

    def _look_at(self, sockets: Sockets) -> None:
        """Make the sockets again when somebody has removed them, as a cleaner of old files does. Without
        them, no client finds a worker, nor does another worker. The workers are started anew."""
        if not sockets.due:
            return
        if sockets.whole(child.shard for child in self._children if child.serves):
            return
        before = sockets.path
        try:
            sockets.close()
            sockets.make()
            self._questions.folder = sockets.path
            self.announce(self._description.placement.members)
        except (SkerryError, OSError) as error:
            self._say(f"the sockets in {before} were removed, and can't be made again: {error}")
            self._stop(1)
            return
        self._say(
            f"the sockets in {before} were removed. They are made again, in {sockets.path}, and the "
            f"workers started anew; nothing is lost."
        )
        for child in self._children:
            child.kill()

    # ── the end ──

    def _stop(self, code: int) -> None:
        """Tell the workers to commit what runs, and to end."""
        self._exit, self._stop_by_s = code, time.monotonic() + STOP_S
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
