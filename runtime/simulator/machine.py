"""A simulated worker: the production shard and its driver, on a disk that survives them.

The driver's ports stand here and in `sources.py` and `sinks.py`: bytes go to the simulated
network, time is the simulation's, and at each of them the process can be killed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol

from skerry.app import App
from skerry.runtime.app.watch import NOTHING, Beat
from skerry.runtime.config import Supervision
from skerry.runtime.core.events import Commit, Identity, Reply
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.gateway import protocol
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.faults import APPENDED, BEFORE, RUN, SYNCED, Fate
from skerry.runtime.simulator.ledger import Books
from skerry.runtime.simulator.network import Network
from skerry.runtime.simulator.picture import Diary
from skerry.runtime.simulator.sinks import Shore, Sinks
from skerry.runtime.simulator.sources import Sources
from skerry.runtime.worker.driver import Driver
from skerry.runtime.worker.ports import Ports
from skerry.runtime.worker.takeover import open_shard
from skerry.testing import Faults

BATCHES_S = (0.0005, 0.003, 0.02)
"""How long batches take: little, long for clients, too long."""

SLOW_DISK = 20
"""How many times less often a slow disk syncs."""


class Ground(Protocol):
    """What machines stand on."""

    app: App
    rng: random.Random
    faults: Faults
    step_no: int
    clock_ns: int
    points: Counter[str]
    network: Network
    shore: Shore
    diary: Diary

    def send(self, src: int, peer: int, raw: bytes, /) -> None:
        """Carry a packet to another machine."""
        ...

    def to_caller(self, name: Any, raw: bytes, /) -> None:
        """Carry a door's words to a caller."""
        ...


class Machine:
    """One shard's process while it runs, and the disk that survives it."""

    def __init__(self, id: int, ground: Ground) -> None:
        self.id, self._ground = id, ground
        self.disk = MemoryStore()
        self.shard: Shard | None = None
        self.driver: Driver | None = None
        """None: its process is down."""
        self.books = Books()
        self.fate = Fate(ground.rng)
        self.dies_at = ""
        """The point of this step's round at which it is killed; empty: none."""
        self.down_until = 0
        self.hangs_until = 0
        self.slow_until = self.full_until = 0
        """Until when its disk is slow, or full."""
        self.clock_off_ns = 0
        self.heartbeat = Heartbeat()

    def start(self, settings: Settings) -> None:
        """Start a process of this shard."""
        shard = self._begin(settings)
        open_shard(shard, self.disk, self, lambda: self.disk.sync(self.disk.appended))
        self._serve(shard)

    def _begin(self, settings: Settings) -> Shard:
        """Begin a life of the shard on what the disk has."""
        self.heartbeat = Heartbeat()
        return Shard(settings, self.disk, self.disk.last, self.heartbeat.running, self.books)

    def _serve(self, shard: Shard) -> None:
        """Let a shard that was opened stand on this machine."""
        ground, self.shard = self._ground, shard
        self._sources = Sources(ground.rng, ground.faults.repeat)
        door = self._door()
        ports = Ports(
            Commits(self),
            self._wire(),
            door,
            self._sources,
            Sinks(ground.shore, ground.app.outlets, ground.network, self.fate.leaves),
            door,
            self,
            self.heartbeat,
            Stopwatch(ground.rng),
        )
        half_life_s = Supervision().half_life_s
        self.driver = Driver(shard, ground.app, self.disk, ports, load_half_life_s=half_life_s)

    def _wire(self) -> Wire:
        return Wire(self.id, self.fate, self._ground.send)

    def _door(self) -> Door:
        return Door(self.fate, self._ground)

    def run(self) -> None:
        """Let the disk sync, and the driver run a round. Raises Killed."""
        self.fate.at = self.dies_at
        self.fate.meet(BEFORE)
        self._sync()
        self.disk.full = self.full_until > self._ground.step_no
        assert self.driver is not None, "only what is up runs"
        self.driver.tick()
        self.driver.round()

    def end(self) -> None:
        """End the process: the disk keeps what it had finished, and maybe more."""
        ground, disk = self._ground, self.disk
        self.shard = self.driver = None
        kept = ground.rng.randint(disk.durable(), disk.appended)
        met = disk.met_leftovers
        disk.crash(kept)
        ground.points["leftovers behind a torn write"] += disk.met_leftovers - met
        self.books.crashed(kept)
        self.hangs_until, self.dies_at, self.fate.at = 0, "", ""

    def put_back(self, disk: MemoryStore) -> None:
        """Replace its disk by an older copy, while its process is down."""
        assert self.shard is None, "only what is down is put back"
        self.disk = disk
        self.books.crashed(disk.appended)
        self._ground.points["put back"] += 1

    def _sync(self) -> None:
        ground, disk = self._ground, self.disk
        slow = self.slow_until > ground.step_no
        chance = ground.faults.sync / SLOW_DISK if slow else ground.faults.sync
        if ground.rng.random() < chance and disk.appended > disk.durable():
            disk.sync(ground.rng.randint(disk.durable() + 1, disk.appended))
            ground.diary.note(self.id, "durable", f"up to {disk.durable()}")
            self.fate.meet(SYNCED)

    def appended(self, commit: Commit) -> None:
        """Note a commit that the disk has."""
        self._ground.diary.note(self.id, "commit", str(commit.no))

    @property
    def beat(self) -> Beat:
        """What can be read of its process after its end."""
        assert self.shard is not None, "only what runs writes of itself"
        return self.heartbeat.beat

    @property
    def still(self) -> bool:
        """Whether it is up, and nothing is left to do on it at this time."""
        shard = self.shard
        if shard is None or shard.durable < shard.no or not self._sources.finished:
            return False
        demand = shard.demand()
        return not demand.runnable and not demand.unacked

    def hear(self, caller: Any, raw: bytes) -> None:
        """Let bytes of a caller arrive at its door."""
        assert self.driver is not None, "only what is up hears"
        for event in protocol.events(caller, protocol.decode_call(raw), len(raw)):
            self.driver.called(event)

    def now_ns(self) -> int:
        """The time of its wall clock."""
        return self._ground.clock_ns + self.clock_off_ns

    def steady_ns(self) -> int:
        """The time of the simulation."""
        return self._ground.clock_ns


