"""n shards on a simulated network, disk and clock, driven by one seed.

The shards are the production core (`runtime/core`), unchanged; so are the clients' sessions,
what the supervisor decides, and what workers answer for themselves. What is simulated is what
they stand on: packets are lost, repeated, delayed and overtaken as wholes, pipes are cut and
lines break; commits become durable late, and a crash takes those that were not; a disk is slow,
full, or fails; any shard may be killed at any point of a step, alone or with all others, and
comes back from what its disk kept; it may hang and come back late; its clock may be set; the
supervisor may die, and all with it. The same seed gives the same run.

Faults stop when `settle` is called: then everything in flight must drain (I8), and the books
that are kept beside the core must agree (I1, I2). Who uses this checks the rest from the
outside: states, replies, dead letters.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from skerry.app import App
from skerry.message import Message
from skerry.runtime.app import placer
from skerry.runtime.app.reshard import deal
from skerry.runtime.core import wire
from skerry.runtime.core.demand import Budget
from skerry.runtime.core.events import (
    Arrived,
    Cut,
    Durable,
    Effect,
    Items,
    Keep,
    Outcome,
    Placement,
    Reply,
    Rewind,
    Stop,
    Table,
    Ticked,
    Told,
    Transmit,
    Write,
)
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.settings import Limits, Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.tables.dead_letters import DeadLetter
from skerry.runtime.core.wire import Kind
from skerry.runtime.gateway import protocol
from skerry.runtime.simulator.callers import SECONDS_PER_STEP, Caller, Name
from skerry.runtime.simulator.disk import MemoryStore
from skerry.runtime.simulator.keeper import Keeper
from skerry.runtime.simulator.ledger import Books, compare
from skerry.runtime.simulator.machine import Machine
from skerry.runtime.simulator.picture import Note, svg
from skerry.runtime.simulator.stranger import Stranger
from skerry.testing import NO_FAULTS, Faults

STEP_NS = 1_000_000
"""A step of the simulated clock."""

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


FULL = "the simulated disk is full"

HANG_S = 10.0
"""As the supervisor's: of its seconds."""


FOREVER = 1 << 62


class Died(BaseException):
    """Raised by a handler that takes its process with it."""


