"""n shards on a simulated network, disk and clock, driven by one seed.

The shards are the production core (`runtime/shard`), unchanged. What is simulated is what
they stand on: packets are lost, repeated, delayed and overtaken as wholes; commits become
durable late, and a crash takes those that were not; any shard may crash at any step and
comes back from what its disk kept. The same seed gives the same run.

Faults stop when `settle` is called: then everything in flight must drain (I8). The checks
are made by who uses this, from the outside: states, replies, dead letters.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from msgspec import Struct

from skerry.app import App
from skerry.message import Message
from skerry.runtime.shard.events import (
    Arrived,
    Durable,
    Items,
    Outcome,
    Reply,
    Request,
    Requested,
    Rewind,
    Stop,
    Ticked,
    Transmit,
)
from skerry.runtime.shard.intake import partition_slot
from skerry.runtime.shard.placement import balanced, slot_of
from skerry.runtime.shard.shard import Limits, Settings, Shard
from skerry.runtime.simulator.disk import MemoryStore

STEP_NS = 1_000_000
"""A step of the simulated clock."""

RETRY_STEPS = 400
"""A client without an answer asks again after so many steps."""

START_NS = 1_700_000_000_000_000_000


class Faults(Struct, frozen=True, kw_only=True):
    """How often what goes wrong: probabilities per packet, or per step."""

    lose: float = 0.05
    repeat: float = 0.05
    delay_steps_max: int = 20
    crash: float = 0.002
    sync: float = 0.5
    """How likely a disk finishes something in a step."""


NO_FAULTS = Faults(lose=0, repeat=0, delay_steps_max=1, crash=0, sync=1)


class Machine:
    """A shard, and the disk that survives it."""

    def __init__(self, id: int) -> None:
        self.id = id
        self.disk = MemoryStore()
        self.shard: Shard | None = None
        self.down_until = 0
        self.positions: dict[tuple[str, str], Any] = {}
        self.readers: dict[tuple[str, str], Iterator[tuple[Any, Any]]] = {}


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
    ) -> None:
        self.app, self.seed, self.faults = app, seed, faults
        self.rng = random.Random(seed)
        self.step_no = 0
        self.clock_ns = START_NS
        self.placement = balanced(list(range(shards)), version=1, next_id=shards)
        self._limits = limits
        self._incarnation = self.rng.randbytes(16)
        self._network: list[tuple[int, int, int, bytes]] = []
        self._order = 0
        self.machines = [Machine(id) for id in range(shards)]
        self.crashes = self.lost = self.repeated = 0
        self.session = self.rng.randbytes(16)
        self._number = 0
        self._previous: dict[int, int] = {}
        self._pending: dict[int, _Pending] = {}
        self.outcomes: dict[int, Outcome] = {}
        """The outcome of each request, by its number."""
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
        shard.accept(Ticked(self.clock_ns))
        opening = shard.open()
        machine.disk.append(opening)
        machine.disk.sync(opening.no)
        shard.accept(Durable(opening.no))
        machine.shard = shard
        machine.readers = {}

    def crash(self, id: int) -> None:
        """Kill a shard: what its disk had not synced is gone, and so is all that it held."""
        machine = self.machines[id]
        self.crashes += 1
        machine.shard = None
        machine.disk.crash()
        machine.down_until = self.step_no + self.rng.randrange(1, 50)

    # ── time ──

    def step(self) -> None:
        """One step of the clock: packets arrive, shards run, disks sync, things go wrong."""
        self.step_no += 1
        self.clock_ns += STEP_NS
        self._deliver()
        self._clients()
        for machine in self.machines:
            if machine.shard is None:
                if self.step_no >= machine.down_until:
                    self._start(machine)
                continue
            if self.rng.random() < self.faults.crash:
                self.crash(machine.id)
                continue
            self._run(machine)

    def _run(self, machine: Machine) -> None:
        shard = machine.shard
        assert shard is not None, "only what is up runs"
        shard.accept(Ticked(self.clock_ns))
        self._read_sources(machine, shard)
        if shard.runnable and shard.no - shard.durable < 8:
            commit = shard.run()
            if commit is not None:
                machine.disk.append(commit)
        if self.rng.random() < self.faults.sync and shard.no > shard.durable:
            upto = self.rng.randint(shard.durable + 1, shard.no)
            machine.disk.sync(upto)
            shard.accept(Durable(upto))
        for effect in shard.take_effects():
            match effect:
                case Transmit(peer, raw):
                    self._send(peer, raw)
                case Reply(_, number, outcome):
                    self._replied(number, outcome)
                case Rewind(source, partition, _):
                    machine.readers.pop((source, partition), None)
                case Stop(error):
                    raise error

    def _read_sources(self, machine: Machine, shard: Shard) -> None:
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
                if batch:
                    after = machine.positions[where]
                    shard.accept(Items(pipeline.name, partition, after, batch))
                    machine.positions[where] = batch[-1][0]

    # ── the network ──

    def _send(self, peer: int, raw: bytes) -> None:
        if self.rng.random() < self.faults.lose:
            self.lost += 1
            return
        copies = 1
        if self.rng.random() < self.faults.repeat:
            self.repeated += 1
            copies = 2
        for _ in range(copies):
            self._order += 1
            when = self.step_no + self.rng.randint(1, max(1, self.faults.delay_steps_max))
            heapq.heappush(self._network, (when, self._order, peer, raw))

    def _deliver(self) -> None:
        while self._network and self._network[0][0] <= self.step_no:
            _, _, peer, raw = heapq.heappop(self._network)
            shard = self.machines[peer].shard
            if shard is not None:
                shard.accept(Arrived(raw))

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
        return self._number

    def _confirmed(self) -> int:
        return min(self._pending, default=self._number) - 1

    def _clients(self) -> None:
        for pending in self._pending.values():
            if self.step_no >= pending.next_try:
                pending.next_try = self.step_no + self.rng.randint(1, RETRY_STEPS)
                request = pending.request
                owner = self.placement.slots[slot_of(request.type, request.key)]
                shard = self.machines[owner].shard
                if shard is not None and self.rng.random() >= self.faults.lose:
                    shard.accept(Requested("client", request))

    def _replied(self, number: int, outcome: Outcome) -> None:
        if self.rng.random() < self.faults.lose:
            return
        first = self.outcomes.setdefault(number, outcome)
        assert first == outcome, f"I1: request {number} had two outcomes, {first} and {outcome}"
        self._pending.pop(number, None)

    # ── ends ──

    @property
    def quiet(self) -> bool:
        """Nothing is under way anywhere."""
        return not self._pending and all(
            machine.shard is not None and machine.shard.quiet for machine in self.machines
        )

    def run(self, steps: int, *, each: Callable[[], None] = lambda: None) -> None:
        """So many steps, with faults."""
        for _ in range(steps):
            each()
            self.step()

    def settle(self, *, steps_max: int = 20_000) -> None:
        """Faults are over: everything must drain. Raises AssertionError when it does not (I8)."""
        self.faults = NO_FAULTS
        still = 0
        for _ in range(steps_max):
            self.step()
            still = still + 1 if self.quiet else 0
            if still > 50:
                return
        raise AssertionError(
            f"I8: seed {self.seed}: not quiet after {steps_max} steps without faults; "
            f"{len(self._pending)} requests pending"
        )

    def state(self, type_name: str, key: str) -> Any:
        """The newest state of an entity, wherever it lives; None when it has none."""
        owner = self.machines[self.placement.slots[slot_of(type_name, key)]]
        data = owner.disk.state(type_name, key)
        if data is None:
            return None
        return self.app.types[type_name].decode(data, key, lambda _: None)
