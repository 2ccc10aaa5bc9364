"""Questions to a worker that are no messages to an entity: states, counts, dead letters.

    control -> look -> held until what was looked at is durable -> answer

A look sees the newest sealed rows; its answer leaves when they are durable, so nobody is told
what a crash could undo (I3). A look that takes long, such as a count, is done in slices between
batches, each caller in turn. A caller gets its next answer when it has read the one before.

Looks are bounded, per caller and in all, and so are the answers that wait (I7). A look beyond a
bound is refused as busy, and its caller asks again.

No I/O, no clock: the worker and the simulator answer by the same code.
Idea: docs/ideas/clients.md, "Reads".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Protocol

from msgspec import Struct

from skerry.errors import SkerryError
from skerry.runtime.core.events import Operated
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.shard import Shard
from skerry.runtime.gateway.looks import Look, Rows
from skerry.runtime.gateway.protocol import ALL_SLOTS, Caller, Control
from skerry.runtime.ports import Committed

PARTS_OF_CALLERS = 8
"""One caller's answers may take one such part of the room for the answers of all callers."""


class Busy(SkerryError):
    """The worker has looked at nothing: ask again."""


class Answers(Protocol):
    """The way of answers to callers."""

    def answer(self, caller: Caller, n: int, value: Any, /) -> None:
        """Tell the value that call `n` asked for."""
        ...

    def report(self, caller: Caller, n: int, value: Any, /) -> None:
        """Tell what call `n` asked for about this process: nothing of the app's data is in it."""
        ...

    def error(self, caller: Caller, n: int, error: Exception, /) -> None:
        """Tell why call `n` could not be answered."""
        ...

    def welcome(self, caller: Caller, greeting: Any, /) -> None:
        """Tell who this worker is."""
        ...

    def has_read(self, caller: Caller, /) -> bool | None:
        """Tell whether the caller has read all that it was told; None: it is gone."""
        ...

    def let_go(self, caller: Caller, /) -> None:
        """End a caller's line."""
        ...


class Host(Protocol):
    """What only the driver of a shard can say and do."""

    def greeting(self) -> Any:
        """Return who this worker is, as `protocol.Greeting` or its fields."""
        ...

    def status(self) -> dict[str, Any]:
        """Return how the shard is doing."""
        ...

    def backup(self, caller: Caller, n: int, no: int, folder: str) -> None:
        """Take a snapshot marker and copy the rows; answer when that is done."""
        ...

    def steer(self, word: str) -> dict[str, Any]:
        """Do as the supervisor says, and say whether all is quiet."""
        ...

    def place(self, caller: Caller, n: int, placement: Placement) -> None:
        """Take the newest placement; answer when the shard has come there."""
        ...


class _Held(Struct):
    """An answer that is held until what it says is durable."""

    no: int
    n: int
    value: Any
    size: int


class _Looks:
    """What one caller has asked and has not been told yet."""

    __slots__ = ("held", "size", "under_way")

    def __init__(self) -> None:
        self.under_way: deque[Iterator[None]] = deque()
        """Looks: each does a slice of its work per step, and leaves its answer in `held` at its end."""
        self.held: deque[_Held] = deque()
        self.size = 0
        """Bytes of these."""

    def __len__(self) -> int:
        return len(self.under_way) + len(self.held)