class Commits:
    """The way to the disk."""

    def __init__(self, machine: Machine) -> None:
        self._machine, self._disk, self._fate = machine, machine.disk, machine.fate
        self.durable, self.keep = self._disk.durable, self._disk.keep

    @property
    def backlog(self) -> tuple[int, int]:
        """Records and bytes that are not durable yet."""
        return self._disk.backlog

    @property
    def nearly_full(self) -> bool:
        """Whether the disk is nearly full."""
        return self._disk.nearly_full

    @property
    def used_bytes(self) -> int:
        """What the rows take."""
        return self._disk.used_bytes

    def append(self, commit: Commit) -> None:
        """Give a commit to the disk. Raises Killed, before or after."""
        self._fate.meet(RUN)
        self._disk.append(commit)
        self._machine.appended(commit)
        self._fate.meet(APPENDED)


class Wire:
    """The way to peers."""

    def __init__(self, id: int, fate: Fate, carry: Callable[[int, int, bytes], None]) -> None:
        self._id, self._fate, self._carry = id, fate, carry

    def send(self, peer: int, raw: bytes) -> None:
        """Give a packet to the network."""
        self._fate.leaves()
        self._carry(self._id, peer, raw)


class Door:
    """The way to callers, who all read what they are told; and no backups, which a cluster takes."""

    def __init__(self, fate: Fate, ground: Ground) -> None:
        self._fate, self._ground = fate, ground

    def _say(self, caller: Any, word: object) -> None:
        self._fate.leaves()
        self._ground.to_caller(caller, protocol.encode(word))

    def answer(self, caller: Any, n: int, value: Any) -> None:
        """Answer a call."""
        self._say(caller, protocol.Answer(n, value))

    report = answer

    def error(self, caller: Any, n: int, error: Exception) -> None:
        """Refuse a call, which no simulated caller makes."""
        raise AssertionError(f"a simulated caller asked what can't be answered: {error!r}")

    def welcome(self, caller: Any, greeting: Any) -> None:
        """Greet a caller."""
        self._say(caller, protocol.Welcome(greeting))

    def replies(self, replies: list[Reply]) -> None:
        """Tell outcomes, one message per caller, as the real door does."""
        for caller, outcomes in protocol.outcomes(replies):
            self._say(caller, outcomes)

    def has_read(self, caller: Any) -> bool:
        """Lines that break lose what was said."""
        return True

    def let_go(self, caller: Any) -> None:
        """End the line of a caller that does not read."""
        raise AssertionError("every simulated caller reads")

    def check_room(self) -> None:
        """Refuse a backup that a caller asks for."""
        raise AssertionError("a simulated disk is copied by its cluster")

    def begin(self, caller: Any, n: int, no: int, folder: str) -> None:
        """Begin no copy."""
        self.check_room()

    def finished(self) -> list[Any]:
        """Return the copies that have ended: none ever begins."""
        return []


class Heartbeat:
    """What the supervisor sees of a process."""

    def __init__(self) -> None:
        self.beat = Beat(0, 0, NOTHING, False)

    def round(self, commit: int, *, slow: bool) -> None:
        """Note that a round begins."""
        self.beat = self.beat._replace(rounds=self.beat.rounds + 1, commit=commit, slow=slow)

    def running(self, identity: Identity | None) -> None:
        """Note which message runs next."""
        self.beat = self.beat._replace(running=identity or NOTHING)

    def work(self) -> None:
        """The supervisor does not look while a step lasts."""


class Stopwatch:
    """Batches take as long as is drawn."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.clock_s = self.own_s = self.cpu_s = 0.0

    def start(self) -> None:
        """A batch begins."""
        self.clock_s = self.own_s = self._rng.choice(BATCHES_S)
        self.cpu_s += self.own_s
