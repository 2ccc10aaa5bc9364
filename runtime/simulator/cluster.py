"""n shards on a simulated network, disk and clock, driven by one seed.

The shards are the production core (`runtime/shard`), unchanged. What is simulated is what
they stand on: packets are lost, repeated, delayed and overtaken as wholes, pipes are cut;
commits become durable late, and a crash takes those that were not; any shard may be killed
at any point of a step, alone or with all others, and comes back from what its disk kept; it
may hang and come back late; its clock may be set. The same seed gives the same run.

Faults stop when `settle` is called: then everything in flight must drain (I8), and the books
that are kept beside the core must agree (I1, I2). Who uses this checks the rest from the
outside: states, replies, dead letters.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from skerry.app import App
from skerry.message import Message
from skerry.runtime.shard import wire
from skerry.runtime.shard.dead import DeadLetter
from skerry.runtime.shard.events import (
    Arrived,
    Durable,
    Effect,
    Items,
    Outcome,
    Reply,
    Request,
    Requested,
    Rewind,
    Stop,
    Table,
    Ticked,
    Transmit,
)
from skerry.runtime.shard.intake import partition_slot
from skerry.runtime.shard.placement import balanced, slot_of
from skerry.runtime.shard.shard import Limits, Settings, Shard
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.ledger import Books, compare
from skerry.runtime.simulator.picture import Note
from skerry.testing import NO_FAULTS, Faults

STEP_NS = 1_000_000
"""A step of the simulated clock."""

RETRY_STEPS = 400
"""A client without an answer asks again after so many steps."""

START_NS = 1_700_000_000_000_000_000

POINTS = (
    "before its batch",
    "batch run, not appended",
    "appended, not synced",
    "synced, not told",
    "told, nothing sent",
    "half of it sent",
)
"""Where in a step a shard can be killed."""


class Machine:
    """A shard, and the disk that survives it."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.disk = MemoryStore()
        self.shard: Shard | None = None
        self.books = Books()
        self.down_until = 0
        self.hangs_until = 0
        self.clock_off_ns = 0
        self.dies_at = ""
        """The point of this step at which it is killed."""
        self.positions: dict[tuple[str, str], Any] = {}
        self.readers: dict[tuple[str, str], Iterator[tuple[Any, Any]]] = {}
        self.ended: set[tuple[str, str]] = set()
        """Partitions that have been read to their end."""


