"""The loop around one shard, written once: a worker's process and the simulator both run it.

    durable, written -> effects -> sources -> batch -> append -> effects -> inquiries

Everything happens once per round, never per message. The disk works on its own while the next
batch runs; what a batch has to tell others leaves when its commit is durable.

All that a shard stands on comes as a port: real ones in a process, simulated ones in the
simulator, where a shard can die at any call of a port. Reads no clock, does no I/O, starts no thread.
Ideas: docs/ideas/log.md, docs/ideas/speed.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from skerry.app import App
from skerry.runtime.core.demand import Budget, Load
from skerry.runtime.core.events import (
    Adopt,
    Arrived,
    Confirmed,
    Cut,
    Durable,
    Keep,
    Reply,
    Requested,
    Rewind,
    Stop,
    Told,
    Transmit,
    Write,
)
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.streams.speech import ACK_NS
from skerry.runtime.core.tables.positions import partition_slot
from skerry.runtime.gateway.inquiries import Inquiries
from skerry.runtime.gateway.protocol import Caller, Control
from skerry.runtime.ports import Committed
from skerry.runtime.worker.meter import Meter
from skerry.runtime.worker.pace import Pace
from skerry.runtime.worker.ports import Ports
from skerry.runtime.worker.takeover import ticked

TICK_NS = 100_000_000
"""The longest sleep while a peer owes an answer: it is asked again after that."""

IDLE_NS = 1_000_000_000
"""The longest sleep of all, after which the shard notices a clock that was set, and its heartbeat
shows that it lives."""

BACKLOG_BYTES = 32 << 20
"""Bytes sealed and not yet durable. Above this, no batch runs until the disk has caught up (I7)."""

BACKLOG_RECORDS = 64
"""Records sealed and not yet durable: a few fsyncs' worth. Above this, no batch runs, either."""

FAILED_NS = 10 * 10**9
"""How long a shard that always has something to run goes on after one of its sources failed."""

INSIDE_SHARE = 4
"""The part of a batch that sources may fill while messages wait on the shard's own stream."""

FULL = (
    "The store has used most of its quota, so nothing new is taken in; queries and what is under way "
    "go on. Make room by `skerry dead drop`, or start again with a larger --quota: then entities can "
    "be forgotten, too."
)


