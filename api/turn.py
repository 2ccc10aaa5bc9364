"""Turn: all that one handler run may read and leave behind; the seam of the two layers.

Each verb writes one tagged intention here, and whoever runs the handler reads them when it
returns: a worker, the simulator or a test. Nothing else is shared between programs and runtime.

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
    from skerry.entity import Entity

Intention = tuple[Any, ...]
"""What one verb wants to happen when the turn commits: a tag, then what belongs to it.

    "send"    handler, key, arguments
    "ask"     handler, key, arguments, the `Asked`
    "later"   delay_ns, handler, key, arguments as bytes
    "timer"   name, delay_ns, handler, arguments as bytes
    "cancel"  name of a timer
    "emit"    output, item as bytes
    "forget"
"""


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
        "entity",
        "extra",
        "forgotten",
        "intentions",
        "now_ns",
        "outputs",
        "reading",
        "seed",
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
        self.intentions: list[Intention] = []
        """What the turn leaves behind, in order. Plain sends do not depend on their sender, so those of
        earlier turns may still stand before them."""
        self.extra = False
        """Whether there is anything but plain sends: another intention, or a generator."""
        self.timers: dict[str, bool] = {}
        """Whether each named timer that the turn has set or cancelled stands."""
        self.forgotten: bytes | None = None
        """The entity's state when the turn last called `forget`; None: it did not."""
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
        self.intentions.clear()
        if self.extra:
            self.timers.clear()
            self.forgotten, self.extra = None, False
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
