"""The policy of a supervisor: when a worker is restarted, isolated or given up, and when all is over.

    a worker ended | its rounds stand still | all workers are quiet -> what to do

A worker that crashes or hangs again and again mostly does so in one message. Its successor runs
one message per commit and notes which one; a message that ends a worker for the second time
becomes a dead letter. A worker that was killed from outside is simply restarted. But a handler may
kill its own process, too. So after several kills in a row the worker notes its messages as well:
kills from outside do not hit the same message again and again.

A finite app is over after two rounds of questions, the second begun after the first ended, in
which every worker was quiet at the same epoch and commit. Then nothing ran in between; and a frame
on its way would have kept an outbox from being empty.

Pure: no process, no clock. The supervisor and the simulator decide by the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from skerry.runtime.core.events import Identity

RESTARTS_MAX = 8
RESTARTS_WITHIN_S = 20.0
"""More crashes of one worker than this, within this time, end the app."""

SLOW_AFTER = 2
"""After this many crashes of a worker, its successor runs one message per commit, to find the message
that ends workers."""

KILLS_MAX = 4
"""After this many kills of a worker, its successor runs one message per commit, too."""

SAME_KILLS_MAX = 3
"""A message that ran at this many of those kills in a row is their cause. It is no coincidence: a
worker in quarantine mode is mostly between two messages."""

BACKOFF_S = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""How long a restart waits, by the number of recent crashes."""

DUMP_S = 0.2
"""How long a worker that hangs has to write its stack to the log before it is killed."""

NOTHING: Identity = (0, 0, 0)
"""The running message of a worker that is between two messages."""


class Beat(NamedTuple):
    """The state of a worker's loop, written where it can be read after the worker's end."""

    rounds: int
    commit: int
    running: Identity
    """The message that runs, in quarantine mode."""
    slow: bool
    stirs: int = 0
    """How often anything came or was done. While this stays the same, the worker has nothing new to tell."""
    asleep_until_s: float = 0.0
    """When the loop wakes at the latest; 0: it is awake."""
    call: str = ""
    """The handler that runs, and its entity, when it has run for long."""


class Restart(Struct, frozen=True):
    """Restart the worker at this time."""

    at_s: float


class GiveUp(Struct, frozen=True):
    """End the app: the worker crashes too often for a restart to help."""

    crashes: int


class Watch:
    """The history of one shard's workers. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self.slow = False
        """Whether the next worker runs one message per commit, noting which."""
        self.poison: Identity | None = None
        """The message that the next worker makes a dead letter."""
        self.verdict = ""
        """What the handler of that message did, for its dead letter."""
        self._crashed: deque[float] = deque()
        """When workers crashed lately."""
        self._suspect: Identity | None = None
        """The message that ran at the last crash in quarantine mode."""
        self._kills = self._same_kills = 0
        """How often workers were killed lately, and how often in a row in the same message."""
        self._killed_in = NOTHING
        self._rounds = 0
        self._moved_s = 0.0
        self._dumped_s: float | None = None

    def started(self, now_s: float) -> None:
        """Note that a worker was started."""
        self._rounds, self._moved_s, self._dumped_s = 0, now_s, None

    def killed(self, now_s: float, beat: Beat | None, how: str) -> Restart:
        """Note a kill: by somebody else, who may do so any number of times, or by a handler.

        Args:
            how: what the handler did, if it was one.
        """
        if beat is None or not beat.slow:
            self._kills += beat is not None
            self.slow |= self._kills >= KILLS_MAX
        elif beat.running == NOTHING:
            self.slow &= self._kills < KILLS_MAX
            self._kills, self._killed_in = 0, NOTHING
        else:
            self._same_kills = self._same_kills + 1 if beat.running == self._killed_in else 1
            self._killed_in = beat.running
            if self._same_kills >= SAME_KILLS_MAX:
                self.poison, self.verdict = beat.running, f"{how}, again and again"
        return Restart(now_s)

    def crashed(self, now_s: float, beat: Beat | None, how: str) -> Restart | GiveUp:
        """Note a crash. A handler may be its cause, so the message is looked for.

        Args:
            how: what the handler did, if it was one.
        """
        self._crashed.append(now_s)
        while self._crashed[0] < now_s - RESTARTS_WITHIN_S:
            self._crashed.popleft()
        crashes = len(self._crashed)
        if beat is not None and beat.slow:
            known = NOTHING != beat.running == self._suspect
            self.poison = beat.running if known else None
            self._suspect = beat.running
            self.verdict = f"{how}, twice"
        self.slow = crashes >= SLOW_AFTER
        if crashes > RESTARTS_MAX:
            return GiveUp(crashes)
        return Restart(now_s + BACKOFF_S[min(crashes, len(BACKOFF_S) - 1)])

    @property
    def dumping(self) -> bool:
        """Whether the worker is writing its stack before it is killed."""
        return self._dumped_s is not None

    def still_s(self, now_s: float, beat: Beat) -> float:
        """Return for how long the rounds have stood still, as of the last look."""
        return now_s - max(self._moved_s, beat.asleep_until_s)

    def look(self, now_s: float, beat: Beat, hang_s: float, stopped: Callable[[], bool]) -> str:
        """Judge whether the rounds stand still.

        Returns '' (no), 'stopped' (by a signal, as a debugger does), 'dump' (ask for the stack) or
        'kill'.
        """
        still_s = self.still_s(now_s, beat)
        if beat.rounds != self._rounds:
            self._rounds, self._moved_s, self._dumped_s = beat.rounds, now_s, None
        elif self._dumped_s is not None:
            return "kill" if now_s > self._dumped_s + DUMP_S else ""
        elif beat.rounds and still_s > hang_s:
            if stopped():
                # No handler is to blame.
                self._moved_s = now_s
                return "stopped"
            self._dumped_s = now_s
            return "dump"
        return ""

    def hung(self, beat: Beat, how: str) -> None:
        """Note that the worker was killed because a handler did not return."""
        self.verdict = f"{how}, twice"
        self.poison = beat.running if beat.slow else None
        self.slow, self._dumped_s = True, None


class Rounds:
    """Rounds of questions, which find that all is over."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[int, int, int]] = {}

    def interrupted(self) -> None:
        """Forget the answers before: a worker has ended."""
        self._before = {}

    def over(self, answers: Mapping[int, Mapping[str, Any]]) -> bool:
        """Judge a round that every shard has answered: whether all is over."""
        positions = {
            shard: (answer["epoch"], answer["commit"], answer["version"])
            for shard, answer in answers.items()
        }
        quiet = all(answer["quiet"] for answer in answers.values())
        over = quiet and positions == self._before
        self._before = positions if quiet else {}
        return over
