"""Runs an app: takes its data, keeps a worker per shard alive, and ends the workers in order.

    lease -> open -> announce -> workers, until all say that they are done, or somebody says stop
    a worker ended -> start it again | end the app, loudly

The decisions are elsewhere: `opening.py` refuses data that must not run, `watch.py` says what the
end of a worker means and when the app is over. Here they are carried out and reported.

Runs in the main thread of its process, since a child dies with the thread that spawned it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from skerry.errors import SkerryError
from skerry.runtime import forks
from skerry.runtime.app.children import STOP_S, Child, stuck_of
from skerry.runtime.app.crew import Crew
from skerry.runtime.app.ends import Ends
from skerry.runtime.app.machine import allow_files
from skerry.runtime.app.part import Part
from skerry.runtime.app.premises import premises
from skerry.runtime.app.questions import Progress, Questions
from skerry.runtime.app.register import Register
from skerry.runtime.app.restarter import Restarter
from skerry.runtime.app.scaler import Held
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

HOSTS_S = 0.25
"""How often to look at least for what other hosts have changed."""

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
        self._premises = premises(config, self._data, say, lambda: self._signals.count > 0)
        self._coordinator = self._premises.coordinator
        self._sockets: Sockets | None = None
        self._crew = Crew(config.supervision, say)
        self._children = self._crew.children
        self._exit: int | None = None
        """The exit code, once this process is to end."""
        self._ends = Ends(self._data, say)
        self.progress = Progress()

    # ── the whole run ──

    def run(self) -> int:
        """Run the app; return the exit code. Raises SkerryError: it was refused.

        0: it ended or was stopped. 1: the supervisor gave it up. 3: a store is damaged. LAPSED: its
        lease has ended, and other hosts run its shards.
        """
        if self._data.is_dir():
            narrow(self._data, self._say)
        try:
            return self._run()
        finally:
            self._premises.close()

    def _run(self) -> int:
        with self._signals.heeded():
            self._coordinator.acquire()
        try:
            # A supervisor that was killed has left it; until we announce ourselves, nobody runs the app.
            if left := self._coordinator.last_running():
                remove_left(left.folder)
            self._coordinator.withdraw()
            with self._signals.heeded():
                app = self._premises.members.open(self._config)
            self._config = self._premises.members.settled(self._config)
            self._register = Register(self._coordinator, app)
            allow_files(len(app.placement.members))
            logs = self._data / "logs"
            logs.mkdir(mode=0o700, exist_ok=True)
            narrow(logs, self._say)
            supervision = self._config.supervision
            weigh_s = supervision.look_s if supervision.rebalance else None
            sockets = Sockets(self._data, self._config, self._coordinator)
            self._questions = Questions(sockets.secret, serve=supervision.serve, weigh_s=weigh_s)
            self._questions.folder = sockets.path
            self.progress = self._questions.progress
            self._restarter = Restarter(self._children, self._questions, self, logs, self._say)
            self._sockets = sockets
            self._part = Part(
                self._config, self._premises, self._register, self._questions, self, self._say
            )
            self._part.meet(sockets.path)
            self._part.look()
            if not self._part.leads:
                self.house()
            forks.let_go_in_children([self._data, self._questions.folder])
            with self._signals.heeded():
                self._supervise(sockets)
            return self._exit or 0
        finally:
            self._clean_up()
            self._coordinator.release()

    @property
    def _meeting(self) -> Sockets:
        assert self._sockets is not None, "there is a place to meet"
        return self._sockets

    def _supervise(self, sockets: Sockets) -> None:
        """Keep the workers until this process is to end, and they have come to their end."""
        started = time.monotonic()
        while self._exit is None or not self._crew.over:
            sockets.tell_lease()
            if self._exit is None and self._coordinator.lost:
                self._stand_down()
            if self._exit is None:
                self._crew.start(self.assignment)
            self._crew.pin()
            self._questions.listen(self._signals.bell, sockets.door.fd, self._patience_s())
            sockets.door.serve(self)
            # Before any end of a worker is looked at: it may have been told to stop as we were.
            if self._signals.count and self._exit is None:
                self._say("stopping: what runs is committed …")
                self._stop(0)
            self._reap()
            if self._exit is None:
                self._crew.look()
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
        # Killed at once: others run their shards by now, or will.
        self._exit, self._stop_by_s = LAPSED, 0.0

    def _go_on(self) -> None:
        """Move slots, if some are to move; see whether all is over, if not."""
        part = self._part
        try:
            part.look()
            if part.busy:
                part.step()
                return
        except (SkerryError, OSError) as error:
            self._say(f"{error} The app ends; the next start goes on with the move.")
            self._stop(1)
            return
        self._restarter.step(held=part.held)
        if part.over:
            self._stop(0)
        elif self._questions.step(self._children):
            if part.leads and part.ended():
                self._stop(0)
        elif (loads := self._questions.take_loads()) and not self._restarter.busy:
            part.weigh(loads)

    def _patience_s(self) -> float:
        """Return how long to wait for something to happen before looking again."""
        if self._exit is not None or self._part.busy or self._restarter.busy:
            return POLL_S
        longest_s = min(BEATS_S, self._config.supervision.hang_s / 4)
        if self._config.cluster is not None:
            longest_s = min(longest_s, HOSTS_S)
        if self._crew.dumping:
            longest_s = POLL_S
        return self._questions.patience_s(self._children, longest_s, POLL_S)

    def _clean_up(self) -> None:
        """End workers that still run, and leave the data as the next start expects it."""
        self._crew.kill()
        self._crew.wait()
        if self._sockets is None:
            return
        self._part.close()
        self._restarter.close()
        self._questions.close()
        ours = self._exit == LAPSED or not self._coordinator.lost
        self._sockets.remove(ours=ours)
        if not ours:
            self._say(f"{self._data} was removed or replaced; what is there now is left alone.")
            return
        self._coordinator.withdraw()
        self._part.finish(in_order=self._exit == 0)

    # ── what we are told to do (`control.Host`) ──

    def scale(self, workers: int) -> None:
        """Begin to change to this many workers. Raises SkerryError."""
        self._restarter.check_idle("Scale")
        self._part.scale(workers)

    def leave(self) -> None:
        """Begin to give all slots of this host away. Raises SkerryError."""
        self._restarter.check_idle("Leave")
        self._part.leave()

    def hold(self) -> Held:
        """Let no slot begin to move for a while, and no worker be replaced; say what still moves."""
        self._restarter.check_whole()
        return self._part.hold()

    def restart(self) -> None:
        """Begin to replace the workers. Raises SkerryError."""
        self._part.check_idle("Restart")
        self._restarter.begin(self._config)

    @property
    def stopping(self) -> bool:
        """Whether the app comes to its end."""
        return self._exit is not None

    def status(self) -> dict[str, Any]:
        """Say what is under way."""
        stuck = {"stuck": stuck_of(self._children)}
        return self._part.status() | self._restarter.status() | stuck

    def adopt(self, program: Program) -> None:
        """Start workers with this program from now on. Raises SkerryError: it is as it was."""
        if self._part.leads:
            self._register.put(renamed=program.renamed)
        self._config = replace(self._config, program=program)

    # ── workers ──

    def house(self) -> None:
        """Keep a worker of each shard that lives here, and of no other; tell clients and workers which
        shards there are, and where."""
        app, here = self._register.app, self._part.here
        for shard in [child.shard for child in self._children if child.shard not in here]:
            self._crew.dismiss(shard)
        for shard in here:
            self._crew.hire(shard)
        everybody = sorted({*app.placement.members, *app.goal})
        self._questions.members(everybody if self._part.leads else here)
        self._meeting.announce(everybody, leads=self._part.leads)

    def assignment(self, child: Child) -> Assignment:
        """Return the assignment of a worker that is started now."""
        return Assignment(
            shard=child.shard,
            config=self._config,
            description=self._register.app,
            sockets=str(self._meeting.path),
            secret=self._meeting.secret,
            slow=child.watch.slow,
            poison=child.watch.poison,
            verdict=child.watch.verdict,
        )

    def _reap(self) -> None:
        """Reap the workers that have ended; start them again, or end the app."""
        for child in list(self._children):
            ended = child.reap()
            if ended is not None:
                self._questions.lost(child.shard)
                code = self._exit
                if code is None and not self._restarter.ended(child, ended):
                    if ended.deliberate and not self._part.is_still_here(child):
                        continue
                    patient = self._restarter.is_patient(ended)
                    code = self._ends.judge(child, ended, patient=patient)
                if code is not None:
                    child.done = True
                    if self._exit is None:
                        self._stop(code)
            elif child.process is None and self._exit is not None:
                child.done = True
        self._crew.reap_orphans()

    def _look_at(self, sockets: Sockets) -> None:
        """Make the sockets again when somebody has removed them, as a cleaner of old files does. Without
        them, no client finds a worker, nor does another worker. The workers are started anew."""
        if not sockets.due or self._coordinator.lost:  # In other data there are others' sockets.
            return
        if sockets.whole(self._crew.serving):
            return
        before = sockets.path
        try:
            sockets.make_again()
            self._questions.folder = sockets.path
            self._part.meet(sockets.path)
            self.house()
        except (SkerryError, OSError) as error:
            self._say(f"the sockets in {before} were removed, and can't be made again: {error}")
            self._stop(1)
            return
        self._say(
            f"the sockets in {before} were removed. They are made again, in {sockets.path}, and the "
            f"workers started anew; nothing is lost."
        )
        self._crew.kill()

    # ── the end ──

    def _stop(self, code: int) -> None:
        """Tell the workers to commit what runs, and to end."""
        self._exit, self._stop_by_s = code, time.monotonic() + STOP_S
        self._questions.tell_all(self._crew.alive, "stop")

    def _press(self) -> None:
        """Tell the workers to stop again; kill them when they take too long, or a person is impatient."""
        if self._signals.count > 1 or time.monotonic() > self._stop_by_s:
            self._crew.kill()
        elif self._questions.due:
            self._questions.tell_all(self._crew.alive, "stop")
