"""Replaces all workers, one by one, with the program as it is now, while the app serves.

    the program is tried -> adopted -> for each worker: the next one loads the program and waits ->
    the old one commits what runs and ends -> the next one opens the store and serves

An app that can't go on with the program is left alone. If a worker of the new program can't load it
or crashes, no other is replaced, and the app serves on with what there is. A worker that has ended
and can't be started with the program as it is now is tried again now and then.

Which worker is next is decided in `rolling.py`. Idea: docs/ideas/architecture.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from skerry.errors import SkerryError, storable
from skerry.runtime.app.children import STOP_S, Child, Ended
from skerry.runtime.app.questions import Questions
from skerry.runtime.app.rolling import Rolling
from skerry.runtime.app.trial import TRIAL_S, Question, Trial, Verdict
from skerry.runtime.config import Config, Program
from skerry.runtime.printable import Say
from skerry.runtime.worker.assignment import Assignment

PROBATION_S = 30.0
"""How long after a restart a worker that can't go on is tried again: its program is new."""

KILLS_MAX = 3
"""How many next workers of a restart may be killed from outside while they load the program. More are
no accident: the machine may be short of memory."""


class Summary(Struct):
    """How far a restart is."""

    workers: int = 0
    replaced: int = 0
    """Workers that run the new program."""
    pause_s: float = 0.0
    """The longest time for which a worker was away."""
    seconds: float = 0.0
    done: bool = True
    refused: str = ""
    """Why no worker was replaced."""
    waits: str = ""
    """What it waits for, beside the workers."""
    failed: str = ""
    """Why no other worker is replaced."""


class Hands(Protocol):
    """What a supervisor does for a restart."""

    def assignment(self, child: Child, /) -> Assignment:
        """The assignment of a worker that is started now."""
        ...

    def adopt(self, program: Program, /) -> None:
        """Start workers with this program from now on. Raises SkerryError: it is as it was."""
        ...


