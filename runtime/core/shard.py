"""The life of a batch: events in, turns, one commit, effects out.

    accept(event)   a frame, a request, items, the clock, "durable up to n": noted or answered
    run(budget)     one batch of turns -> Batch with the commit to append; None: nothing waits
    take_effects()  what must happen outside, in order; replies and frames only once durable
    demand()        what its driver should do now: run, wake it at a time, read sources or not
    stats()         numbers for people

A batch takes what waits, runs it, and is sealed: encoded states, frames with their numbers,
positions, timers and outcomes, in one record. What it wants to say to the outside is held
until the record is durable (I3), and acks cover durable effects only (I4).

This is all that the outside uses of the core: nobody reaches through a shard into its parts.
No I/O, no clock, no thread: the same code runs in a worker and in the simulator.
Ideas: docs/ideas/entities.md, docs/ideas/streams.md, docs/ideas/log.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from skerry.errors import SkerryError
from skerry.runtime.core.clients import NOTHING
from skerry.runtime.core.clock import Clocks
from skerry.runtime.core.commit import Chain, check_type_ids, slot_in
from skerry.runtime.core.demand import ALL, Batch, Budget, Demand, Standing
from skerry.runtime.core.dispatch import Dispatch
from skerry.runtime.core.events import (
    Adopt,
    Arrived,
    Commit,
    CommitNo,
    Confirmed,
    Cut,
    Durable,
    Effect,
    Event,
    Identity,
    Items,
    Keep,
    Operated,
    Outcome,
    Reply,
    Requested,
    Row,
    Stop,
    Table,
    Ticked,
    Told,
    Written,
)
from skerry.runtime.core.executor import Mode
from skerry.runtime.core.gate import Gate
from skerry.runtime.core.observer import Observer
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.progress import stored
from skerry.runtime.core.results import Raised
from skerry.runtime.core.schedule import Schedule, Work
from skerry.runtime.core.schemas import Schemas
from skerry.runtime.core.sealing import Sealing
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.streams.links import Streams
from skerry.runtime.core.tables.asks import Asks
from skerry.runtime.core.tables.names import Names
from skerry.runtime.core.tables.outputs import Outputs
from skerry.runtime.core.tables.positions import Positions
from skerry.runtime.core.tables.requests import Requests
from skerry.runtime.core.tables.retention import LOOK_NS
from skerry.runtime.core.tables.table import SlotTable
from skerry.runtime.core.tables.timers import Timers
from skerry.runtime.ports import Committed, Last

CROWDED = Outcome("busy", msgspec.msgpack.encode(["Unavailable", "Too many dead letters at once."]))
"""What is said to an operator whose words are not taken."""


class Shard:
    """One shard.

    Args:
        store: answers reads with the newest sealed rows.
        last: the store's newest commit.
        watch: told in quarantine which message runs next, before it does.
        observer: told what is sent and what runs, for checks; production has none.
    """

    def __init__(
        self,
        settings: Settings,
        store: Committed,
        last: Last,
        watch: Callable[[Identity], None] = lambda _: None,
        observer: Observer | None = None,
    ) -> None:
        self.settings, self.limits = settings, settings.limits
        self.me, self.incarnation = settings.me, settings.incarnation
        self.epoch = last.epoch + 1
        self._opened, self.now_ns = last.no, last.time_ns
        self.stopped = False
        self._chain = Chain(self.epoch, last.no, last.checksum)
        self._store, self._observer = store, observer
        self._effects: list[Effect] = []
        self._looked_ns = 0
        self._looks = last.time_ns // LOOK_NS
        """Counts slots that were looked through, from where the life before this one about was."""
        self._batches = 0
        """Batches of this epoch: one that leaves nothing behind has no commit of its own."""
        self._clocks = Clocks()
        progress = stored(store, settings.placement)
        self.ownership = progress.ownership(settings.me)
        self.schemas = Schemas(store)
        self.timers, self.asks, self.positions = Timers(), Asks(), Positions()
        self.requests = Requests(store, self.limits)
        self.names = Names(store)
        self.outputs = Outputs(settings.outlets, settings.life, store.read)
        self.streams = Streams(self.ownership, settings.incarnation, self.epoch, store.read)
        self._gate = Gate(last.no, self.streams)
        self.dispatch = Dispatch(
            settings,
            self.ownership,
            store,
            self.streams,
            timers=self.timers,
            asks=self.asks,
            requests=self.requests,
            names=self.names,
            outputs=self.outputs,
            positions=self.positions,
            schemas=self.schemas,
            progress=progress,
            watch=watch,
            observer=observer,
        )
        self.moves = self.dispatch.moves
        self.schedule = Schedule(
            self.limits,
            self.streams.arrivals,
            self.timers,
            self.moves,
            self.requests.knows,
            slow=settings.slow,
        )
        self.tables: tuple[SlotTable, ...] = (
            self.timers,
            self.asks,
            self.requests,
            self.names,
            self.positions,
            self.outputs,
            self.dispatch.dead,
        )
        self._sealing = Sealing(self.dispatch, self.streams, self.tables, self._chain, self._gate)

    @property
    def durable(self) -> int:
        """The number of the newest durable commit."""
        return self._gate.durable

    @property
    def no(self) -> int:
        """The number of the newest sealed commit."""
        return self._chain.no

    # ── opening ──

    def open(self) -> Commit:
        """Take over: everything that the rows say, under a new epoch.

        The commit must be durable, fully synced, before anything leaves: a killed process's
        last commit may be in the page cache only, and we build on it.
        """
        check_type_ids(self.settings.types)
        scan = self._store.scan
        served = self.ownership.served
        for table in self.tables:
            table.load(
                (id, key, value)
                for id in table.ids
                for key, value in scan(id)
                if slot_in(key) in served
            )
        self.streams.load(scan(Table.STREAM), scan(Table.OUTBOX))
        rows: list[Row] = [(Table.META, b"epoch", self.epoch.to_bytes(8, "big"))]
        rows.append(self.moves.row())
        rows += self.schemas.describe(self.settings.types)
        self.schemas.load(self.dispatch.handlers)
        return self._chain.seal(self.now_ns, [], rows)

    # ── events ──

    def accept(self, event: Event) -> None:
        """One event in. Turns wait for `run`."""
        match event:
            case Arrived(raw):
                caused = self.streams.arrived(raw)
                self._effects += caused
                self.stopped |= any(type(effect) is Stop for effect in caused)
            case Requested() if not self.schedule.has_room():
                self._effects += [
                    Reply(event.caller, "busy", run.numbers, NOTHING) for run in event.runs
                ]
            case Operated() if not self.schedule.has_room_to_operate():
                self._effects.append(Told(event.caller, event.number, CROWDED))
            case Requested() | Operated() | Items() | Confirmed() | Written():
                self.schedule.add(event)
            case Ticked(now_ns, steady_ns):
                self._tick(now_ns, steady_ns)
            case Placement():
                self.moves.offer(event)
            case Cut(no):
                self._effects += self.streams.cuts.take(no)
            case Durable(no):
                self._release(no)

    def _tick(self, now_ns: int, steady_ns: int) -> None:
        if leap := self._clocks.leap(now_ns, steady_ns):
            self._effects.append(Stop(SkerryError(leap)))
            self.stopped = True
            return
        self.now_ns = max(self.now_ns, now_ns)
        self.streams.cuts.now_ns = self.now_ns
        self._effects += self.streams.tick(steady_ns)
        if steady_ns - self._looked_ns > LOOK_NS:
            self._looked_ns = steady_ns
            self.schedule.expire = True

    def take_effects(self) -> list[Effect]:
        """What must happen outside, in this order."""
        effects, self._effects = self._effects, []
        return effects

    # ── a batch ──

    def run(self, budget: Budget = ALL) -> Batch | None:
        """Run one batch of what waits. None: nothing waited."""
        if self.stopped:
            return None
        kept = not any(type(effect) is Keep for effect in self._effects)
        assert kept, "I12: a batch would run from behind a cut whose rows are not kept yet"
        work = self.schedule.gather(self.now_ns, min(budget.turns, self.limits.turns_per_batch_max))
        if not work:
            return None
        self.dispatch.clients.full, self.dispatch.executor.ran = budget.full, budget.ran
        self._batches += 1
        try:
            commit = self._run(work, Mode.QUARANTINE if work.slow else Mode.OPTIMISTIC)
        except Raised as raised:
            self.dispatch.executor.distrust(raised.type)
            self._undo()
            commit = self._run(work, Mode.QUARANTINE if work.slow else Mode.ISOLATED)
        self._looks += work.expire
        if self._observer is not None:
            self._observer.sealed(None if commit is None else commit.no)
        turns = self.dispatch.executor.turn.count
        return Batch(commit, turns, work.items, work.requests, self.schedule.crowded)

    def _run(self, work: Work, mode: Mode) -> Commit | None:
        no = CommitNo(self.no + 1)
        seed = self.settings.incarnation, self.me, self.epoch, self._batches
        self.now_ns = max(self.now_ns, self.moves.time_ns)
        dispatch = self.dispatch
        dispatch.begin(mode, self.now_ns, seed, self.epoch, no)
        if work.step:
            self.moves.step(self.tables, self.now_ns)
        dispatch.execute(work)
        if work.expire:
            self._expire()
        commit, effects = self._sealing.seal(work, self.now_ns)
        self._effects += effects
        return commit

    def _expire(self) -> None:
        """Look through the next slot for outcomes that are too old."""
        slots = sorted(self.ownership.served)
        if slots:
            slot = slots[self._looks % len(slots)]
            self.requests.expire(slot, self.now_ns)
            self.names.expire(slot, self.now_ns)

    def _undo(self) -> None:
        self.dispatch.undo()
        for table in self.tables:
            table.undo()

    # ── durability ──

    def _release(self, no: int) -> None:
        assert no <= self.no, f"I3: commit {no} is durable, but {self.no} is the newest sealed"
        opening = self.durable == self._opened < no
        if opening:
            self._effects += self.streams.hello()
        if opening or self.durable < self.moves.changed_no <= no:
            served = self.ownership.served
            self._effects.append(Adopt(served, self.positions.of(sorted(served))))
        self._effects += self._gate.release(no)
        self._effects += self.outputs.offer(self.durable, self.ownership.leaving)

    # ── what others may know ──

    def demand(self) -> Demand:
        """What the driver should do now."""
        streams = self.streams
        return Demand(
            runnable=self.runnable,
            wake_ns=self.timers.next_ns,
            owes_acks=streams.owes,
            restless=streams.restless,
            unacked=streams.busy,
            inside=bool(streams.own.waiting),
            backpressured=streams.pressed or self.outputs.pressed,
            asking=self.schedule.asking,
        )

    def stats(self) -> dict[str, Any]:
        """Numbers for people: how the shard is doing."""
        return {
            "epoch": self.epoch,
            "commit": self.no,
            "durable": self.durable,
            "snapshot_marker": self.streams.cuts.newest,
            "refused": self.streams.refused,
            "moves": self.moves.stats(),
            **{name: number for table in self.tables for name, number in table.stats().items()},
        }

    @property
    def dead(self) -> int:
        """How many dead letters there are."""
        return len(self.dispatch.dead)

    @property
    def runnable(self) -> bool:
        """Whether `run` has something to do now."""
        return not self.stopped and self.schedule.waits(self.now_ns)

    @property
    def slow(self) -> bool:
        """Whether messages run one per commit, each with an identity that survives a kill."""
        return self.schedule.slow

    @property
    def served(self) -> frozenset[int]:
        """The slots whose turns run here."""
        return self.ownership.served

    @property
    def placement(self) -> Placement:
        """Who owns each slot, as this shard knows."""
        return self.ownership.placement

    @property
    def kept_types(self) -> set[str]:
        """Entity types that the store has states of, or had, in any release."""
        return self.schemas.types

    def check_cut(self, no: int) -> None:
        """Raise ValueError when no backup can have this number."""
        self.streams.cuts.check(no)

    @property
    def quiet(self) -> bool:
        """Whether nothing waits, is under way, or will be; sources are the driver's to judge."""
        return (
            not self.runnable
            and not self._effects
            and self.durable == self.no
            and not self.streams.busy
            and not len(self.timers)
            and not len(self.asks)
            and not self.outputs.unwritten
            and not self.moves.busy
        )

    def standing(self) -> Standing:
        """How far the shard is on the way to the placement that it should have."""
        return self.moves.standing(self.durable, self.streams.outboxes.unacked)