class _Pending(Struct):
    """A client's request that has no outcome yet."""

    request: Request
    next_try: int


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
        start_ns: int = START_NS,
    ) -> None:
        self.app, self.seed, self.faults = app, seed, faults
        self.rng = random.Random(seed)
        self.step_no = 0
        self.clock_ns = start_ns
        self.step_ns = STEP_NS
        self.placement = balanced(list(range(shards)), version=1, next_id=shards)
        self._limits = limits
        self._incarnation = self.rng.randbytes(16)
        self._network: list[tuple[int, int, int, bytes]] = []
        self._order = 0
        self.machines = [Machine(id) for id in range(shards)]
        self.crashes = self.lost = self.repeated = 0
        self.points: Counter[str] = Counter()
        """How often what went wrong, by name."""
        self.notes: list[Note] | None = None
        """Set to a list, it collects what happens, for a picture."""
        self._cut_until: dict[tuple[int, int], int] = {}
        self.session = self.rng.randbytes(16)
        self._number = 0
        self._previous: dict[int, int] = {}
        self._pending: dict[int, _Pending] = {}
        self._stuck: list[tuple[int, Request]] = []
        """Copies of requests that arrive when they do: maybe long after their outcome."""
        self.outcomes: dict[int, Outcome] = {}
        """The outcome of each request, by its number."""
        self.asked_at: dict[int, int] = {}
        self.answered_at: dict[int, int] = {}
        """The steps in which a request was first said, and its outcome heard."""
        self.slow = set(slow)
        for machine in self.machines:
            self._start(machine)

    # ── machines ──

    def _start(self, machine: Machine) -> None:
        settings = Settings(
            me=machine.id,
            incarnation=self._incarnation,
            placement=self.placement,
            types=self.app.types,
            pipelines={pipeline.name: pipeline for pipeline in self.app.pipelines},
            retries=self.app.retries,
            limits=self._limits,
            slow=machine.id in self.slow,
        )
        shard = Shard(settings, machine.disk, machine.disk.last)
        machine.books.follow(shard)
        shard.accept(self._clock(machine))
        opening = shard.open()
        machine.disk.append(opening)
        machine.disk.sync(opening.no)
        shard.accept(Durable(opening.no))
        machine.shard = shard
        machine.readers = {}
        machine.ended = set()

    def _note(self, shard: int, kind: str, text: str = "") -> None:
        if self.notes is not None:
            self.notes.append(Note(self.step_no, shard, kind, text))

    def _note_packet(self, src: int, peer: int, raw: bytes, when: int | None) -> None:
        if self.notes is not None:
            packet = wire.unpack(raw)
            text = f"{src} to {peer}, number {packet.seq}, {packet.count} messages"
            kind = wire.Kind(packet.kind).name
            self.notes.append(Note(self.step_no, src, kind, text, peer, when))

    def _clock(self, machine: Machine) -> Ticked:
        return Ticked(self.clock_ns + machine.clock_off_ns, self.clock_ns)

    def crash(self, id: int) -> None:
        """Kill a shard: what its disk had not finished is gone, and so is all that it held."""
        machine = self.machines[id]
        if machine.shard is None:
            return
        self.crashes += 1
        self._note(id, f"killed {machine.dies_at}".strip())
        machine.shard = None
        kept = self.rng.randint(machine.disk.durable(), machine.disk.appended)
        machine.disk.crash(kept)
        machine.books.crashed(kept)
        machine.down_until = self.step_no + self.rng.randrange(1, 50)
        machine.hangs_until, machine.dies_at = 0, ""

    # ── time ──

    def step(self) -> None:
        """One step of the clock: packets arrive, shards run, disks sync, things go wrong."""
        self.step_no += 1
        self.clock_ns += self.step_ns
        self._misfortune()
        self._deliver()
        self._clients()
        for machine in self.machines:
            if machine.shard is None:
                if self.step_no >= machine.down_until:
                    self._start(machine)
            elif self.step_no >= machine.hangs_until:
                self._run(machine)
                if machine.dies_at:
                    self.crash(machine.id)

    def _misfortune(self) -> None:
        """What goes wrong in this step, beside packets and disks."""
        faults, chance = self.faults, self.rng.random
        hold = self.step_no + self.rng.randint(1, faults.hold_steps_max)
        if chance() < faults.blackout:
            self.points["all at once"] += 1
            for machine in self.machines:
                self.crash(machine.id)
        for machine in self.machines:
            if chance() < faults.crash and machine.shard is not None:
                machine.dies_at = self.rng.choice(POINTS)
                self.points[machine.dies_at] += 1
            if chance() < faults.hang:
                self.points["hung"] += 1
                self._note(machine.id, "hangs", f"until step {hold}")
                machine.hangs_until = hold
            if chance() < faults.clock:
                self.points["clock set"] += 1
                self._note(machine.id, "clock set")
                machine.clock_off_ns = self.rng.randint(-2 * 10**9, 2 * 10**9)
            if chance() < faults.cut and len(self.machines) > 1:
                self.points["pipe cut"] += 1
                other = self.rng.choice(self.machines)
                self._cut_until[machine.id, other.id] = hold
                self._note(machine.id, "pipe cut", f"to {other.id} until step {hold}")

    def _run(self, machine: Machine) -> None:
        """A shard's step, as the worker's loop does it, up to the point where it is killed."""
        shard, dies_at = machine.shard, machine.dies_at
        assert shard is not None, "only what is up runs"
        shard.accept(self._clock(machine))
        self._read_sources(machine, shard)
        if dies_at == "before its batch":
            return
        if shard.runnable and shard.no - shard.durable < 8:
            commit = shard.run()
            machine.books.sealed(None if commit is None else commit.no)
            if dies_at == "batch run, not appended":
                return
            if commit is not None:
                machine.disk.append(commit)
                self._note(machine.id, "commit", str(commit.no))
        if dies_at == "appended, not synced":
            return
        if self.rng.random() < self.faults.sync and shard.no > shard.durable:
            upto = self.rng.randint(shard.durable + 1, shard.no)
            machine.disk.sync(upto)
            self._note(machine.id, "durable", f"up to {upto}")
            if dies_at == "synced, not told":
                return
            shard.accept(Durable(upto))
        effects = shard.take_effects()
        if dies_at:
            effects = effects[: len(effects) // 2] if dies_at == "half of it sent" else []
        for effect in effects:
            self._perform(machine, effect)

    def _perform(self, machine: Machine, effect: Effect) -> None:
        match effect:
            case Transmit(peer, raw):
                self._send(machine.id, peer, raw)
            case Reply(_, number, outcome):
                self._replied(number, outcome)
            case Rewind(source, partition, _):
                machine.readers.pop((source, partition), None)
                machine.ended.discard((source, partition))
            case Stop(error):
                raise error

    def _read_sources(self, machine: Machine, shard: Shard) -> None:
        if shard.pressed:
            return
        for pipeline in self.app.pipelines:
            for partition in pipeline.source.partitions():
                slot = partition_slot(pipeline.name, partition)
                if self.placement.slots[slot] != machine.id:
                    continue
                where = (pipeline.name, partition)
                if where not in machine.readers:
                    after = shard.intake.positions.get(where)
                    machine.positions[where] = after
                    machine.readers[where] = iter(pipeline.source.read(partition, after))
                reader = machine.readers[where]
                batch = [item for _, item in zip(range(self.rng.randrange(1, 6)), reader)]
                if not batch:
                    machine.ended.add(where)
                else:
                    after = machine.positions[where]
                    shard.accept(Items(pipeline.name, partition, after, batch))
                    if self.rng.random() < self.faults.repeat:
                        # A reader that was ahead, and reads again from where it thinks it stands.
                        shard.accept(Items(pipeline.name, partition, after, batch))
                    machine.positions[where] = batch[-1][0]

    # ── the network ──

    def _send(self, src: int, peer: int, raw: bytes) -> None:
        cut = self._cut_until.get((src, peer), 0) > self.step_no
        if cut or self.rng.random() < self.faults.lose:
            self.lost += 1
            self._note_packet(src, peer, raw, None)
            return
        copies = 1
        if self.rng.random() < self.faults.repeat:
            self.repeated += 1
            copies = 2
        for _ in range(copies):
            self._order += 1
            when = self.step_no + self.rng.randint(1, max(1, self.faults.delay_steps_max))
            self._note_packet(src, peer, raw, when)
            heapq.heappush(self._network, (when, self._order, peer, raw))

    def _deliver(self) -> None:
        while self._network and self._network[0][0] <= self.step_no:
            _, _, peer, raw = heapq.heappop(self._network)
            machine = self.machines[peer]
            if machine.shard is None:
                continue
            if self.step_no < machine.hangs_until:  # Its socket takes it, for when it goes on.
                self._order += 1
                heapq.heappush(self._network, (machine.hangs_until, self._order, peer, raw))
            else:
                machine.shard.accept(Arrived(raw))

    # ── clients ──

    def ask(self, message: Message[Any], *, reply: bool = True) -> int:
        """A client's request; its number. The outcome comes into `outcomes` in the end."""
        self._number += 1
        handler = message.handler
        slot = slot_of(handler.entity, message.key)
        args = message.args
        request = Request(
            self.session,
            self._number,
            self._previous.get(slot, 0),
            self._confirmed(),
            self.clock_ns,
            handler.entity,
            message.key,
            handler.name,
            args if isinstance(args, bytes) else msgspec.msgpack.encode(args),
            reply,
        )
        if not handler.query:  # A query leaves no row behind, so nothing may wait for one.
            self._previous[slot] = self._number
        self._pending[self._number] = _Pending(request, self.step_no)
        self.asked_at[self._number] = self.step_no
        return self._number

    def _confirmed(self) -> int:
        return min(self._pending, default=self._number) - 1

    def _clients(self) -> None:
        for pending in self._pending.values():
            if self.step_no >= pending.next_try:
                pending.next_try = self.step_no + self.rng.randint(1, RETRY_STEPS)
                request = pending.request
                owner = self.placement.slots[slot_of(request.type, request.key)]
                machine = self.machines[owner]
                hangs = self.step_no < machine.hangs_until
                if (
                    machine.shard is not None
                    and not hangs
                    and self.rng.random() >= self.faults.lose
                ):
                    machine.shard.accept(Requested("client", request))
                    if self.rng.random() < self.faults.repeat:
                        late = self.step_no + self.rng.randint(1, self.faults.hold_steps_max)
                        self._stuck.append((late, request))
        for when, request in self._stuck:
            shard = self.machines[self.placement.slots[slot_of(request.type, request.key)]].shard
            if when == self.step_no and shard is not None:
                shard.accept(Requested("client", request))
        self._stuck = [(when, request) for when, request in self._stuck if when > self.step_no]

    def _replied(self, number: int, outcome: Outcome) -> None:
        if self.rng.random() < self.faults.lose:
            return
        first = self.outcomes.setdefault(number, outcome)
        assert first == outcome, f"I1: request {number} had two outcomes, {first} and {outcome}"
        if self._pending.pop(number, None) is not None:
            self.answered_at[number] = self.step_no

    # ── ends ──

    @property
    def quiet(self) -> bool:
        """Nothing is under way anywhere, and nothing will be."""
        shards = [machine.shard for machine in self.machines]
        return self.still and all(shard is not None and shard.quiet for shard in shards)

    @property
    def still(self) -> bool:
        """Nothing is left to do at this time; timers may be due later."""
        return not self._pending and all(
            machine.shard is not None
            and not machine.shard.runnable
            and machine.shard.durable == machine.shard.no
            and not machine.shard.streams.busy
            and len(machine.ended) == len(machine.readers)
            for machine in self.machines
        )

    @property
    def next_due_ns(self) -> int | None:
        """When the next timer is due, on any shard."""
        dues = [m.shard.timers.next_ns for m in self.machines if m.shard is not None]
        return min((due for due in dues if due is not None), default=None)

    def run(self, steps: int, *, each: Callable[[], None] = lambda: None) -> None:
        """So many steps, with faults."""
        for _ in range(steps):
            each()
            self.step()

    def settle(self, *, steps_max: int = 20_000) -> None:
        """Faults are over: everything must drain, and the books agree. Raises AssertionError."""
        self.faults = NO_FAULTS
        self._cut_until.clear()
        for machine in self.machines:
            machine.hangs_until = 0
        still = 0
        for _ in range(steps_max):
            self.step()
            due = self.next_due_ns
            if due is not None and self.still and not self._network:
                self.clock_ns = max(self.clock_ns, due)  # Nobody waits for an hour to pass.
            still = still + 1 if self.quiet else 0
            if still > 50:
                wrong = compare(machine.books for machine in self.machines)
                assert not wrong, f"seed {self.seed}: " + "; ".join(wrong[:5])
                return
        raise AssertionError(
            f"I8: seed {self.seed}: not quiet after {steps_max} steps without faults; "
            f"{len(self._pending)} requests pending"
        )

    def dead(self) -> list[DeadLetter]:
        """The dead letters of all shards, oldest first."""
        rows = [row for machine in self.machines for _, row in machine.disk.scan(Table.DEAD)]
        letters = [msgspec.msgpack.decode(row, type=DeadLetter) for row in rows]
        return sorted(letters, key=lambda letter: letter.time_ns)

    def state(self, type_name: str, key: str) -> Any:
        """The newest state of an entity, wherever it lives; None when it has none."""
        owner = self.machines[self.placement.slots[slot_of(type_name, key)]]
        data = owner.disk.state(type_name, key)
        if data is None:
            return None
        return self.app.types[type_name].decode(data, key, lambda _: None)
