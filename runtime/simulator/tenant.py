"""A simulated worker on a host of a cluster: its log is asked of the servers, and takes its time.

Packing, appending and replay are the production's (`cluster/log.py`); what it stands on is a copy in
memory that its host may lose, and `servers.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

from skerry.runtime.cluster.appending import Appending, Step
from skerry.runtime.cluster.log import Astray, ReplicatedLog
from skerry.runtime.core import commit as records
from skerry.runtime.core.commit import Decoded
from skerry.runtime.core.settings import Settings
from skerry.runtime.gateway import protocol
from skerry.runtime.ports import Last
from skerry.runtime.simulator import machine
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.faults import SYNCED
from skerry.runtime.simulator.ledger import Books
from skerry.runtime.simulator.machine import Door, Machine, Wire
from skerry.runtime.simulator.servers import NO_ANSWER, Log, Question, Servers, View
from skerry.runtime.store.segments import Segments
from skerry.runtime.worker.takeover import opening

SNAPSHOT = 0.01
"""How often a step begins a snapshot."""


class Home(Protocol):
    """The host of a worker."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def holds(self) -> bool:
        """Whether its lease holds by its own clock."""
        ...

    def ask(self, do: Callable[[], Any], /) -> Question:
        """Ask the servers."""
        ...

    def let_go(self, caller: Any, /) -> None:
        """Close the line of a caller."""
        ...

    def send(self, src: int, peer: int, raw: bytes, /) -> None:
        """Carry a packet to where the other shard is believed to live."""
        ...


class Copy:
    """What lies on a host of a log: acknowledged records, from the first."""

    def __init__(self, held: Sequence[bytes] = ()) -> None:
        self.records = list(held)
        self.last = Last()

    def replay(self) -> Iterator[Decoded]:
        """Yield every record."""
        self.last = Last()
        for record in list(self.records):
            decoded = records.decode(record)
            self.last = Last(decoded.no, decoded.checksum, decoded.epoch, decoded.time_ns)
            yield decoded

    def resume(self) -> None:
        """Go on behind what was replayed."""

    def append(self, waiting: Sequence[bytes], *, sync: bool) -> None:
        """Append records."""
        self.records += waiting
        self.last = Last(*records.head_of(waiting[-1]))


def replayed(copy: Copy, view: View) -> ReplicatedLog:
    """Read what a log has behind a copy. Raises Astray."""
    log = ReplicatedLog(cast(Segments, copy), view)
    for _ in log.replay():
        pass
    return log


class ReplicatedStore(MemoryStore):
    """The store of a shard whose commits are durable when the servers have them."""

    def __init__(self, home: Home, servers: Servers, log: Log, owner: int) -> None:
        super().__init__()
        self._home, self._servers, self._log, self._owner = home, servers, log, owner
        self._going: Iterator[Appending] | None = None
        self._append: Appending | None = None
        self._question: Question | None = None
        self._taken = 0
        """How many records are durable when what goes on has ended."""

    def open(self, replicated: ReplicatedLog, held: Sequence[bytes]) -> None:
        """Have these records, which the log has."""
        self._replicated = replicated
        self._records = list(held)
        self.crash(len(self._records))

    def snapshot(self) -> tuple[int, list[bytes]]:
        """Return (message, records up to it)."""
        return self._replicated.covered, self._records[: self._synced]

    @property
    def records(self) -> list[bytes]:
        """All records, durable or not."""
        return self._records

    def pump(self) -> None:
        """Go on with appending. Raises Replaced, LogDamaged."""
        if self._going is None:
            if self._synced == len(self._records):
                return
            self._taken = len(self._records)
            self._going = self._replicated.appending(self._records[self._synced :])
            self._next()
            return
        append, question = self._append, self._question
        assert append is not None and question is not None, "something goes on"
        if (answer := question.answer) is None:
            return
        if append.step is Step.PUBLISH:
            append.published(answer)
        else:
            append.looked(answer)
        self._bring(append)

    def _next(self) -> None:
        assert self._going is not None, "something goes on"
        covered = self._replicated.covered
        self._append = next(self._going, None)
        if self._append is not None:
            self._bring(self._append)
            return
        self._going = None
        self._log.acked(covered + 1, self._replicated.covered, self._owner)
        self._synced = self._taken

    def _bring(self, append: Appending) -> None:
        """Ask what the append needs next, or conclude it."""
        servers, log, owner = self._servers, self._log, self._owner
        payload, expected = append.payload, append.expected
        if append.step is Step.PUBLISH:
            self._question = self._home.ask(lambda: servers.publish(log, payload, expected, owner))
        elif append.step is Step.LOOK:
            self._question = self._home.ask(lambda: servers.look(log, expected + 1))
        else:
            self._next()


