"""n shards on a simulated network, disk and clock, driven by one seed.

The shards and their drivers are the production code, unchanged; so are the clients' sessions,
what the supervisor decides, and what workers answer for themselves. What is simulated is what
they stand on: packets are lost, repeated, delayed and overtaken as wholes, pipes are cut and
lines break; commits become durable late, and a crash takes those that were not; a disk is slow,
full, or fails; any shard may be killed at any point of a round, alone or with all others, and
comes back from what its disk kept; it may hang and come back late; its clock may be set; the
supervisor may die, and all with it. The same seed gives the same run.

Faults stop when `settle` is called: then everything in flight must drain (I8), and the books
that are kept beside the core must agree (I1, I2). Who uses this checks the rest from the
outside: states, replies, dead letters.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from skerry.app import App
from skerry.message import Message
from skerry.runtime.app import placer
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.settings import Limits, Settings
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.runtime.simulator.callers import SECONDS_PER_STEP
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.faults import FOREVER, Died, Hung, Killed, Misfortune
from skerry.runtime.simulator.keeper import Keeper
from skerry.runtime.simulator.ledger import Books, compare
from skerry.runtime.simulator.lines import Lines
from skerry.runtime.simulator.machine import Machine
from skerry.runtime.simulator.mover import DOWN_STEPS_MAX, Mover
from skerry.runtime.simulator.network import Network
from skerry.runtime.simulator.picture import Diary
from skerry.runtime.simulator.sinks import Shore
from skerry.runtime.simulator.stranger import Stranger
from skerry.testing import NO_FAULTS, Faults

STEP_NS = 1_000_000
"""A step of the simulated clock."""

START_NS = 1_700_000_000_000_000_000

HANG_S = 10.0
"""After how many of the supervisor's seconds a machine that hangs is killed."""


