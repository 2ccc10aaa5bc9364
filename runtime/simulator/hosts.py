"""An app of shards on several simulated hosts, with leases, replicated logs, and what befalls them.

A cluster as in `cluster.py`, whose shards live where its hosts decide (`host.py`). A host that is
frozen comes back with its old memory; one that is killed may lose its disk; hosts are cut off from
the servers, and from each other. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from typing import Any

from skerry.runtime.app import homes
from skerry.runtime.app.homes import Homes
from skerry.runtime.app.watch import Watch
from skerry.runtime.cluster.log import Astray, Replaced
from skerry.runtime.core.placement import Placement
from skerry.runtime.core.streams.links import Fenced
from skerry.runtime.simulator.callers import SECONDS_PER_STEP
from skerry.runtime.simulator.cluster import HANG_S, Cluster, settings_of
from skerry.runtime.simulator.faults import FOREVER
from skerry.runtime.simulator.host import Described, Host
from skerry.runtime.simulator.leading import Leading
from skerry.runtime.simulator.ledger import Books
from skerry.runtime.simulator.machine import Machine
from skerry.runtime.simulator.mover import DOWN_STEPS_MAX
from skerry.runtime.simulator.outages import Outages
from skerry.runtime.simulator.presence import DESCRIPTION, HOST
from skerry.runtime.simulator.servers import Servers
from skerry.runtime.simulator.tenant import Tenant

RATE_MAX = 0.04
"""By what part a host's clock runs fast or slow."""

HEARD = 0.03
"""How often in a step a caller hears that the shard at the end of its line lives elsewhere."""