class Restarter:
    """The restarts of one run."""

    def __init__(
        self,
        children: Sequence[Child],
        questions: Questions,
        hands: Hands,
        logs: Path,
        say: Say,
    ) -> None:
        self._children, self._questions, self._logs = children, questions, logs
        self._hands, self._say = hands, say
        # Now: another one may be installed by the time of a restart.
        self._version = version("skerry")
        self._trial: Trial | None = None
        self._program = Program(app="")
        """The program that is tried."""
        self._rolling: Rolling | None = None
        self._ending: int | None = None
        """The shard whose worker is told to end."""
        self._kills = 0
        """How many next workers were killed in this restart."""
        self._unfinished = False
        """Whether a restart has failed, and no other has replaced all workers since."""
        self._began_s = self._prepared_s = self._told_s = 0.0
        """When the newest restart began, when a next worker was started for it, and when a worker was
        told to end; 0: none."""
        self.summary = Summary()

    @property
    def busy(self) -> bool:
        """Whether a restart is under way."""
        return not self.summary.done

    def begin(self, config: Config) -> None:
        """Begin to replace the workers. Raises SkerryError: it can't."""
        self.check_idle("Restart")
        if config.program.pickled:
            raise SkerryError(
                f"The app {config.program.app} was handed over by the program that runs it, where no "
                f"file or module has it as a global: there is no newer one to load. Stop that "
                f"program, and start it again."
            )
        self._began_s = time.monotonic()
        serving = [child.shard for child in self._children if child.serving_since_s]
        question = Question(config, serving, self._version)
        self._trial, self._program = Trial(question, self._say), config.program
        self.summary = Summary(len(self._children), done=False)

    def check_idle(self, wish: str) -> None:
        """Raises SkerryError: a restart is under way, so what somebody wishes has to wait."""
        if self.busy:
            raise SkerryError(
                f"The app's workers are being replaced: {self.summary.replaced} of "
                f"{self.summary.workers} are. {wish} again when all of them are."
            )

    def status(self) -> dict[str, Any]:
        """Say how a restart is going."""
        return {"restart": self.summary}

    def check_whole(self) -> None:
        """Raises SkerryError: workers are being replaced, and a backup needs all of them."""
        if self._rolling is not None:
            self.check_idle("Back up")

    def close(self) -> None:
        """End a trial that is under way, with the app."""
        if self._trial is not None:
            self._trial.close()

    # ── steps ──

    def step(self, *, held: bool) -> None:
        """Go on, if something has come to its end.

        Args:
            held: whether the first worker may not end yet, since a backup is made.
        """
        self.summary.waits = "for a backup" if held and self._trial is not None else ""
        if self._trial is not None and not held and (verdict := self._trial.verdict()) is not None:
            self._trial.close()
            self._trial = None
            self._judge(verdict)
        if self._rolling is not None:
            self._roll(self._rolling)

    def _judge(self, verdict: Verdict) -> None:
        try:
            if verdict.refused:
                raise SkerryError(verdict.refused)
            self._hands.adopt(
                replace(self._program, renamed=verdict.renamed, hidden=verdict.hidden)
            )
        except SkerryError as error:
            self.summary.refused = storable(str(error))
            self._say(f"the restart was refused, and no worker is replaced. {error}")
            self._finish()
            return
        self._rolling = Rolling(time.monotonic())
        self._ending, self._told_s, self._kills = None, 0.0, 0
        for child in self._children:
            child.drop_next()  # It has an earlier program.
            child.start_at = 0.0

    def _roll(self, rolling: Rolling) -> None:
        now_s, summary = time.monotonic(), self.summary
        serving = {child.shard: child.serving_since_s for child in self._children}
        if self._told_s and self._ending is None and None not in serving.values():
            summary.pause_s, self._told_s = max(summary.pause_s, now_s - self._told_s), 0.0
        summary.replaced, summary.seconds = rolling.replaced(serving), now_s - self._began_s
        if rolling.over(serving, now_s):
            self._say(
                f"{len(serving)} workers replaced in {summary.seconds:.1f} s; each was away for "
                f"{summary.pause_s:.3f} s at most"
            )
            self._unfinished = False
            self._finish()
        elif (shard := rolling.next(serving)) is not None:
            self._replace(next(child for child in self._children if child.shard == shard), now_s)

    def _replace(self, child: Child, now_s: float) -> None:
        """Have the next worker of a shard load the program; then end the one that serves."""
        if child.shard == self._ending:
            if now_s > self._told_s + STOP_S:
                child.end()  # As safe as any kill.
            else:
                self._questions.tell(child.shard, "stop")
        elif not child.prepares:
            self._prepared_s = now_s
            child.prepare(self._hands.assignment(child))
        elif isinstance(loaded := child.prepared(), Ended):
            self._kills += loaded.was_killed
            if loaded.was_killed and self._kills <= KILLS_MAX:
                return  # Another one is started.
            self._fail(
                f"Worker {child.shard} can't load the program ({loaded.how}): {self._so_far} The app "
                f"serves on. Mend the program, and restart again. {self._log(child)}"
            )
        elif loaded:
            self._ending, self._told_s = child.shard, now_s
            self._questions.tell(child.shard, "stop")
        elif now_s > self._prepared_s + TRIAL_S:
            self._fail(
                f"Worker {child.shard} has not loaded the program within {TRIAL_S:.0f} s: "
                f"{self._so_far} The app serves on. {self._log(child)}"
            )

    @property
    def _so_far(self) -> str:
        return f"{self.summary.replaced} of {self.summary.workers} workers are replaced."

    def _log(self, child: Child) -> str:
        return f"Its log is {self._logs / f'worker-{child.shard}.log'}."

    def _fail(self, why: str) -> None:
        self.summary.failed, self._unfinished = storable(why), True
        self._say(why)
        self._finish()

    def _finish(self) -> None:
        self._rolling = None
        for child in self._children:
            if child.shard != self._ending:
                child.drop_next()
        self.summary.seconds, self.summary.done = time.monotonic() - self._began_s, True

    # ── ends of workers ──

    def ended(self, child: Child, ended: Ended) -> bool:
        """Hear that a worker has ended. Tell whether it was told to, and the next one takes its place."""
        told = child.shard == self._ending
        if told:
            self._ending = None
        if told and (ended.code == 0 or ended.was_killed):
            child.take_over()
            return True
        child.drop_next()  # It does not know what this end may have to teach its successor.
        new = self._rolling is not None and self._rolling.has_new(child.started_s)
        if new and not ended.was_killed:
            self._fail(
                f"Worker {child.shard} ended ({ended.how}) with the new program: {self._so_far} "
                f"The others serve on. Mend the program, and restart again. {self._log(child)}"
            )
        return False

    def is_patient(self, ended: Ended) -> bool:
        """Whether a worker that can't go on is tried again, and does not end the app: others may serve
        with an earlier program, and this one may be mended."""
        if self._unfinished or not self._began_s:
            return self._unfinished
        recent = time.monotonic() < self._began_s + self.summary.seconds + PROBATION_S
        return recent or not ended.had_served
