"""Ten to a thousand shards in one process: what each of them costs the others.

    python -m benchmarks.many_shards [--shards 10 30 100 300 1000] [--json FILE]

The shards are the production core; network and disk are lists. So nothing here is a time that
users see, and nothing depends on how many processes share a core. What is asked is what grows
with the number of shards: packets, bytes and rows per thousand turns are exact, and the core's
processor time per turn shows what they cost.

Two loads: in `all` each shard's source sends to keys everywhere, in `few` to keys of four
shards. A round is one batch of each shard. Then the sources end, all drains, and what an idle
cluster still does in a second is counted.
"""

from __future__ import annotations

import gc
import random
import sys
import time
from collections import Counter as Tally
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks import command_line
from benchmarks.figures import number
from skerry import App, Entity, Generate
from skerry.runtime.core.events import (
    Adopt,
    Arrived,
    Commit,
    Durable,
    Effect,
    Items,
    Placement,
    Ticked,
    Transmit,
)
from skerry.runtime.core.ownership import balanced, slots_of
from skerry.runtime.core.settings import Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.tables.positions import partition_slot
from skerry.runtime.core.wire import Kind
from skerry.runtime.simulator.disk import MemoryStore

SHARDS = (10, 30, 100, 300, 1000)
KEYS = 10_000
ITEMS = 4096
"""Items that each shard takes from its source in a round: what a busy worker takes in a batch."""

FEW = 4
"""Other shards that each one talks to in the load `few`."""

OPENING_ROUNDS, GREETING_ROUNDS = 3, 5
"""Rounds without items before the first one and after it: all who talk to each other shake hands."""

WARM_UP_ROUNDS, ROUNDS = 5, 6
"""Those that are counted are whole cycles of acks that found no company: one in three rounds."""

ROUND_NS = 10_000_000
"""How far the clock goes in a round: about what a full batch takes."""

IDLE_ROUNDS, IDLE_ROUND_NS = 20, 100_000_000
"""An idle worker looks around ten times a second."""

SETTLED_ROUNDS_MAX = 1000


class Counter(Entity):
    count: int = 0

    def add(self, amount: int) -> None:
        self.count += amount


app = App("many", entities=[Counter])
app.source(Generate(lambda partition, position: "", partitions=1), name="keys").key_by(
    lambda key: key
).map(lambda key: 1).to(Counter.add)


class Used(Struct):
    """What was counted over some rounds of all shards."""

    turns: int = 0
    commits: int = 0
    rows: int = 0
    record_bytes: int = 0
    packet_bytes: int = 0
    cpu_ns: int = 0
    """Of the cores of all shards, and nothing around them."""
    packets: Tally[str] = msgspec.field(default_factory=Tally)


class Row(Struct):
    """What is told of one load on so many shards."""

    load: str
    shards: int
    streams: int
    """Ordered pairs of shards that know of each other."""
    turns_per_commit: float
    packets_per_k: dict[str, float]
    """Per thousand turns, by kind."""
    packet_bytes_per_turn: float
    record_bytes_per_turn: float
    rows_per_k: float
    """Rows of commits per thousand turns, but for states."""
    cpu_us_per_turn: float
    idle_packets_per_s: float
    """Of one shard, when all is quiet."""
    idle_cpu_us_per_s: float
    opening_packets: float
    """Per shard, before the first batch has run."""


class Disk(MemoryStore):
    """Keeps the newest rows and no records: nothing crashes here."""

    def append(self, commit: Commit) -> None:
        """Visible now; it is told to be durable in the next round."""
        self._apply(commit)  # type: ignore[arg-type]


