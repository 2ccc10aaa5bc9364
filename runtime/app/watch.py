"""What a supervisor makes of what it sees: start a worker again, slowly, without its poison; end.

    a worker ended, its rounds stand still, all say that they are quiet -> what to do

A worker that crashes or hangs again and again does so, mostly, in one message. Its successor
runs one message per commit and writes down which; the second time that this message ends a
worker it is a dead letter. Who was killed by somebody else is simply started again; but a handler
may kill its own process, too. So after some kills in a row one looks which message runs: somebody
else does not hit the same one again and again.

A finite app is over after two rounds of questions, the second begun after the first ended, in
which every worker was quiet with the same epoch and commit: nothing ran between, and a frame on
its way has an outbox that is not empty.

No process, no clock: the supervisor and the simulator decide by the same code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from msgspec import Struct

from skerry.runtime.core.events import Identity

RESTARTS_MAX = 8
RESTARTS_WITHIN_S = 20.0
"""More crashes of one worker than this within this time: the app gives up loudly."""

SLOW_AFTER = 2
"""After so many crashes of a worker its successor runs one message per commit, to find the one
that ends it."""

KILLS_MAX = 4
"""After so many kills of a worker its successor runs one message per commit, likewise."""

SAME_KILLS_MAX = 3
"""A message that ran in so many of these kills, one after the other, is what kills. By chance that
does not come about: a worker in slow mode is mostly between two messages."""

BACKOFF_S = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""How long a restart waits, by how many came shortly before."""

DUMP_S = 0.2
"""For the stack of a worker that hangs to reach the log, before it is killed."""


NOTHING: Identity = (0, 0, 0)
"""Of a worker that is between two messages."""


class Beat(NamedTuple):
    """What a worker writes of itself where it can be read after its end."""

    rounds: int
    commit: int
    running: Identity
    """In slow mode: the message that runs."""
    slow: bool
    stirs: int = 0
    """How often anything came or was done: what is the same has nothing new to tell."""
    asleep_until_s: float = 0.0
    """When it wakes at the latest, if nothing wakes it; 0: it is awake."""


class Restart(Struct, frozen=True):
    """Start it again at this time."""

    at_s: float


class GiveUp(Struct, frozen=True):
    """It crashed so often, so fast, that starting it again does not help."""

    crashes: int


class Watch:
    """What is known of one shard's workers. Times are seconds of a clock that is never set."""

    def __init__(self) -> None:
        self.slow = False
        """Whether the next worker runs one message per commit."""
        self.poison: Identity | None = None
        """The message that the next worker makes a dead letter."""
        self.verdict = ""
        """What its handler did."""
        self._crashed: deque[float] = deque()
        """When it ended by itself, lately."""
        self._suspect: Identity | None = None
        """The message that ran when it last crashed, in slow mode."""
        self._kills = self._same_kills = 0
        """How often it was killed lately, and how often in the message in which it was last."""
        self._killed_in = NOTHING
        self._rounds = 0
        self._moved_s = 0.0
        self._dumped_s: float | None = None

    def started(self, now_s: float) -> None:
        """A worker was started."""
        self._rounds, self._moved_s, self._dumped_s = 0, now_s, None

    def killed(self, now_s: float, beat: Beat | None, how: str) -> Restart:
        """It was ended by somebody else, who may do so as often as he likes; or by its handler."""
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
        """It ended by itself: a handler may be what ends it, so the message is looked for. `how`:
        what that handler did."""
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
        """Whether it is to be killed in a moment."""
        return self._dumped_s is not None

    def look(self, now_s: float, beat: Beat, hang_s: float, stopped: Callable[[], bool]) -> str:
        """Whether its rounds stand still: '', 'stopped' (by a person), 'dump' its stack, 'kill' it."""
        still_s = now_s - max(self._moved_s, beat.asleep_until_s)
        if beat.rounds != self._rounds:
            self._rounds, self._moved_s, self._dumped_s = beat.rounds, now_s, None
        elif self._dumped_s is not None:
            return "kill" if now_s > self._dumped_s + DUMP_S else ""
        elif beat.rounds and still_s > hang_s:
            if stopped():
                # With a debugger, say: no handler is to blame.
                self._moved_s = now_s
                return "stopped"
            self._dumped_s = now_s
            return "dump"
        return ""

    def hung(self, beat: Beat, how: str) -> None:
        """It was killed since a handler did not return."""
        self.verdict = f"{how}, twice"
        self.poison = beat.running if beat.slow else None
        self.slow, self._dumped_s = True, None


class Rounds:
    """The rounds of questions whether all is quiet."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[int, int, int]] = {}

    def interrupted(self) -> None:
        """A worker ended: what was answered counts no more."""
        self._before = {}

    def over(self, answers: Mapping[int, Mapping[str, Any]]) -> bool:
        """Whether a round that every shard has answered was the last: all is over."""
        positions = {
            shard: (answer["epoch"], answer["commit"], answer["version"])
            for shard, answer in answers.items()
        }
        quiet = all(answer["quiet"] for answer in answers.values())
        over = quiet and positions == self._before
        self._before = positions if quiet else {}
        return over