class Hosted(Cluster):
    """The hosts and all that stands on them."""

    mover: Leading

    def __init__(self, *args: Any, hosts: int, **settings: Any) -> None:
        self._count = hosts
        super().__init__(*args, **settings)

    def _leader(self) -> Leading:
        return Leading(self)

    def _start_all(self) -> None:
        """Let hosts come up whose leases and description are there already."""
        self.servers = Servers(self)
        self.cut_until: dict[tuple[str, str], int] = {}
        self._ends: dict[Any, tuple[Tenant, int]] = {}
        self._outages = Outages(self)
        self.hosts: list[Host] = []
        members = self.placement.members
        for number in range(self._count):
            workers = len(members[number :: self._count])
            self.add_host(workers)
        lives = {shard: self.hosts[n % self._count].name for n, shard in enumerate(members)}
        first = Described(0, self.placement, Homes(lives), next_id=self.placement.next_id)
        self.servers.put(self.servers.change(DESCRIPTION, first, 0))
        self._seen = first
        self._rewire(first)

    def add_host(self, workers: int) -> None:
        """Let another host join."""
        rate = 1 + self.rng.uniform(-RATE_MAX, RATE_MAX)
        host = Host(f"h{len(self.hosts)}", rate, workers, self)
        self.hosts.append(host)

    def kill_host(self, host: Host, until: int, *, power: bool) -> None:
        """Kill a host's process and its workers; `power`: its disk has lost some, too."""
        self.crashes += sum(tenant.up for tenant in host.tenants.values())
        host.killed(power=power)
        host.down_until = until

    # ── who runs what ──

    def begin(self, tenant: Tenant, placement: Placement) -> None:
        """Start a shard's process on a host that knows this placement."""
        watch = self.keeper.watches.setdefault(tenant.id, Watch())
        tenant.start(settings_of(self, tenant.id, placement))
        watch.started(self.step_no * SECONDS_PER_STEP)

    def reached(self, host: Host, now: Described) -> list[Machine]:
        """Return the machines of shards that a host reaches, by this description."""
        there = {each.name: each for each in self.hosts}
        found: list[Machine] = []
        for shard, home in now.homes.homes.items():
            other = there[home]
            if other.runs and self._carries(host, other) and self._carries(other, host):
                machine = other.tenants.get(shard)
                if machine is not None and self.step_no >= machine.hangs_until:
                    found.append(machine)
        return found

    def lead(self, host: Host, now: Described) -> Described | None:
        """What the leader changes about slots."""
        return self.mover.next(host, now)

    def _carries(self, one: Host, other: Host) -> bool:
        return self.cut_until.get((one.name, other.name), 0) <= self.step_no

    @property
    def _truth(self) -> Described:
        found = self.servers.truth(DESCRIPTION)
        assert isinstance(found, Described), "it was written at the start"
        return found

    def _rewire(self, now: Described) -> None:
        """Look for shards where they live now."""
        there = {host.name: host for host in self.hosts}
        self.placement = now.placement
        shards = sorted({*now.placement.members, *now.goal} & now.homes.homes.keys())
        self.machines = [there[now.homes.homes[shard]].tenant(shard) for shard in shards]
        self.keeper.members(shards)
        self.lines.doors(shards)
        self._seen = now

    @property
    def next_due_ns(self) -> int | None:
        """When the next timer is due, by the clock of its shard."""
        dues = [
            (m.shard.demand().wake_ns, m.clock_off_ns) for m in self.machines if m.shard is not None
        ]
        return min((due - off for due, off in dues if due is not None), default=None)

    @property
    def unsettled(self) -> bool:
        """Whether shards, slots or hosts are not where they should be."""
        now = self._truth
        there = [host for host in self.hosts if not host.left]
        lives = now.homes.homes
        return (
            bool(now.goal or now.placement.coming)
            or set(lives) != set(now.placement.members)
            or not all(host.holds and host.workers for host in there)
            or not any(host.presence.leads and host.led == now.generation for host in there)
            or any(
                tenant.up and lives.get(tenant.id) != host.name
                for host in self.hosts
                for tenant in host.tenants.values()
            )
            or any(
                len(homes.shards_at(lives, host.name)) < host.workers
                or self.servers.truth(HOST + host.name).workers != host.workers
                for host in there
            )
        )

    # ── steps ──

    def step(self) -> None:
        """One step of the clock."""
        self.step_no += 1
        self.clock_ns += self.step_ns
        self._misfortune.strike()
        self._outages.strike()
        self.network.deliver()
        for caller in self.callers:
            caller.step()
        self.keeper.step(self.step_no)
        for host in self.hosts:
            host.tick()
            host.step()
            for tenant in list(host.tenants.values()) if host.runs else ():
                self._go_on(tenant)
            self._leave(host)
        self._check_leases()
        if self._truth is not self._seen:
            self._rewire(self._truth)

    def _check_leases(self) -> None:
        """Assert that nobody was evicted within the lease, as it counts by its host's own clock."""
        for host in self.hosts:
            if host.holds:
                lease = self.servers.truth(HOST + host.name)
                theirs = lease is None or lease.nonce != host.presence.nonce
                assert not theirs, f"I5: {host.name} was evicted while its lease held"

    def _go_on(self, tenant: Tenant) -> None:
        if not tenant.up:
            return
        if self.step_no >= tenant.hangs_until:
            try:
                self._run(tenant)
            except (Replaced, Fenced, Astray) as error:
                fenced = not isinstance(error, Astray)
                assert not fenced or tenant.log.owner != tenant.owner, f"I5: {error}"
                self.points[f"worker stops: {type(error).__name__}"] += 1
                self._end(tenant)
        elif (
            tenant in self.machines
            and tenant.shard is not None
            and self.keeper.look(tenant.id, self.step_no, tenant.beat, HANG_S)
        ):
            self.kill(tenant)

    def _end(self, tenant: Tenant) -> None:
        tenant.end()
        tenant.down_until = self.step_no + self.rng.randrange(1, DOWN_STEPS_MAX)

    def kill(self, machine: Machine, *, by_itself: bool = False) -> None:
        """Kill a shard's process, if there is one."""
        assert isinstance(machine, Tenant), "shards live on hosts"
        if machine in self.machines:
            super().kill(machine, by_itself=by_itself)
        elif machine.up:
            self._end(machine)

    def crash_all(self) -> None:
        """Let the power fail, on all hosts."""
        self.keeper.started()
        for host in self.hosts:
            if not host.left:
                self.kill_host(
                    host, self.step_no + self.rng.randrange(1, DOWN_STEPS_MAX), power=True
                )

    def _leave(self, host: Host) -> None:
        """Let a host go that wants no workers, once it has no shard."""
        if host.workers or host.left or not host.runs or not host.holds:
            return
        now = self._truth
        others = [each for each in self.hosts if each is not host and not each.left]
        if host.name in now.homes.homes.values() or not any(each.workers for each in others):
            return
        if (held := self.servers.truth(HOST + host.name)) is None or held.workers:
            return
        self.servers.put(self.servers.change(HOST + host.name, None, 0))
        self.points["host left"] += 1
        host.left = True
        host.killed(power=False)

    def settle(self, *, steps_max: int = 60_000) -> None:
        """Faults are over: hosts come back, and everything drains."""
        self.servers.away_until = 0
        self.cut_until.clear()
        for host in self.hosts:
            host.down_until = host.frozen_until = host.cut_until = 0
            for tenant in host.tenants.values():
                if tenant.hangs_until != FOREVER:
                    tenant.hangs_until = 0
        if not any(host.workers for host in self.hosts if not host.left):
            next(host for host in self.hosts if not host.left).workers = 1
        super().settle(steps_max=steps_max)

    def _books(self) -> list[Books]:
        tenants = [tenant for host in self.hosts for tenant in host.tenants.values()]
        return [books for tenant in tenants for books in tenant.judged()]

    # ── what carries words ──

    def carry(self, host: Host, home: str | None, src: int, peer: int, raw: bytes) -> None:
        """Carry a packet from a shard on a host to another shard at its home."""
        if self.faults.stranger:
            self._stranger.overhears(raw)
        arrivals: list[int] = []
        other = next((each for each in self.hosts if each.name == home), None)
        if other is not None and self._carries(host, other):
            arrivals = self.network.send(src, peer, raw, lambda: self._reach(other, peer, raw))
        self.diary.packet(raw, arrivals or [None])

    def _reach(self, host: Host, shard: int, raw: bytes) -> None:
        """Let a packet arrive on a host."""
        machine = host.tenants.get(shard)
        if machine is None or machine.driver is None or not host.up:
            return
        if self.step_no >= machine.hangs_until:
            machine.driver.arrived(raw)
            return
        step = min(machine.hangs_until, self.step_no + self.faults.hold_steps_max)
        self.network.at(step, lambda: self._reach(host, shard, raw))

    def let_go(self, name: Any) -> None:
        """Close a line."""
        if isinstance(name[0], int) and self.callers[name[0]].is_on(name):
            self.callers[name[0]].broken(name[1])

    def door(self, name: Any) -> Machine | None:
        """Return the machine at the end of a line. A line stays with its machine until its caller hears
        that the shard lives elsewhere."""
        if name not in self._ends:
            machine = self.find(name[1])
            if not isinstance(machine, Tenant) or machine.shard is None:
                return None
            self._ends[name] = machine, machine.owner
        machine, owner = self._ends[name]
        if machine.owner != owner or machine.shard is None:
            return None
        if machine not in self.machines and self.rng.random() < HEARD:
            return None
        return machine