class LeasedDoor(Door):
    """A door that answers nobody when its host's lease has ended, but greets."""

    def __init__(self, tenant: Tenant, ground: machine.Ground) -> None:
        super().__init__(tenant.fate, ground)
        self._tenant, self._points = tenant, ground.points

    def _say(self, caller: Any, word: object) -> None:
        if isinstance(word, protocol.Welcome):
            super()._say(caller, word)
            return
        if not self._tenant.home.holds:
            self._points["not answered: the lease has ended"] += 1
            if isinstance(word, protocol.Answer):
                self._tenant.home.let_go(caller)
            return
        self._tenant.check_owns(f"answers {type(word).__name__}")
        super()._say(caller, word)


class Tenant(Machine):
    """A shard's process on a host, and the copy of its log that lies there."""

    def __init__(self, id: int, ground: machine.Ground, home: Home, servers: Servers) -> None:
        super().__init__(id, ground)
        self.home, self._servers = home, servers
        self.log = servers.log(id)
        self.copy = Copy()
        self.owner = 0
        """The number of its life."""
        self._opened: Iterator[None] | None = None
        self.lives: list[tuple[Books, ReplicatedStore]] = []
        """Its lives, and what each has written."""

    @property
    def up(self) -> bool:
        """Whether there is a process."""
        return self.shard is not None or self._opened is not None

    def start(self, settings: Settings) -> None:
        """Start a process, which serves once its epoch is in the log."""
        self._opened = self._open(settings)

    def _open(self, settings: Settings) -> Iterator[None]:
        """Take the shard over. Raises Replaced: another was faster."""
        servers, log = self._servers, self.log
        while True:
            question = self.home.ask(lambda: servers.view(log))
            while question.answer is None:
                yield
            if question.answer is not NO_ANSWER:
                break
        self.owner = servers.owner()
        replicated = self._replayed(question.answer)
        disk = self.disk = ReplicatedStore(self.home, servers, log, self.owner)
        disk.open(replicated, self.copy.records)
        self.books = Books()
        self.lives.append((self.books, disk))
        shard = self._begin(settings)
        for _ in opening(shard, disk, self, lambda: self.home.holds):
            disk.pump()
            yield
        # Its lease may have ended while the answer to its append was on its way. Then its HELLO says what
        # stands in the log, and it can add nothing.
        if self.home.holds:
            self.check_owns("says HELLO")
        self._serve(shard)

    def _replayed(self, view: View) -> ReplicatedLog:
        """Read on from the copy, or from a snapshot."""
        try:
            return replayed(self.copy, view)
        except Astray:
            self._ground.points["copy of no use"] += 1
        self.copy = Copy(self.log.snapshots[0][1] if self.log.snapshots else ())
        return replayed(self.copy, view)

    def check_owns(self, does: str) -> None:
        """Assert that nobody has taken the shard over."""
        owner, ours = self.log.owner, self.owner
        assert owner == ours, (
            f"I5: {self.home.name}: owner {ours} of {self.id} {does} after {owner}"
        )

    def run(self) -> None:
        """Go on with the opening, or run a round. Raises Killed, Replaced."""
        if self._opened is None:
            super().run()
        elif next(self._opened, self) is self:
            self._opened = None

    def _sync(self) -> None:
        disk = self._store
        before = disk.durable()
        disk.pump()
        if disk.durable() > before:
            self._ground.diary.note(self.id, "durable", f"up to {disk.durable()}")
            self.fate.meet(SYNCED)
        if self._ground.rng.random() < SNAPSHOT:
            sequence, held = disk.snapshot()
            self._ground.points["snapshots"] += 1
            self.home.ask(lambda: self.log.keep(sequence, held))

    @property
    def _store(self) -> ReplicatedStore:
        assert isinstance(self.disk, ReplicatedStore), "it was opened"
        return self.disk

    def end(self) -> None:
        """End the process. What it had asked for may still be done."""
        self.shard = self.driver = self._opened = None
        self.hangs_until, self.dies_at, self.fate.at = 0, "", ""

    def _wire(self) -> Wire:
        return Wire(self.id, self.fate, self.home.send)

    def _door(self) -> Door:
        return LeasedDoor(self, self._ground)

    def judged(self) -> list[Books]:
        """Return the books of all lives, without what was never durable."""
        truth = Copy()
        replayed(truth, self.log.whole())
        for books, disk in self.lives:
            pairs = zip(disk.records, truth.records)
            books.crashed(sum(1 for ours, theirs in pairs if ours == theirs))
        return [books for books, _ in self.lives]