class Hung(BaseException):
    """Raised by a handler that does not return."""


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
        self.step_no = 0
        self.clock_ns = start_ns
        self.step_ns = STEP_NS
        self.placement = placement or placer.first(shards)
        self._limits, self._life = limits, life
        self._incarnation = self.rng.randbytes(16)
        self._stranger = Stranger(seed, self._incarnation)
        self._network: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.machines = [Machine(id, app, self._to_caller) for id in self.placement.members]
        self._at = {machine.id: machine for machine in self.machines}
        self._past: list[Books] = []
        """Of the shards before the last change of their number, oldest first."""
        self.crashes = self.lost = self.repeated = 0
        self.points: Counter[str] = Counter()
        """How often what went wrong, by name."""
        self.notes: list[Note] | None = None
        """What happened, once `record` was called."""
        self._cut_until: dict[tuple[int, int], int] = {}
        self._asked = 0
        self.outcomes: dict[int, Outcome] = {}
        """The outcome of each request, by its number."""
        self.emitted: dict[tuple[str, int], list[Any]] = {}
        """What came out of each output at each of its sinks, in the order in which it came."""
        self._out: dict[tuple[str, int, str], list[Any]] = {}
        """What came out at each sink's partitions, by number."""
        self.sinks: dict[tuple[str, int], Any] = {}
        self.astray: Callable[[], bool] = bool
        """Whether requests are said at a wrong door as well."""
        self.dies_opening: Callable[[], bool] = bool
        """Whether a shard is killed right after its opening, when nothing else has been written over
        what a torn write left."""
        self.scans: dict[int, list[str]] = {}
        """The keys that each scan found, in the order in which they came, by its number."""
        self.looks: dict[int, Any] = {}
        """The state that each look found, by its number."""
        self.asked_at: dict[int, int] = {}
        self.answered_at: dict[int, int] = {}
        """The steps in which a request was first said, and its outcome heard."""
        self.keeper = Keeper(self.placement.members, self._ask_if_quiet)
        for shard in slow:
            self.keeper.watches[shard].slow = True
        self.loss_accepted = False
        self._cut = 0
        self._cut_epochs: dict[int, int] = {}
        for machine, disk in zip(self.machines, disks):
            machine.disk = disk
        members = self.placement.members
        self.callers = [Caller(number, members, self) for number in range(callers)]
        for machine in self.machines:
            self._start(machine)

    # ── machines ──

    def _start(self, machine: Machine) -> None:
        settings = Settings.of(
            self.app,
            me=machine.id,
            incarnation=self._incarnation,
            placement=self.placement,
            life=self._life,
            limits=self._limits,
            slow=self.keeper.watches[machine.id].slow,
            poison=self.keeper.watches[machine.id].poison,
            verdict=self.keeper.watches[machine.id].verdict,
        )
        shard = Shard(settings, machine.disk, machine.disk.last, machine.watch)
        machine.books.follow(shard)
        shard.accept(self._clock(machine))
        opening = shard.open()
        machine.disk.append(opening)
        machine.disk.sync(opening.no)
        shard.accept(Durable(opening.no))
        machine.started(shard, self._incarnation, lambda: self._clock(machine).now_ns)
        self.keeper.watches[machine.id].started(self._now_s)
        if self.dies_opening():
            self.crash(machine.id)

    @property
    def _now_s(self) -> float:
        return self.step_no * SECONDS_PER_STEP

    def _note(self, shard: int, kind: str, text: str = "") -> None:
        if self.notes is not None:
            self.notes.append(Note(self.step_no, shard, kind, text))

    def _note_packet(self, src: int, peer: int, raw: bytes, when: int | None) -> None:
        if self.notes is not None:
            packet = wire.unpack(raw)
            text = f"{src} to {peer}, number {packet.seq}, {packet.count} messages"
            kind = Kind(packet.kind).name
            self.notes.append(Note(self.step_no, src, kind, text, peer, when))

    def _clock(self, machine: Machine) -> Ticked:
        return Ticked(self.clock_ns + machine.clock_off_ns, self.clock_ns)

    def crash(self, id: int, *, by_itself: bool = False) -> None:
        """Kill a shard: what its disk had not finished is gone, and so is all that it held."""
        machine = self._at[id]
        if machine.shard is None:
            return
        self.crashes += 1
        self._note(id, f"killed {machine.dies_at}".strip())
        again = self.keeper.ended(id, self.step_no, machine.beat, by_itself=by_itself)
        machine.shard = None
        kept = self.rng.randint(machine.disk.durable(), machine.disk.appended)
        met = machine.disk.met_leftovers
        machine.disk.crash(kept)
        self.points["leftovers behind a torn write"] += machine.disk.met_leftovers - met
        machine.books.crashed(kept)
        machine.down_until = max(again, self.step_no + self.rng.randrange(1, 50))
        machine.hangs_until, machine.dies_at = 0, ""
        for caller in self.callers:
            caller.broken(id)

    def crash_all(self) -> None:
        """The power fails."""
        for machine in self.machines:
            self.crash(machine.id)

    def put_back(self, id: int, disk: MemoryStore) -> None:
        """A shard's folder is replaced by an older copy of it, while its process is down."""
        self.crash(id)
        machine = self._at[id]
        machine.disk = disk
        machine.books.crashed(disk.appended)
        self.points["put back"] += 1

    def cut_off(self, id: int, steps: int) -> None:
        """No pipe to a shard or from it carries anything for so long."""
        for other in self.machines:
            for ends in ((id, other.id), (other.id, id)):
                self._cut_until[ends] = self.step_no + steps

    def accept_loss(self, shards: int) -> None:
        """With `--sync off` the power fails, and a person has the app go on with what is there.

        Each shard has lost what it has lost: no books can agree on it."""
        self.crash_all()
        for machine in self.machines:
            machine.disk.lose(self.rng.randint(0, machine.disk.appended))
        self._incarnation = self.rng.randbytes(16)
        self._life = "begun anew"
        self.reshard(shards)
        self._out = self._known_to_disks(self._out)
        self.loss_accepted = True

    def reshard(self, shards: int) -> None:
        """All end, killed or stopped, and the app goes on with another number of shards."""
        for machine in self.machines:
            if self.rng.random() < 0.5:
                machine.disk.close()
        self.crash_all()
        self.points["re-sharded"] += 1
        first = self.placement.next_id
        self.placement = placer.after(self.placement, range(first, first + shards))
        new = {id: MemoryStore() for id in self.placement.members}
        for disk in new.values():
            disk.prompt = True  # Who deals waits for disks, and no step passes meanwhile.
        deal({machine.id: machine.disk for machine in self.machines}, self.placement, new)
        self._past += [machine.books for machine in self.machines]
        self.machines = [Machine(id, self.app, self._to_caller) for id in new]
        self._at = {machine.id: machine for machine in self.machines}
        for machine in self.machines:
            machine.disk = new[machine.id]
            machine.disk.prompt = False
            machine.disk.crash()
            machine.down_until = self.step_no + self.rng.randrange(1, 50)
        self.keeper = Keeper(self.placement.members, self._ask_if_quiet)
        for caller in self.callers:
            caller.rerouted(self.placement.members)

    # ── time ──

    def step(self) -> None:
        """One step of the clock: packets arrive, shards run, disks sync, things go wrong."""
        self.step_no += 1
        self.clock_ns += self.step_ns
        self._misfortune()
        self._deliver()
        for caller in self.callers:
            caller.step()
        self.keeper.step(self.step_no)
        for machine in self.machines:
            if machine.shard is None:
                if self.step_no >= machine.down_until:
                    self._start(machine)
            elif self.step_no >= machine.hangs_until:
                self._run(machine)
                if machine.dies_at:
                    self.crash(machine.id)
            elif self.keeper.look(machine.id, self.step_no, machine.beat, HANG_S):
                self.crash(machine.id)

    def _misfortune(self) -> None:
        """What goes wrong in this step, beside packets and disks."""
        faults, chance = self.faults, self.rng.random
        hold = self.step_no + self.rng.randint(1, faults.hold_steps_max)
        if chance() < faults.blackout:
            if chance() < 0.5:
                self.points["supervisor killed"] += 1
                self.keeper.started()
            else:
                self.points["all at once"] += 1
            self.crash_all()
        if self._stranger.rng.random() < faults.stranger:
            self._meet_a_stranger()
        for caller in self.callers:
            if chance() < faults.cut:
                self.points["client's line broken"] += 1
                caller.broken(self.rng.choice(self.machines).id)
        for machine in self.machines:
            if chance() < faults.crash and machine.shard is not None:
                machine.dies_at = self.rng.choice(POINTS)
                self.points[machine.dies_at] += 1
            if chance() < faults.hang and machine.hangs_until != FOREVER:
                self.points["hung"] += 1
                self._note(machine.id, "hangs", f"until step {hold}")
                machine.hangs_until = hold
            if chance() < faults.clock:
                self.points["clock set"] += 1
                self._note(machine.id, "clock set")
                machine.clock_off_ns = self.rng.randint(-2 * 10**9, 2 * 10**9)
            if chance() < faults.disk_slow:
                self.points["disk slow"] += 1
                self._note(machine.id, "disk slow", f"until step {hold}")
                machine.slow_until = hold
            if chance() < faults.disk_full:
                self.points["disk full"] += 1
                self._note(machine.id, "disk full", f"until step {hold}")
                machine.full_until = hold
            if chance() < faults.disk_fails:
                # No worker goes on after that, and none is started until a person has looked.
                self.points["disk failed"] += 1
                self.crash_all()
            if chance() < faults.cut and len(self.machines) > 1:
                self.points["pipe cut"] += 1
                other = self.rng.choice(self.machines)
                self._cut_until[machine.id, other.id] = hold
                self._note(machine.id, "pipe cut", f"to {other.id} until step {hold}")

    def _meet_a_stranger(self) -> None:
        """A packet arrives that no shard of the app has sent."""
        machine = self._stranger.rng.choice(self.machines)
        if machine.shard is not None:
            what, raw = self._stranger.packet(machine.id)
            self.points[f"a stranger: {what}"] += 1
            machine.shard.accept(Arrived(raw))

    def _run(self, machine: Machine) -> None:
        """A shard's step, as the worker's loop does it, up to the point where it is killed."""
        shard, dies_at = machine.shard, machine.dies_at
        assert shard is not None, "only what is up runs"
        machine.beats()
        shard.accept(self._clock(machine))
        full = machine.full_until > self.step_no
        # Rows are kept for a backup before a batch runs frames from behind its cut.
        self._perform(machine, shard.take_effects())
        if not full and not shard.demand().backpressured:
            self._read_sources(machine, shard)
        if dies_at == "before its batch":
            return
        if shard.runnable and shard.no - shard.durable < 8:
            try:
                batch = shard.run(Budget(full=FULL if full else ""))
            except Died:
                self.points["handler kills its process"] += 1
                self.crash(machine.id, by_itself=True)
                return
            except Hung:
                self.points["handler hangs"] += 1
                machine.hangs_until = FOREVER
                return
            commit = None if batch is None else batch.commit
            machine.books.sealed(None if commit is None else commit.no)
            if dies_at == "batch run, not appended":
                return
            if commit is not None:
                machine.disk.append(commit)
                self._note(machine.id, "commit", str(commit.no))
        if dies_at == "appended, not synced":
            return
        if self.rng.random() < self._sync(machine) and shard.no > shard.durable:
            upto = self.rng.randint(shard.durable + 1, shard.no)
            machine.disk.sync(upto)
            self._note(machine.id, "durable", f"up to {upto}")
            if dies_at == "synced, not told":
                return
            shard.accept(Durable(upto))
        machine.inquiries.step()
        effects = shard.take_effects()
        if dies_at:
            effects = effects[: len(effects) // 2] if dies_at == "half of it sent" else []
        self._perform(machine, effects)

    def _sync(self, machine: Machine) -> float:
        return self.faults.sync / 20 if machine.slow_until > self.step_no else self.faults.sync

    def _perform(self, machine: Machine, effects: list[Effect]) -> None:
        replies: list[Reply] = []
        for effect in effects:
            match effect:
                case Transmit(peer, raw):
                    self._send(machine.id, peer, raw)
                case Reply():
                    replies.append(effect)
                case Told((caller, n), _, outcome):
                    machine.answer(caller, n, [outcome.kind, outcome.body])
                case Rewind(source, partition, after):
                    machine.readers[source, partition].start_at(after)
                case Write():
                    self._write(machine, effect)
                case Keep(no):
                    machine.disk.keep(no)
                case Stop(error):
                    raise error
        machine.replies(replies)

    def _write(self, machine: Machine, write: Write) -> None:
        """A sink has it at once; that it has, its shard hears late, or never when it is killed."""
        shard, items = machine.shard, [msgspec.msgpack.decode(item) for item in write.items]
        self._came_out(write, items)
        sink = self.sinks.get((write.output, write.sink))
        if sink is not None:
            of = self.app.outlets[write.output].type_at(write.sink)
            typed = [msgspec.msgpack.decode(item, type=of) for item in write.items]
            sink.write(write.partition, write.sequence, typed)

        def hear() -> None:
            if machine.shard is shard and shard is not None:
                shard.accept(write.written)

        self._later(hear)

    def came_out(self, output: str, sink: int) -> list[Any]:
        """Everything that came out at a sink, partition by partition, in the order of its number."""
        ends = sorted(where for where in self._out if where[:2] == (output, sink))
        return [item for where in ends for item in self._out[where]]

    def _came_out(self, write: Write, items: list[Any]) -> None:
        """Numbers leave no gap, and the same number is the same item, however often it comes."""
        where = write.output, write.sink, write.partition
        out = self._out.setdefault(where, [])
        assert write.sequence <= len(out) + 1, f"I1: {where}: {write.sequence} after {len(out)}"
        known = out[write.sequence - 1 : write.sequence - 1 + len(items)]
        assert known == items[: len(known)], f"I1: {where}: another item {write.sequence}"
        if len(known):
            self.points["items handed to a sink again"] += len(known)
        out += items[len(known) :]
        self.emitted.setdefault(where[:2], []).extend(items[len(known) :])

    def _read_sources(self, machine: Machine, shard: Shard) -> None:
        for (source, partition), reader in machine.readers.items():
            after, (positions, items) = reader.position, reader.next(self.rng.randrange(1, 6))
            if items:
                read = Items(source, partition, after, positions, items)
                shard.accept(read)
                if self.rng.random() < self.faults.repeat:
                    # A reader that was ahead, and reads again from where it thinks it stands.
                    shard.accept(read)

    # ── the network ──

    def _send(self, src: int, peer: int, raw: bytes) -> None:
        if self.faults.stranger:
            self._stranger.overhears(raw)
        cut = self._cut_until.get((src, peer), 0) > self.step_no
        if cut or self.rng.random() < self.faults.lose:
            self.lost += 1
            self.points[f"lost: {Kind(raw[3]).name}"] += 1
            self._note_packet(src, peer, raw, None)
            return
        copies = 1
        if self.rng.random() < self.faults.repeat:
            self.repeated += 1
            self.points[f"repeated: {Kind(raw[3]).name}"] += 1
            copies = 2
        for _ in range(copies):
            when = self._later(lambda: self._arrive(peer, raw))
            self._note_packet(src, peer, raw, when)

    def _later(self, deliver: Callable[[], None], steps_max: int = 0) -> int:
        """Do this when it has travelled; the step in which that is."""
        self._order += 1
        when = self.step_no + self.rng.randint(1, steps_max or self.faults.delay_steps_max)
        heapq.heappush(self._network, (when, self._order, deliver))
        return when

    def _deliver(self) -> None:
        while self._network and self._network[0][0] <= self.step_no:
            heapq.heappop(self._network)[2]()

    def _arrive(self, shard: int, raw: bytes) -> None:
        """A packet from a peer."""
        machine = self._at.get(shard)
        if machine is None or machine.shard is None:
            return
        if self._waits_for(machine, lambda: self._arrive(shard, raw)):
            return
        machine.shard.accept(Arrived(raw))

    def _waits_for(self, machine: Machine, deliver: Callable[[], None]) -> bool:
        """While a machine hangs its sockets take what comes, for when it goes on."""
        if self.step_no >= machine.hangs_until:
            return False
        self._order += 1
        when = min(machine.hangs_until, self.step_no + self.faults.hold_steps_max)
        heapq.heappush(self._network, (when, self._order, deliver))
        return True

    # ── clients ──

    def reachable(self, shard: int) -> bool:
        """See `callers.Ground`."""
        return self._at[shard].shard is not None

    def to_door(self, name: Name, raw: bytes) -> None:
        """See `callers.Ground`. What was on a line that broke may still lie in the door's socket."""
        lost = self.rng.random() < self.faults.lose
        if lost:
            self.callers[name[0]].broken(name[1])
        if not lost or self.rng.random() < 0.5:
            steps = self.faults.hold_steps_max if lost else 0
            self._later(lambda: self._knock(name, raw), steps)
        if self.astray() and isinstance(protocol.decode_call(raw), protocol.Asks):
            self.points["said at a wrong door"] += 1
            wrong = self.callers[name[0]].line(self.rng.choice(self.placement.members))
            self._later(lambda: self._knock(wrong, raw))

    def _knock(self, name: Any, raw: bytes) -> None:
        machine = self._at.get(name[1])
        if machine is None or machine.shard is None:
            return
        if self._waits_for(machine, lambda: self._knock(name, raw)):
            return
        machine.hear(name, raw)

    def retry_all(self) -> None:
        """An operator has every dead letter sent anew, and does not wait for an answer."""
        for machine in self.machines:
            for id, _ in machine.disk.scan(Table.DEAD):
                raw = protocol.encode(protocol.Dead(1, "retry", id))
                self._later(partial(self._knock, ("operator", machine.id, 0), raw))

    def operate(self, shard: int, action: str, id: bytes) -> Any:
        """An operator's word on a dead letter; what the shard answers."""
        self._operated: Any = None
        self._knock(("operator", shard, 0), protocol.encode(protocol.Dead(1, action, id)))
        while self._operated is None:
            self.step()
        return self._operated

    def _to_caller(self, name: Any, raw: bytes) -> None:
        if name[0] == "operator":
            self._operated = msgspec.msgpack.decode(raw)[2]
            return
        if name[0] == "supervisor":
            _, shard, round = name
            answer = msgspec.msgpack.decode(raw)[2]
            self._later(lambda: self.keeper.answered(shard, round, answer))
            return
        caller = self.callers[name[0]]
        if self.rng.random() < self.faults.lose:
            caller.broken(name[1])
        else:
            self._later(lambda: caller.heard(name, raw))

    def _ask_if_quiet(self, shard: int, round: int) -> None:
        raw = protocol.encode(protocol.Steer(round, "quiet"))
        self._later(lambda: self._knock(("supervisor", shard, round), raw))

    def ask(
        self, message: Message[Any], *, reply: bool = True, caller: int = 0, named: bytes = b""
    ) -> int:
        """A client's request; its number. The outcome comes into `outcomes` in the end."""
        self._asked += 1
        self.asked_at[self._asked] = self.step_no
        self.callers[caller].ask(self._asked, message, reply=reply, named=named)
        return self._asked

    def look(self, type_name: str, key: str, *, caller: int = 0) -> int:
        """A client's `get`; its number. What it found comes into `looks` in the end."""
        self._asked += 1
        self.asked_at[self._asked] = self.step_no
        self.callers[caller].look(self._asked, type_name, key)
        return self._asked

    def scan(self, type_name: str, *, limit: int, caller: int = 0) -> int:
        """A client looks at all states of a type, so many at a time; the scan's number. The keys
        come into `scans` in the end."""
        self._asked += 1
        self.asked_at[self._asked] = self.step_no
        self.callers[caller].scan(self._asked, type_name, limit)
        return self._asked

    def scanned(self, id: int, keys: list[str]) -> None:
        """See `callers.Ground`."""
        self.scans[id] = keys
        self.answered_at[id] = self.step_no

    def answered(self, id: int, outcome: Outcome) -> None:
        """See `callers.Ground`."""
        assert id not in self.outcomes, f"I1: request {id} had two outcomes"
        self.outcomes[id] = outcome
        self.answered_at[id] = self.step_no

    def looked(self, id: int, state: bytes | None) -> None:
        """See `callers.Ground`."""
        self.looks[id] = state
        self.answered_at[id] = self.step_no

    # ── backups ──

    def begin_cut(self) -> None:
        """A backup begins: every shard is told, each when it hears of it."""
        self._cut = self.clock_ns
        self._cut_epochs = {m.id: m.shard.epoch for m in self.machines if m.shard is not None}
        for machine in self.machines:
            machine.disk.ahead = self.rng.randint
            self._later(partial(self._tell_to_cut, machine), 5 * self.faults.delay_steps_max)

    def _tell_to_cut(self, machine: Machine) -> None:
        if machine.shard is not None:
            machine.shard.accept(Cut(self._cut))

    def cut_is_whole(self) -> bool:
        """Whether all have taken the cut, and none was started anew since it began."""
        return bool(self._cut_epochs) and all(
            machine.shard is not None
            and machine.disk.kept[0] == self._cut
            and self._cut_epochs.get(machine.id) == machine.shard.epoch
            for machine in self.machines
        )

    def restored(self) -> Cluster:
        """Another cluster that goes on from what the cut holds, under a new incarnation."""
        other = Cluster(
            self.app,
            seed=self.seed + 1,
            placement=self.placement,
            faults=self.faults,
            limits=self._limits,
            start_ns=self.clock_ns,
            disks=[machine.disk.restored() for machine in self.machines],
            life="restored",
        )
        other._out = other._known_to_disks(self._out)
        for machine, ours in zip(other.machines, self.machines):
            machine.books.go_on(ours.books, len(ours.disk.kept[1]))
        other._past = list(self._past)
        return other

    def _known_to_disks(self, out: dict[tuple[str, int, str], list[Any]]) -> Any:
        """Of what came out as much as the disks know of: the rest belongs to the life before."""
        known = {}
        for machine in self.machines:
            for _, row in machine.disk.scan(Table.OUTPUT_NUMBER):
                output, sink, partition, number = msgspec.msgpack.decode(row)
                where = output, sink, partition
                known[where] = out.get(where, [])[:number]
        return known

    # ── ends ──

    @property
    def quiet(self) -> bool:
        """Nothing is under way anywhere, and nothing will be."""
        shards = [machine.shard for machine in self.machines]
        return self.still and all(shard is not None and shard.quiet for shard in shards)

    @property
    def still(self) -> bool:
        """Nothing is left to do at this time; timers may be due later."""
        return not any(caller.waits for caller in self.callers) and all(
            machine.shard is not None
            and not machine.shard.runnable
            and machine.shard.durable == machine.shard.no
            and not machine.shard.demand().unacked
            and machine.finished
            for machine in self.machines
        )

    @property
    def next_due_ns(self) -> int | None:
        """When the next timer is due, on any shard."""
        dues = [m.shard.demand().wake_ns for m in self.machines if m.shard is not None]
        return min((due for due in dues if due is not None), default=None)

    def run(self, steps: int) -> None:
        """So many steps, with faults."""
        for _ in range(steps):
            self.step()

    def settle(self, *, steps_max: int = 20_000) -> None:
        """Faults are over: everything must drain, and the books agree. Raises AssertionError."""
        self.faults = NO_FAULTS
        self._cut_until.clear()
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
                books = [*self._past, *(machine.books for machine in self.machines)]
                wrong = [] if self.loss_accepted else compare(books)
                assert not wrong, f"seed {self.seed}: " + "; ".join(wrong[:5])
                return
        raise AssertionError(
            f"I8: seed {self.seed}: not quiet after {steps_max} steps without faults; "
            f"{sum(caller.waits for caller in self.callers)} clients wait"
        )

    def record(self) -> None:
        """Note from now on what happens, for `picture`."""
        self.notes = []

    def picture(self, title: str) -> str:
        """What was noted, as an SVG document."""
        notes = self.notes or []
        # Packets may go on for ever; what decides has happened before.
        last = 30 + max((note.step for note in notes if note.peer is None), default=0)
        return svg(notes, self.placement.next_id, title=title, last=last)

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
        data = self._at[self.owner(type_name, key)].disk.state(type_name, key)
        if data is None:
            return None
        return self.app.types[type_name].decode(data, key, lambda _: None)