class Cluster:
    """The simulated machines, their network and their clients."""

    def __init__(
        self,
        app: App,
        *,
        seed: int,
        shards: int = 3,
        faults: Faults = Faults(),
        limits: Limits = Limits(),
        slow: frozenset[int] | set[int] = frozenset(),
        callers: int = 1,
        start_ns: int = START_NS,
        disks: Sequence[MemoryStore] = (),
        life: str = "",
        placement: Placement | None = None,
    ) -> None:
        self.app, self.seed, self.faults = app, seed, faults
        self.rng = random.Random(seed)
        self.step_no, self.clock_ns, self.step_ns = 0, start_ns, STEP_NS
        self.placement = placement or placer.first(shards)
        self.limits, self._life = limits, life
        self._incarnation = self.rng.randbytes(16)
        self.points: Counter[str] = Counter()
        """How often what went wrong, by name."""
        self.crashes = 0
        self.diary = Diary(lambda: self.step_no)
        self.network = Network(self)
        self.shore = Shore(self.points)
        self.emitted, self.sinks = self.shore.emitted, self.shore.sinks
        self.machines = [Machine(id, self) for id in self.placement.members]
        for machine, disk in zip(self.machines, disks):
            machine.disk = disk
        self.past: list[Books] = []
        """Books of the shards before the last change of their number, oldest first."""
        self.dies_opening: Callable[[], bool] = bool
        """Whether a shard is killed right after its opening, when nothing else has been written over
        what a torn write left."""
        self.lines = Lines(self, self.placement.members, callers)
        self.callers, self.outcomes = self.lines.callers, self.lines.outcomes
        self.looks, self.scans = self.lines.looks, self.lines.scans
        self.asked_at, self.answered_at = self.lines.asked_at, self.lines.answered_at
        self.keeper = Keeper(self.placement.members, self.lines.ask_if_quiet)
        for shard in slow:
            self.keeper.watches[shard].slow = True
        self._stranger = Stranger(seed, self._incarnation)
        self._misfortune = Misfortune(self, self._stranger)
        self.mover = self._leader()
        self.loss_accepted = False
        self._start_all()

    def _leader(self) -> Mover:
        return Mover(self)

    def _start_all(self) -> None:
        for machine in self.machines:
            self.start(machine)

    # ── machines ──

    def find(self, shard: int) -> Machine | None:
        """Return the machine of a shard; None: there is none any more."""
        return next((machine for machine in self.machines if machine.id == shard), None)

    def machine(self, shard: int) -> Machine:
        """Return the machine of a shard that there is."""
        found = self.find(shard)
        assert found is not None, f"there is no shard {shard}"
        return found

    def scale(self, shards: int) -> None:
        """Let the app go on with this many shards while it runs."""
        self.mover.scale(shards)

    def weigh(self) -> None:
        """Let slots move as their load might ask for it."""
        self.mover.weigh()

    def start(self, machine: Machine) -> None:
        machine.start(settings_of(self, machine.id, self.placement))
        self.keeper.watches[machine.id].started(self.step_no * SECONDS_PER_STEP)
        if self.dies_opening():
            self.crash(machine.id)

    def crash(self, id: int, *, by_itself: bool = False) -> None:
        """Kill a shard: what its disk had not finished is gone, and so is all that it held."""
        self.kill(self.machine(id), by_itself=by_itself)

    def kill(self, machine: Machine, *, by_itself: bool = False) -> None:
        """Kill a shard's process, if there is one."""
        id = machine.id
        if machine.shard is None:
            return
        self.crashes += 1
        self.diary.note(id, f"killed {machine.dies_at}".strip())
        again = self.keeper.ended(id, self.step_no, machine.beat, by_itself=by_itself)
        machine.end()
        machine.down_until = max(again, self.step_no + self.rng.randrange(1, DOWN_STEPS_MAX))
        for caller in self.callers:
            caller.broken(id)

    def crash_all(self) -> None:
        """Let the power fail."""
        for machine in self.machines:
            self.crash(machine.id)

    def accept_loss(self, shards: int) -> None:
        """With `--sync off` the power fails, and a person has the app go on with what is there.

        Each shard has lost what it has lost: no books can agree on it."""
        self.crash_all()
        for machine in self.machines:
            machine.disk.lose(self.rng.randint(0, machine.disk.appended))
        self._incarnation = self.rng.randbytes(16)
        self._life = "begun anew"
        self.reshard(shards)
        self.shore.out = self.shore.known_to(machine.disk for machine in self.machines)
        self.loss_accepted = True

    def reshard(self, shards: int) -> None:
        """All end, killed or stopped, and the app goes on with another number of shards."""
        for machine in self.machines:
            if self.rng.random() < 0.5:
                machine.disk.close()
        self.crash_all()
        self.points["re-sharded"] += 1
        self.mover.reshard(shards)

    # ── time ──

    def step(self) -> None:
        """One step of the clock: packets arrive, shards run, disks sync, things go wrong."""
        self.step_no += 1
        self.clock_ns += self.step_ns
        self._misfortune.strike()
        self.mover.step()
        self.network.deliver()
        for caller in self.callers:
            caller.step()
        self.keeper.step(self.step_no)
        for machine in self.machines:
            if machine.shard is None:
                if self.step_no >= machine.down_until:
                    self.start(machine)
            elif self.step_no >= machine.hangs_until:
                self._run(machine)
            elif self.keeper.look(machine.id, self.step_no, machine.beat, HANG_S):
                self.crash(machine.id)

    def _run(self, machine: Machine) -> None:
        """Let a machine run a round, up to the point where it is killed."""
        try:
            machine.run()
        except Killed:
            self.kill(machine)
        except Died:
            self.points["handler kills its process"] += 1
            self.kill(machine, by_itself=True)
        except Hung:
            self.points["handler hangs"] += 1
            machine.hangs_until = FOREVER
        if machine.dies_at:  # It did not come to where it was to be killed.
            self.kill(machine)

    def run(self, steps: int) -> None:
        """So many steps, with faults."""
        for _ in range(steps):
            self.step()

    def settle(self, *, steps_max: int = 20_000) -> None:
        """Faults are over: everything must drain, and the books agree. Raises AssertionError."""
        self.faults = NO_FAULTS
        self.network.mend()
        for machine in self.machines:
            machine.slow_until = machine.full_until = 0
            if machine.hangs_until != FOREVER:
                machine.hangs_until = 0
        still = 0
        for _ in range(steps_max):
            self.step()
            due = self.next_due_ns
            if due is not None and self.still:
                self.clock_ns = max(self.clock_ns, due)  # Nobody waits for an hour to pass.
            still = still + 1 if self.quiet else 0
            if still > 50:
                wrong = [] if self.loss_accepted else compare(self._books())
                assert not wrong, f"seed {self.seed}: " + "; ".join(wrong[:5])
                return
        raise AssertionError(
            f"I8: seed {self.seed}: not quiet after {steps_max} steps without faults; "
            f"{sum(caller.waits for caller in self.callers)} clients wait"
        )

    def _books(self) -> list[Books]:
        return [*self.past, *(machine.books for machine in self.machines)]

    @property
    def quiet(self) -> bool:
        """Nothing is under way anywhere, and nothing will be."""
        shards = [machine.shard for machine in self.machines]
        still = self.still and not self.mover.moves
        return still and all(shard is not None and shard.quiet for shard in shards)

    @property
    def still(self) -> bool:
        """Nothing is left to do at this time; timers may be due later."""
        waits = any(caller.waits for caller in self.callers)
        return not waits and all(machine.still for machine in self.machines)

    @property
    def next_due_ns(self) -> int | None:
        """When the next timer is due, on any shard."""
        dues = [m.shard.demand().wake_ns for m in self.machines if m.shard is not None]
        return min((due for due in dues if due is not None), default=None)

    # ── what machines stand on ──

    def send(self, src: int, peer: int, raw: bytes) -> None:
        """Carry a packet from one machine to another."""
        if self.faults.stranger:
            self._stranger.overhears(raw)
        arrivals = self.network.send(src, peer, raw, lambda: self._arrive(peer, raw))
        self.diary.packet(raw, arrivals or [None])

    def _arrive(self, shard: int, raw: bytes) -> None:
        machine = self.find(shard)
        if machine is None or machine.driver is None:
            return
        if self.step_no >= machine.hangs_until:
            machine.driver.arrived(raw)
            return
        # Its socket takes what comes, for when it goes on.
        step = min(machine.hangs_until, self.step_no + self.faults.hold_steps_max)
        self.network.at(step, lambda: self._arrive(shard, raw))

    def door(self, name: Any) -> Machine | None:
        """Return the machine at the end of a caller's line; None: there is none any more."""
        return self.find(name[1])

    def to_caller(self, name: Any, raw: bytes) -> None:
        """Carry a door's words to a caller."""
        self.lines.to_caller(name, raw)

    # ── clients and operators ──

    def ask(
        self, message: Message[Any], *, reply: bool = True, caller: int = 0, named: bytes = b""
    ) -> int:
        """Make a client's request; its number. Its outcome comes into `outcomes` in the end."""
        return self.lines.ask(message, reply=reply, caller=caller, named=named)

    def look(self, type_name: str, key: str, *, caller: int = 0) -> int:
        """Make a client's `get`; its number. What it finds comes into `looks` in the end."""
        return self.lines.look(type_name, key, caller=caller)

    def scan(self, type_name: str, *, limit: int, caller: int = 0) -> int:
        """Have a client look at all states of a type, so many at a time; the scan's number. The keys
        come into `scans` in the end."""
        return self.lines.scan(type_name, limit=limit, caller=caller)

    def operate(self, shard: int, action: str, id: bytes) -> Any:
        """Say an operator's command on a dead letter; what the shard answers."""
        self.lines.operate(shard, action, id)
        while self.lines.answer is None:
            self.step()
        return self.lines.answer

    def retry_all(self) -> None:
        """An operator has every dead letter sent anew, and does not wait for an answer."""
        for machine in self.machines:
            for id, _ in machine.disk.scan(Table.DEAD):
                self.lines.retry(machine.id, id)

    # ── what is seen from outside ──

    def dead(self) -> list[DeadLetter]:
        """The dead letters of all shards, oldest first."""
        rows = [row for machine in self.machines for _, row in machine.disk.scan(Table.DEAD)]
        letters = [msgspec.msgpack.decode(row, type=DeadLetter) for row in rows]
        return sorted(letters, key=lambda letter: letter.time_ns)

    def owner(self, type_name: str, key: str) -> int:
        """The shard of an entity."""
        return self.placement.slots[slot_of(type_name, key)]

    def state(self, type_name: str, key: str) -> Any:
        """The newest state of an entity, wherever it lives; None when it has none."""
        data = self.machine(self.owner(type_name, key)).disk.state(type_name, key)
        if data is None:
            return None
        return self.app.types[type_name].decode(data, key, lambda _: None)

    def record(self) -> None:
        """Note from now on what happens, for `picture`."""
        self.diary.notes = []

    def picture(self, title: str) -> str:
        """What was noted, as an SVG document."""
        return self.diary.picture(self.placement.next_id, title)


def settings_of(cluster: Cluster, shard: int, placement: Placement) -> Settings:
    """What a process of a shard is told, which its supervisor has seen crash."""
    watch = cluster.keeper.watches[shard]
    return Settings.of(
        cluster.app,
        me=shard,
        incarnation=cluster._incarnation,
        placement=placement,
        life=cluster._life,
        limits=cluster.limits,
        slow=watch.slow,
        poison=watch.poison,
        verdict=watch.verdict,
    )