class Inquiries:
    """The looks that are under way at one shard."""

    def __init__(self, shard: Shard, store: Committed, answers: Answers, host: Host) -> None:
        self._shard, self._answers, self._host = shard, answers, host
        self._limits, self._rows = shard.limits, Rows(store, shard.ownership)
        self._callers: dict[Caller, _Looks] = {}
        """The callers that have looks, in the order of their turns."""
        self._count = self._bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a look is under way that goes on at the next step."""
        return any(
            looks.under_way and self._answers.has_read(caller)
            for caller, looks in self._callers.items()
        )

    def serve(self, control: Control) -> None:
        """Answer a call, or begin to."""
        try:
            self._serve(control)
        except (SkerryError, ValueError, TypeError, KeyError, IndexError) as error:
            self._answers.error(control.caller, control.n, error)

    def _serve(self, control: Control) -> None:
        caller, n, args = control.caller, control.n, control.args
        match control.kind:
            case "hello":
                self._answers.welcome(caller, self._host.greeting())
            case "get":
                self._hold(self._looks_of(caller), n, *self._rows.state(*args))
            case "scan":
                self._begin(caller, n, self._rows.states(*args))
            case "count":
                self._begin(caller, n, self._rows.count(*args))
            case "status":
                self._answers.report(caller, n, self._host.status())
            case "dead":
                self._dead(caller, n, *args)
            case "backup":
                self._back_up(caller, n, *args)
            case "control":
                self._answers.answer(caller, n, self._host.steer(*args))
            case "place":
                self._host.place(caller, n, *args)
            case unknown:
                raise ValueError(f"a door does not know {unknown!r}")

    def step(self) -> None:
        """Look at one more slice, then tell the answers that are durable now.

        In this order, since the next step may be a while off: an answer that is ready leaves now.
        """
        self._look()
        for caller, looks in list(self._callers.items()):
            self._tell(caller, looks)

    def _look(self) -> None:
        for caller, looks in self._callers.items():
            if looks.under_way and self._answers.has_read(caller):
                # Its next turn is behind all others'.
                self._callers[caller] = self._callers.pop(caller)
                if next(looks.under_way[0], self) is self:
                    looks.under_way.popleft()
                    self._count -= 1
                return

    # ── bounds ──

    def _looks_of(self, caller: Caller) -> _Looks:
        """Return the open looks of a caller that asks for one more. Raises Busy."""
        limits, looks = self._limits, self._callers.get(caller)
        if looks is not None and (
            len(looks) >= limits.looks_of_caller_max
            or looks.size >= limits.looks_bytes_max // PARTS_OF_CALLERS
        ):
            raise Busy(f"{len(looks)} questions of this caller are open, and no more are taken.")
        while self._count >= limits.looks_max or self._bytes >= limits.looks_bytes_max:
            if not self._let_go():
                raise Busy(f"{self._count} questions are open here, and no more are taken.")
        if looks is None:
            looks = self._callers[caller] = _Looks()
        return looks

    def _let_go(self) -> bool:
        """Disconnect the caller that takes most memory, of those that do not read. Tell whether there is one."""
        deaf = [caller for caller in self._callers if not self._answers.has_read(caller)]
        if not deaf:
            return False
        worst = max(
            deaf, key=lambda caller: (self._callers[caller].size, len(self._callers[caller]))
        )
        self._forget(worst)
        self._answers.let_go(worst)
        return True

    def _forget(self, caller: Caller) -> None:
        looks = self._callers.pop(caller)
        self._count -= len(looks)
        self._bytes -= looks.size

    def _begin(self, caller: Caller, n: int, look: Look) -> None:
        looks = self._looks_of(caller)
        looks.under_way.append(self._held_at_the_end(looks, n, look))
        self._count += 1

    def _held_at_the_end(self, looks: _Looks, n: int, look: Look) -> Iterator[None]:
        value, size = yield from look
        self._hold(looks, n, value, size)

    def _hold(self, looks: _Looks, n: int, value: Any, size: int) -> None:
        no = self._shard.no
        looks.held.append(_Held(no, n, value, size))
        looks.size += size
        self._count += 1
        self._bytes += size

    def _tell(self, caller: Caller, looks: _Looks) -> None:
        """Tell a caller the answers that are durable, as long as it reads them."""
        reads = self._answers.has_read(caller)
        while reads and looks.held and looks.held[0].no <= self._shard.durable:
            held = looks.held.popleft()
            self._count -= 1
            self._bytes -= held.size
            looks.size -= held.size
            self._answers.answer(caller, held.n, held.value)
            reads = self._answers.has_read(caller)
        if reads is None or not len(looks):
            self._forget(caller)

    # ── dead letters ──

    def _dead(
        self,
        caller: Caller,
        n: int,
        action: str,
        id: bytes | None,
        limit: int,
        slots: bytes = ALL_SLOTS,
    ) -> None:
        match action:
            case "retry" | "drop" if id is not None:
                self._shard.accept(Operated((caller, n), n, action, id))
            case "show" if id is not None:
                self._hold(self._looks_of(caller), n, *self._rows.letter(id))
            case "list":
                self._begin(caller, n, self._rows.letters(id or b"", limit, slots))
            case "oldest":
                self._begin(caller, n, self._rows.oldest_letters(limit, slots))
            case unknown:
                raise ValueError(f"a door does not know what to do with a dead letter: {unknown!r}")

    # ── backups ──

    def _back_up(self, caller: Caller, n: int, no: int, folder: str) -> None:
        self._shard.check_cut(no)
        self._host.backup(caller, n, no, folder)