class Cluster:
    """The shards and the packets on their way."""

    def __init__(self, load: str, shards: int) -> None:
        self.load, self.placement = load, balanced(list(range(shards)), version=1, next_id=shards)
        self.disks = [Disk() for _ in range(shards)]
        self.shards = [self._shard(me, disk) for me, disk in enumerate(self.disks)]
        self._inboxes: list[list[bytes]] = [[] for _ in range(shards)]
        self._durable = [0] * shards
        self._clock_ns = 10**18
        self._sources = [
            drawn_keys(load, self.placement, me, ITEMS * (WARM_UP_ROUNDS + ROUNDS))
            for me in range(shards)
        ]
        slots = self.placement.slots
        self._partitions = [
            next(str(n) for n in count() if slots[partition_slot("keys", str(n))] == me)
            for me in range(shards)
        ]
        """For each shard a partition that lives there."""
        self._read = 0
        self.used = Used()
        self._tick(ROUND_NS)
        for me, shard in enumerate(self.shards):
            shard.accept(Ticked(self._clock_ns, self._clock_ns))
            opening = shard.open()
            self.disks[me].append(opening)
            self._durable[me] = opening.no

    def _shard(self, me: int, disk: Disk) -> Shard:
        settings = Settings(
            me=me,
            incarnation=bytes(16),
            placement=self.placement,
            types=app.types,
            pipelines={pipeline.name: pipeline for pipeline in app.pipelines},
        )
        return Shard(settings, disk, disk.last)

    def _tick(self, passed_ns: int) -> None:
        self._clock_ns += passed_ns

    def round(self, *, reading: bool = True, passed_ns: int = ROUND_NS) -> None:
        """A batch of each shard; packets arrive in the next round."""
        self._tick(passed_ns)
        inboxes, self._inboxes = self._inboxes, [[] for _ in self.shards]
        for me, shard in enumerate(self.shards):
            events = [Ticked(self._clock_ns, self._clock_ns), *map(Arrived, inboxes[me])]
            if self._durable[me] > shard.durable:
                events.append(Durable(self._durable[me]))
            if reading:
                events.append(self._items(me))
            started_ns = time.thread_time_ns()
            for event in events:
                shard.accept(event)
            batch = shard.run() if shard.runnable else None
            effects = shard.take_effects()
            self.used.cpu_ns += time.thread_time_ns() - started_ns
            if batch is not None and batch.commit is not None:
                self._committed(me, batch.commit, batch.turns)
            self._perform(effects)
        self._read += ITEMS if reading else 0

    def rounds(self, count: int, *, reading: bool = True, passed_ns: int = ROUND_NS) -> None:
        """So many rounds."""
        for _ in range(count):
            self.round(reading=reading, passed_ns=passed_ns)

    def settle(self) -> None:
        """Rounds until all is quiet."""
        for _ in range(SETTLED_ROUNDS_MAX):
            if self.quiet:
                return
            self.round(reading=False)
        raise AssertionError("I8: it does not drain")

    def _items(self, me: int) -> Items:
        positions = range(self._read, self._read + ITEMS)
        after = positions[0] - 1 if self._read else None
        found = self._sources[me][positions[0] : positions[-1] + 1]
        return Items("keys", self._partitions[me], after, positions, found)

    def _committed(self, me: int, commit: Commit, turns: int) -> None:
        self.disks[me].append(commit)
        self._durable[me] = commit.no
        self.used.turns += turns
        self.used.commits += 1
        self.used.rows += len(commit.rows)
        self.used.record_bytes += len(commit.record)

    def _perform(self, effects: Sequence[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Adopt):
                continue  # Items come from here, not from sources that a driver would open.
            assert isinstance(effect, Transmit), f"nothing goes wrong here, and yet: {effect}"
            self._inboxes[effect.peer].append(effect.raw)
            self.used.packets[Kind(effect.raw[3]).name] += 1
            self.used.packet_bytes += len(effect.raw)

    @property
    def quiet(self) -> bool:
        """Nothing is under way anywhere."""
        return not any(self._inboxes) and all(
            shard.quiet and shard.durable == self._durable[me]
            for me, shard in enumerate(self.shards)
        )

    def take_used(self) -> Used:
        """What was used since it was last taken."""
        used, self.used = self.used, Used()
        return used

    @property
    def streams(self) -> int:
        """Ends of streams to other shards that are kept in memory, in pairs."""
        return sum(
            sum(peer != shard.me for peer in shard.streams.outbound) for shard in self.shards
        )

    @property
    def counted(self) -> int:
        """All that is counted in the states."""
        of = Counter.__skerry__
        return sum(
            of.decode(state, key, lambda _: None).count  # type: ignore[attr-defined]
            for disk in self.disks
            for key, state in disk.states("Counter")
        )


def drawn_keys(load: str, placement: Placement, me: int, count: int) -> list[str]:
    """Keys that a shard's source sends to."""
    keys = all_keys(len(placement.members))
    if load == "few":
        others = {(me + step) % len(placement.members) for step in range(1, FEW + 1)}
        owners = (placement.slots[slot] for slot in slots_of("Counter", keys))
        keys = [key for key, owner in zip(keys, owners) if owner in others]
    return random.Random(me).choices(keys, k=count)


def all_keys(shards: int) -> list[str]:
    """The keys of all counters: enough that each shard has some."""
    return [f"e{number:08d}" for number in range(max(KEYS, 20 * shards))]


def measured(load: str, shards: int) -> Row:
    """One load on so many shards."""
    gc.collect()
    gc.disable()  # A worker's own garbage is looked at rarely; here a thousand share one heap.
    try:
        return _measured(Cluster(load, shards))
    finally:
        gc.enable()


def _measured(cluster: Cluster) -> Row:
    load, shards = cluster.load, len(cluster.shards)
    cluster.rounds(OPENING_ROUNDS, reading=False)
    opened = cluster.take_used()
    cluster.round()
    cluster.rounds(GREETING_ROUNDS, reading=False)
    cluster.rounds(WARM_UP_ROUNDS - 1)
    cluster.take_used()
    cluster.rounds(ROUNDS)
    used = cluster.take_used()
    cluster.settle()
    sent = ITEMS * (WARM_UP_ROUNDS + ROUNDS) * shards
    assert cluster.counted == sent, f"I1: {sent} messages were sent, {cluster.counted} counted"
    cluster.take_used()
    cluster.rounds(IDLE_ROUNDS, reading=False, passed_ns=IDLE_ROUND_NS)
    idle, idle_s = cluster.take_used(), IDLE_ROUNDS * IDLE_ROUND_NS / 1e9
    return Row(
        load=load,
        shards=shards,
        streams=cluster.streams,
        turns_per_commit=used.turns / used.commits,
        packets_per_k={kind.name: 1000 * used.packets[kind.name] / used.turns for kind in Kind},
        packet_bytes_per_turn=used.packet_bytes / used.turns,
        record_bytes_per_turn=used.record_bytes / used.turns,
        rows_per_k=1000 * used.rows / used.turns,
        cpu_us_per_turn=used.cpu_ns / 1e3 / used.turns,
        idle_packets_per_s=sum(idle.packets.values()) / idle_s / shards,
        idle_cpu_us_per_s=idle.cpu_ns / 1e3 / idle_s / shards,
        opening_packets=sum(opened.packets.values()) / shards,
    )


def as_table(rows: Sequence[Row]) -> Table:
    """For a reader."""
    packets = [kind.name.lower() for kind in Kind]
    table = Table(
        *("load", "shards", "streams", "turns a commit", *packets, "bytes sent", "bytes logged"),
        *("rows", "CPU-us", "idle packets/s", "idle CPU-us/s", "opening"),
        title="packets and rows per 1,000 turns; bytes and CPU per turn; idle and opening per shard",
    )
    for row in rows:
        table.add_row(
            row.load,
            str(row.shards),
            f"{row.streams:,}",
            number(row.turns_per_commit),
            *(number(row.packets_per_k[kind.name]) for kind in Kind),
            number(row.packet_bytes_per_turn),
            number(row.record_bytes_per_turn),
            number(row.rows_per_k),
            f"{row.cpu_us_per_turn:.2f}",
            number(row.idle_packets_per_s),
            number(row.idle_cpu_us_per_s),
            number(row.opening_packets),
        )
    return table


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = command_line.parser(__doc__)
    parser.add_argument(
        "--shards", type=command_line.count, nargs="+", default=SHARDS, help="how many there are"
    )
    parser.add_argument(
        "--loads",
        nargs="+",
        default=["all", "few"],
        choices=["all", "few"],
        help="each sends to all, or to a few",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    given = parser.parse_args()
    rows = []
    for load in given.loads:
        for shards in given.shards:
            started = time.perf_counter()
            rows.append(measured(load, shards))
            print(f"── {load}, {shards} shards: {time.perf_counter() - started:.0f} s", flush=True)
    Console(width=None if sys.stdout.isatty() else 200).print(as_table(rows))
    if given.json:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows), indent=1))


if __name__ == "__main__":
    main()
