"""Turn: all that one handler run may read and leave behind; the seam of the two layers.

The verbs write intentions here, and whoever runs the handler reads them when it returns:
a worker, the simulator or a test. Nothing else is shared between programs and runtime.

`here.turn` is the turn that runs now on this thread, or None. A thread or a fork that a handler
starts is in no turn: what it did at some moment would count for whichever entity ran just then.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from skerry.errors import OutsideTurn, SkerryError

if TYPE_CHECKING:
    from skerry.arguments import Args
    from skerry.entity import Entity
    from skerry.handler import Handler
    from skerry.stream.outputs import Output
    from skerry.verbs import Asked


class _Here(threading.local):
    """What each thread has of its own."""

    turn: Turn | None = None
    strayed = False
    """Whether this is the thread that a fork left, in a process that began no turn."""


here = _Here()


class Strayed(BaseException):
    """A turn has ended in a process that did not begin it: a handler forked, and its child returned.

    No handler's error: nothing of what this process holds counts.
    """


class Emits(Protocol):
    """What items can be emitted to."""

    def emitted(self, item: object, /) -> bytes:
        """The item as it travels. Raises TypeError or ValueError: it can't."""
        ...


class Turn:
    """One handler run. Reused from message to message: `clear` makes it empty."""

    __slots__ = (
        "_drew",
        "_rng",
        "count",
        "draws",
        "emits",
        "entity",
        "extra",
        "forgotten",
        "forgotten_sends",
        "forgotten_state",
        "laters",
        "now_ns",
        "outputs",
        "reading",
        "seed",
        "sends",
        "timer_set",
        "timers",
    )

    def __init__(self) -> None:
        self.entity: Entity | None = None
        self.now_ns = 0
        """The shard's time, ns since 1970."""
        self.seed: tuple[bytes | int, ...] = ()
        """What the batch's random numbers grow from."""
        self.count = 0
        """Turns of this batch that were run."""
        self.reading = False
        """A query runs: it may leave nothing behind."""
        self.sends: list[tuple[Handler, str, Args, Asked[object] | None]] = []
        self.extra = False
        """Whether anything but plain sends was left behind: asks, laters, timers, emits, forgotten,
        a generator. What is plain needs no look at who sent it, so it may lie here while other turns
        run."""
        self.laters: list[tuple[int, Handler, str, bytes]] = []
        self.timers: dict[str, tuple[int, Handler, bytes] | None] = {}
        self.forgotten = False
        self.forgotten_sends = 0
        """How many of the sends came before that: an outcome finds nobody then."""
        self.forgotten_state = b""
        """The state at that moment."""
        self.emits: list[tuple[Output[Any], bytes]] = []
        self.outputs: Mapping[str, Emits] | None = None
        """The app's outputs, by their names; None when there is no app around this turn."""
        self.timer_set: Callable[[Entity, str], bool] = _no_timer
        """Whether a named timer of an entity stood before this turn."""
        self.draws = 0
        """Turns of this batch that drew random numbers."""
        self._rng: random.Random | None = None
        self._drew = False

    def begin(self, now_ns: int, seed: tuple[bytes | int, ...]) -> None:
        """A batch begins, or begins again: then its turns draw the same numbers again."""
        self.clear()
        self.now_ns, self.seed, self.count, self.draws = now_ns, seed, 0, 0
        self._drew = False

    def end(self) -> None:
        """The turn is over: it counts, or has failed for good."""
        self.clear()
        if self._drew:
            self._drew = False
            self.draws += 1

    def clear(self) -> None:
        """Forget what was left behind. Tried again, the turn draws the same numbers."""
        self.sends.clear()
        if self.extra:
            self.laters.clear()
            self.timers.clear()
            self.emits.clear()
            self.forgotten = self.extra = False
            self.forgotten_sends, self.forgotten_state = 0, b""
            self._rng = None

    def rng(self) -> random.Random:
        """The generator of this turn, by its place among those of its batch that draw."""
        if self._rng is None:
            self._rng = random.Random(repr((self.seed, self.draws)))
            self._drew = self.extra = True
        return self._rng


def leave(turn: Turn) -> None:
    """No turn runs any more on this thread. Raises Strayed: it began in another process."""
    here.turn = turn.entity = None
    if here.strayed:
        raise Strayed


def stray() -> None:
    """This process is the child of a fork: whatever turn ran here runs in its parent alone."""
    here.turn, here.strayed = None, True


def running(verb: str) -> Turn:
    """The turn that runs now, for a verb that changes something. Raises OutsideTurn."""
    turn = here.turn
    if turn is None:
        raise OutsideTurn(verb)
    if turn.reading:
        raise SkerryError(f"`{verb}` in a @query: a query changes nothing, sends nothing")
    return turn


def _no_timer(entity: Entity, name: str) -> bool:
    return False
