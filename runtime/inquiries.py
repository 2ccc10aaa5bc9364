"""What a worker is asked that is no message to an entity: states, counts, dead letters.

    control -> look -> held until what was looked at is durable -> answer

A look sees the newest sealed rows; its answer leaves when they are durable, so nobody is told
what a crash could undo (I3). What takes long, as a count, is done in slices between batches.

No I/O, no clock: the worker and the simulator answer by the same code.
Idea: docs/clients.md, "Reads".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import msgspec

from skerry.errors import SkerryError
from skerry.runtime.gateway.words import Caller, Control
from skerry.runtime.ports import Committed
from skerry.runtime.shard.dead import DeadLetter
from skerry.runtime.shard.events import Operated, Table
from skerry.runtime.shard.shard import Shard
from skerry.runtime.shard.stored import schema_id_of

SLICE_ROWS = 2000
"""Rows that a count or scan looks at per round, so that nobody waits for it."""


class Answers(Protocol):
    """Where answers go."""

    def answer(self, caller: Caller, n: int, value: Any, /) -> None:
        """The value that call `n` asked for."""
        ...

    def error(self, caller: Caller, n: int, error: Exception, /) -> None:
        """Call `n` could not be answered."""
        ...

    def welcome(self, caller: Caller, greeting: Any, /) -> None:
        """Who we are."""
        ...


class Host(Protocol):
    """What only the process around a shard knows."""

    def greeting(self) -> Any:
        """Who this door is, as `words.Greeting` or its fields."""
        ...

    def status(self) -> dict[str, Any]:
        """How the shard is doing."""
        ...

    def backup(self, caller: Caller, n: int, no: int, folder: str) -> None:
        """Take a cut and copy it; answer when that is done."""
        ...

    def steer(self, word: str) -> dict[str, Any]:
        """Do as the supervisor says, and say whether all is quiet."""
        ...


class Inquiries:
    """The looks that are under way at one shard."""

    def __init__(self, shard: Shard, store: Committed, answers: Answers, host: Host) -> None:
        self._shard, self._store, self._answers, self._host = shard, store, answers, host
        self._held: deque[tuple[int, Callable[[], None]]] = deque()
        self._jobs: deque[Iterator[None]] = deque()

    @property
    def busy(self) -> bool:
        """Whether a look is under way that goes on at the next step."""
        return bool(self._jobs)

    def serve(self, control: Control) -> None:
        """Answer, or begin to."""
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
                self._answer(caller, n, self._get(*args))
            case "scan":
                self._jobs.append(self._scan(caller, n, *args))
            case "count":
                self._jobs.append(self._count(caller, n, *args))
            case "status":
                self._answers.answer(caller, n, self._host.status())
            case "dead":
                self._dead(caller, n, *args)
            case "backup":
                self._host.backup(caller, n, *args)
            case "control":
                self._answers.answer(caller, n, self._host.steer(*args))
            case unknown:
                raise ValueError(f"a door does not know {unknown!r}")

    def step(self) -> None:
        """Let go of what is durable now, and look at one more slice."""
        while self._held and self._held[0][0] <= self._shard.durable:
            self._held.popleft()[1]()
        if self._jobs and next(self._jobs[0], self) is self:
            self._jobs.popleft()

    def _answer(self, caller: Caller, n: int, value: Any) -> None:
        no = self._shard.no
        self._held.append((no, lambda: self._answers.answer(caller, n, value)))

    # ── looks ──

    def _get(self, type_name: str, key: str) -> list[bytes | None]:
        state = self._store.state(type_name, key)
        return [state, self._schema_of(state)]

    def _schema_of(self, state: bytes | None) -> bytes | None:
        if state is None:
            return None
        return self._store.read(Table.SCHEMA, schema_id_of(state).to_bytes(8, "big"))

    def _scan(
        self, caller: Caller, n: int, type_name: str, prefix: str, after: str, limit: int
    ) -> Iterator[None]:
        rows: list[tuple[str, bytes]] = []
        schemas: dict[int, bytes | None] = {}
        for key, state in self._store.states(type_name, prefix, after):
            rows.append((key, state))
            id = schema_id_of(state)
            if id not in schemas:
                schemas[id] = self._schema_of(state)
            if len(rows) >= min(limit, SLICE_ROWS):
                break
        self._answer(caller, n, [rows, schemas])
        yield

    def _count(self, caller: Caller, n: int, type_name: str) -> Iterator[None]:
        count = 0
        for count, _ in enumerate(self._store.states(type_name), 1):
            if count % SLICE_ROWS == 0:
                yield
        self._answer(caller, n, count)

    def _dead(self, caller: Caller, n: int, action: str, id: bytes | None) -> None:
        if action in {"retry", "drop"} and id is not None:
            self._shard.accept(Operated((caller, n), n, action, id))
            return
        letters = []
        for key, row in self._store.scan(Table.DEAD):
            if id is None or key == id:
                letters.append([bytes(key), msgspec.msgpack.decode(row, type=DeadLetter)])
        self._answer(caller, n, letters)