class Driver:
    """The rounds of one shard that has been opened."""

    def __init__(
        self,
        shard: Shard,
        app: App,
        rows: Committed,
        ports: Ports,
        vitals: Callable[[], dict[str, Any]] = dict,
        *,
        load_half_life_s: float,
    ) -> None:
        self._shard, self._app = shard, app
        self._vitals = vitals
        """The part of the status that only the process knows."""
        self._store, self._packets, self._listener = ports.commits, ports.packets, ports.listener
        self._sources, self._sinks, self._copies = ports.sources, ports.sinks, ports.copies
        self._clock, self._heartbeat, self._stopwatch = (
            ports.clock,
            ports.heartbeat,
            ports.stopwatch,
        )
        limits = shard.limits
        self._pace = Pace(limits.turns_per_batch_max)
        self._meter = Meter(load_half_life_s, self._clock, self._stopwatch)
        self._inquiries = Inquiries(shard, rows, ports.listener, self)
        self._hurry = False
        """Whether the newest batch was for clients first."""
        self._stopping = False
        self._failed_ns: int | None = None
        self._started_ns = self._clock.steady_ns()
        self._partitions = [
            (pipeline.name, pipeline.source, partition)
            for pipeline in app.pipelines
            for partition in pipeline.source.partitions()
        ]
        """All partitions of all sources, whoever reads them."""
        self._reading: set[tuple[str, str]] = set()
        """The partitions that this shard reads."""
        self._placed: list[tuple[Caller, int, int]] = []
        """Who waits for a version of the placement: (caller, number of the call, version)."""
        self._turns = self._commits = 0

    # ── what comes ──

    def tick(self) -> None:
        """Tell the shard the time."""
        self._shard.accept(ticked(self._clock))

    def arrived(self, raw: bytes) -> None:
        """Take a packet from a pipe."""
        self._shard.accept(Arrived(raw))

    def called(self, event: Requested | Confirmed | Control) -> None:
        """Take what a caller says."""
        if isinstance(event, Control):
            self._inquiries.serve(event)
        elif not (self._stopping and isinstance(event, Requested)):
            # While stopping, a request gets no answer: its caller tries again, and meets our successor.
            self._shard.accept(event)

    # ── a round ──

    @property
    def over(self) -> bool:
        """Whether the driver was told to stop, and everything is durable."""
        return self._stopping and self._shard.durable == self._shard.no

    def round(self) -> bool:
        """Run one batch and everything around it. Tell whether there is more to do at once."""
        self._heartbeat.round(self._shard.no, slow=self._shard.slow)
        durable = self._store.durable()
        if durable > self._shard.durable:
            self._shard.accept(Durable(durable))
        for written in self._sinks.finished():
            self._shard.accept(written)
        # Before the next batch: those who waited for what is durable now need not wait for it, too,
        # and rows are kept for a backup before a batch runs frames from behind its marker.
        self._perform()
        behind = self._behind
        if not behind:
            self._read()
            # What waits is on the disk, and may never end: a stop does not wait for it.
            if self._shard.runnable and not self._stopping:
                self._batch()
        self._perform()
        if self._sources.failure is not None:
            self._fail(self._sources.failure)
        self._inquiries.step()
        self._answer_copies()
        self._answer_placed()
        if behind:
            return False
        demand = self._shard.demand()
        reading = self._sources.inline and not demand.backpressured and not self._stopping
        return demand.runnable or reading or self._inquiries.busy

    def patience_ns(self) -> int:
        """Return how long the loop may sleep, unless something comes."""
        # A peer that hears late that its frames are durable keeps them, and so is not quiet.
        demand = self._shard.demand()
        longest = ACK_NS if demand.owes_acks else TICK_NS if demand.restless else IDLE_NS
        if demand.wake_ns is None:
            return longest
        return max(0, min(longest, demand.wake_ns - self._clock.now_ns()))

    def _read(self) -> None:
        """Let sources add to the next batch."""
        if self._stopping or self._sources.finished:
            return
        demand = self._shard.demand()
        # A batch for clients who wait takes nothing from sources; but only every other batch, so
        # that sources are read as well.
        self._hurry = not self._hurry and demand.asking
        if self._hurry or demand.backpressured or self._store.nearly_full:
            return
        # Messages that wait already run first; sources that add as much as runs would keep them waiting.
        share = INSIDE_SHARE if demand.inside else 1
        for items in self._sources.next(self._pace.items // share):
            self._shard.accept(items)

    def _batch(self) -> None:
        """Run a batch; the bounds of the next follow the time that it took."""
        self._heartbeat.work()
        sample = self._meter.begin()
        self._stopwatch.start()
        full = FULL if self._store.nearly_full else ""
        batch = self._shard.run(Budget(self._pace.turns, full, sample))
        self._heartbeat.running(None)
        if batch is None:
            return
        clock_s, own_s = self._stopwatch.clock_s, self._stopwatch.own_s
        self._meter.took(clock_s, own_s, batch.commit, sample, self._shard.served)
        self._pace.took(
            clock_s,
            own_s,
            turns=batch.turns,
            items=batch.items,
            asked=batch.requests,
            crowded=batch.crowded,
        )
        self._turns += batch.turns
        if batch.commit is not None:
            self._store.append(batch.commit)
            self._commits += 1

    def _perform(self) -> None:
        """Carry out the shard's effects, in their order."""
        replies: list[Reply] = []
        for effect in self._shard.take_effects():
            match effect:
                case Transmit(peer, raw):
                    self._packets.send(peer, raw)
                case Reply():
                    replies.append(effect)
                case Told((caller, n), _, outcome):
                    self._listener.answer(caller, n, [outcome.kind, outcome.body])
                case Adopt(slots, positions):
                    self._adopt(slots, positions)
                case Rewind(source, partition, after):
                    if (source, partition) in self._reading:
                        self._sources.rewind(source, partition, after)
                case Write():
                    self._sinks.write(effect)
                case Keep(no):
                    self._store.keep(no)
                case Stop(error):
                    raise error
        if replies:
            self._listener.replies(replies)

    def _adopt(self, slots: frozenset[int], positions: dict[tuple[str, str], Any]) -> None:
        """Read the partitions that live in these slots, and no others."""
        for name, source, partition in self._partitions:
            where = name, partition
            ours = partition_slot(name, partition) in slots
            if ours and where not in self._reading:
                self._reading.add(where)
                self._sources.open(name, source, partition, positions.get(where))
            elif not ours and where in self._reading:
                self._reading.discard(where)
                self._sources.close(name, partition)

    def _fail(self, failure: Exception) -> None:
        """Raise what a source raised, once all items that it gave before are durable."""
        now_ns = self._clock.steady_ns()
        self._failed_ns = self._failed_ns or now_ns
        shard, demand = self._shard, self._shard.demand()
        counted = not demand.runnable and not demand.unacked and shard.durable == shard.no
        if counted or now_ns > self._failed_ns + FAILED_NS:
            raise failure

    @property
    def _behind(self) -> bool:
        records, size = self._store.backlog
        return records >= BACKLOG_RECORDS or size >= BACKLOG_BYTES

    # ── what inquiries need (`inquiries.Host`) ──

    def greeting(self) -> dict[str, Any]:
        """Say which worker this is."""
        types = self._app.types.items()
        return {
            "incarnation": self._shard.incarnation,
            "shard": self._shard.me,
            "epoch": self._shard.epoch,
            "placement": self._shard.placement,
            "now_ns": self._clock.now_ns(),
            "app": self._app.name,
            "types": {
                name: [handler.name for handler in kind.handlers.values() if not handler.private]
                for name, kind in types
            },
            "kept": sorted(self._shard.kept_types),
        }

    def status(self) -> dict[str, Any]:
        """Say how the shard is doing."""
        records, size = self._store.backlog
        load = self._meter.look(self._shard.served)
        return {
            **self._shard.stats(),
            **self._vitals(),
            "shard": self._shard.me,
            "types": sorted(self._shard.kept_types | set(self._app.types)),
            "turns": self._turns,
            "items": self._sources.items,
            "skipped": self._sources.skipped,
            "commits": self._commits,
            "backpressured": self._shard.demand().backpressured or self._store.nearly_full,
            "backlog_records": records,
            "backlog_bytes": size,
            "busy": round(load.busy, 3),
            "hot": [[type, key, round(busy, 3)] for type, key, busy in load.hot],
            "uptime_s": round((self._clock.steady_ns() - self._started_ns) / 1e9, 3),
        }

    def steer(self, word: str) -> dict[str, Any]:
        """Do as the supervisor says, and say whether all is quiet."""
        load: Load | None = None
        match word:
            case "quiet":
                pass
            case "weigh":
                load = self._meter.look(self._shard.served, self._store.used_bytes)
            case "stop":
                self._stopping = True
            case unknown:
                raise ValueError(f"a worker can't be told {unknown!r}")
        placement = self._shard.placement
        return {
            "quiet": self._shard.quiet and self._sources.finished and not self._behind,
            "finite": bool(self._app.pipelines),
            "epoch": self._shard.epoch,
            "commit": self._shard.no,
            "version": placement.version,
            "turns": self._turns,
            "items": self._sources.items,
            "commits": self._commits,
            "skipped": self._sources.skipped,
            "progress": self._sources.progress(),
            "dead": self._shard.stats()["dead_since_start"],
            "load": load,
        }

    def place(self, caller: Caller, n: int, placement: Placement) -> None:
        """Take the newest placement; the answer comes when the shard has come there."""
        self._shard.accept(placement)
        self._placed.append((caller, n, placement.version))

    def _answer_placed(self) -> None:
        if not self._placed:
            return
        standing = self._shard.standing()
        if not standing.settled:
            return
        for caller, n, version in self._placed:
            if standing.version == version:
                self._listener.answer(caller, n, standing)
        self._placed.clear()

    def backup(self, caller: Caller, n: int, no: int, folder: str) -> None:
        """Take a snapshot marker and have the rows copied; the answer comes when that is done."""
        self._copies.check_room()
        self.cut(no)
        self._copies.begin(caller, n, no, folder)

    def cut(self, no: int) -> None:
        """Take the snapshot marker of this number now."""
        self._shard.accept(Cut(no))
        self._perform()

    def _answer_copies(self) -> None:
        for caller, n, ended in self._copies.finished():
            if isinstance(ended, Exception):
                self._listener.error(caller, n, ended)
            else:
                commit, size = ended
                self._listener.answer(caller, n, [self._shard.epoch, commit, size])
