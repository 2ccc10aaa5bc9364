"""A simulated host: runs the shards whose home it is, and leads when it has taken that place.

Where shards live is decided by `app/homes.py`, how slots move by `app/scaling.py`. Each loop is a
generator that goes on once per step, unless the host is frozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from skerry.runtime.app import homes
from skerry.runtime.app.homes import Homes
from skerry.runtime.core.placement import Placement
from skerry.runtime.simulator.presence import (
    DESCRIPTION,
    Asking,
    Overtaken,
    Presence,
    asked,
    attempt,
)
from skerry.runtime.simulator.servers import NO_ANSWER, Entry, Question
from skerry.runtime.simulator.tenant import Tenant

if TYPE_CHECKING:
    from skerry.runtime.simulator.hosts import Hosted

FRESH = 64
"""More ids than shards are ever made at once."""


class Described(Struct, frozen=True):
    """What the description says."""

    generation: int
    """How often another host has begun to lead."""
    placement: Placement
    homes: Homes
    goal: tuple[int, ...] = ()
    """The members that the slots are on their way to; empty: they stay."""
    processes: dict[str, str] = {}
    """The process of each host that may run its shards, by its nonce. The one that a host has next may
    not until the description says so: the leader may be about to re-home the shards of the last."""
    next_id: int = 0
    """Above the id of every shard that was ever made."""


class Host:
    """One host."""

    def __init__(self, name: str, rate: float, workers: int, cluster: Hosted) -> None:
        self.name, self._rate, self.workers = name, rate, workers
        self._cluster, self._servers = cluster, cluster.servers
        self.boot_ns = cluster.rng.randrange(1 << 50)
        """The time of its clock, which is never set and runs by a rate of its own."""
        self.tenants: dict[int, Tenant] = {}
        self.down_until = self.frozen_until = self.cut_until = 0
        self.left = False
        """Whether it has left, and does not come back by itself."""
        self.started()

    def started(self) -> None:
        """A new process on this host."""
        self.presence = Presence(self, self._servers, self._cluster.points)
        self.led = 0
        """The generation of the description that it made when it began to lead."""
        self.description = Entry(None, 0, 0)
        self._loops: list[Iterator[None]] = [self.presence.stay(), self._lead()]

    # ── what is seen of it ──

    @property
    def up(self) -> bool:
        """Whether its process is there."""
        return not self.left and self._cluster.step_no >= self.down_until

    @property
    def runs(self) -> bool:
        """Whether it is up and not frozen."""
        return self.up and self._cluster.step_no >= self.frozen_until

    @property
    def holds(self) -> bool:
        """Whether its lease holds, by its own clock."""
        return self.boot_ns < self.presence.until_ns

    @property
    def described(self) -> Described | None:
        """The newest description that it has seen."""
        value = self.description.value
        assert value is None or isinstance(value, Described), "nobody else writes it"
        return value

    def reaches_servers(self) -> bool:
        """Whether it reaches the servers."""
        return self._cluster.step_no >= self.cut_until and self.up

    def ask(self, do: Callable[[], Any], /) -> Question:
        """Ask the servers."""
        return self._servers.ask(self.reaches_servers, do)

    def let_go(self, caller: Any, /) -> None:
        """Close the line of a caller."""
        self._cluster.let_go(caller)

    def send(self, src: int, peer: int, raw: bytes, /) -> None:
        """Carry a packet to where this host believes the other shard to live."""
        described = self.described
        home = described.homes.homes.get(peer) if described is not None else None
        self._cluster.carry(self, home, src, peer, raw)

    # ── steps ──

    def tick(self) -> None:
        """Let its clock go on, which a frozen process does not stop."""
        self.boot_ns += int(self._cluster.step_ns * self._rate)

    def step(self) -> None:
        """Go on with all that it does, but for its workers."""
        if self.runs:
            for loop in self._loops:
                next(loop, None)
            self._follow()

    def killed(self, *, power: bool) -> None:
        """Its process ends, and all its workers; `power`: its disk has lost some, too."""
        rng = self._cluster.rng
        for tenant in self.tenants.values():
            tenant.end()
            if power:
                kept = rng.randint(0, len(tenant.copy.records)) if rng.random() < 0.7 else 0
                del tenant.copy.records[kept:]
        self.frozen_until = 0
        self.started()

    def tenant(self, shard: int) -> Tenant:
        """Return its place for a shard."""
        if shard not in self.tenants:
            self.tenants[shard] = Tenant(shard, self._cluster, self, self._servers)
        return self.tenants[shard]

    def _follow(self) -> None:
        """Run the shards whose home this is."""
        described, cluster = self.described, self._cluster
        ours: set[int] = set()
        process = None if described is None else described.processes.get(self.name)
        if described is not None and process == self.presence.nonce and self.presence.until_ns:
            members = {*described.placement.members, *described.goal}
            ours = set(homes.shards_at(described.homes.homes, self.name)) & members
        for shard, tenant in self.tenants.items():
            if tenant.up and shard not in ours:
                cluster.points["worker ended: its shard lives elsewhere"] += 1
                tenant.end()
        for shard in sorted(ours):
            tenant = self.tenant(shard)
            if not tenant.up and cluster.step_no >= tenant.down_until and described is not None:
                cluster.begin(tenant, described.placement)

    def lost(self) -> None:
        """Somebody has evicted this host: its workers end, and it joins as another."""
        self._cluster.points["lease lost"] += 1
        for tenant in self.tenants.values():
            tenant.end()
        self.started()

    def saw(self, description: Entry) -> None:
        """Take note of a description, unless a newer one is known."""
        if description.revision > self.description.revision:
            self.description = description

    # ── the leader's loop ──

    def _lead(self) -> Iterator[None]:
        while True:
            yield
            described = self.described
            if not self.presence.leads or described is None:
                self.led = 0
                continue
            if not self.led:
                found: Described | None = replace(described, generation=described.generation + 1)
            elif described.generation != self.led:
                self.presence.leads = False  # Another one leads, says the description.
                continue
            else:
                found = self._decided(described)
            if found is not None:
                yield from self._replace(found)

    def _replace(self, new: Described) -> Asking:
        change = self._servers.change(DESCRIPTION, new, self.description.revision)
        revision = None
        while revision is None:
            try:
                revision = yield from attempt(self, self._servers, change)
            except Overtaken:
                found: Any = NO_ANSWER
                while found is NO_ANSWER:
                    found = yield from asked(self, lambda: self._servers.read(DESCRIPTION))
                self.saw(found)
                return
        self.led = new.generation
        self.saw(Entry(new, revision, change.write))

    def _decided(self, now: Described) -> Described | None:
        """What the description should say; None: what it says."""
        wants = {lease.host: lease.workers for lease in self.presence.present.values()}
        if not wants:
            return None
        processes = {lease.host: lease.nonce for lease in self.presence.present.values()}
        if (found := homes.rehomed(now.homes, wants)) is not None:
            self._cluster.points["shards re-homed"] += 1
            return replace(now, homes=found, processes=processes)
        if processes != now.processes:
            return replace(now, processes=processes)
        first = max(now.next_id, now.placement.next_id)
        change = homes.settled(now.homes, wants, range(first, first + FRESH))
        if change is not None:
            settled, goal = change
            # A shard that was to come for a goal before this one, and did not, never comes.
            members = {*now.placement.members, *goal}
            settled = homes.without(settled, settled.homes.keys() - members)
            if (settled, tuple(goal)) != (now.homes, now.goal):
                next_id = max([first - 1, *goal]) + 1
                self._cluster.points["scaled"] += 1
                return replace(now, homes=settled, goal=tuple(goal), next_id=next_id)
        return self._cluster.lead(self, now)
