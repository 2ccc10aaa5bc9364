"""What goes wrong with simulated hosts, and with the servers that they need.

The same generator draws it all, so the same seed gives the same run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skerry.testing import Faults

if TYPE_CHECKING:
    from skerry.runtime.simulator.hosts import Hosted

HELD_STEPS_MAX = 400
"""For how long a host is frozen, cut off, or down, at most: some leases."""

ELECTION_STEPS_MAX = 60

HOUR_NS = 3600 * 10**9

BEFALL = {
    "killed": 0.002,
    "power lost": 0.001,
    "two killed": 0.0004,
    "frozen": 0.004,
    "cut from servers": 0.003,
    "all cut from servers": 0.0004,
    "cut from a host": 0.002,
    "election": 0.002,
    "clock set by an hour": 0.0005,
    "joins": 0.001,
    "leaves": 0.0007,
}
"""How often each of these befalls hosts in a step, when faults are as usual."""


class Outages:
    """Draws what befalls hosts in each step."""

    def __init__(self, cluster: Hosted) -> None:
        self._cluster = cluster

    def strike(self) -> None:
        """Let go wrong what this step has drawn."""
        cluster, rng = self._cluster, self._cluster.rng
        often = cluster.faults.crash / Faults().crash
        for name, chance in BEFALL.items():
            if rng.random() < chance * often:
                self._strike(name, cluster.step_no + rng.randint(1, HELD_STEPS_MAX))

    def _strike(self, name: str, until: int) -> None:
        cluster, rng = self._cluster, self._cluster.rng
        there = [host for host in cluster.hosts if not host.left]
        host = rng.choice(there)
        cluster.points[f"host: {name}"] += 1
        match name:
            case "killed":
                cluster.kill_host(host, until, power=False)
            case "power lost":
                cluster.kill_host(host, until, power=True)
            case "two killed":
                for each in rng.sample(there, min(2, len(there))):
                    cluster.kill_host(each, until, power=True)
            case "frozen":
                host.frozen_until = until
                for tenant in host.tenants.values():
                    tenant.hangs_until = max(tenant.hangs_until, until)
            case "cut from servers":
                host.cut_until = until
            case "all cut from servers":
                for each in there:
                    each.cut_until = until
            case "cut from a host":
                other = rng.choice(there)
                cluster.cut_until[host.name, other.name] = until
                if rng.random() < 0.5:
                    cluster.cut_until[other.name, host.name] = until
            case "election":
                cluster.servers.away_until = cluster.step_no + rng.randint(1, ELECTION_STEPS_MAX)
            case "clock set by an hour":
                for tenant in host.tenants.values():
                    tenant.clock_off_ns = rng.choice((-HOUR_NS, HOUR_NS, 0))
            case "joins":
                left = [host for host in cluster.hosts if host.left]
                if left:
                    left[0].left, left[0].workers = False, rng.randint(1, 2)
                    left[0].killed(power=True)
                elif len(cluster.hosts) < 4:
                    cluster.add_host(rng.randint(1, 2))
            case "leaves":
                if len(there) > 1:
                    host.workers = 0
