"""Gives shards their homes on the hosts of a cluster, as the one that leads.

    the hosts' leases -> who is there, and wants how many -> `homes.py` decides -> the description

A host's shards are run by one process, which the description names: its tenant. A host that starts
again is another process, and begins when it is named. So a host that comes back just when its shards
go elsewhere finds its process named and them gone, or itself not named; in no case both run them.

Asks the coordinator, and writes by the register. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

from skerry.errors import Unavailable
from skerry.runtime.app import homes
from skerry.runtime.app.homes import Homes
from skerry.runtime.app.members import Members
from skerry.runtime.app.register import Register
from skerry.runtime.app.scaler import Scaler
from skerry.runtime.printable import Say

LOOK_S = 0.2
"""How often the hosts are looked at."""


class Seen(Protocol):
    """What is known of a host that is present."""

    @property
    def nonce(self) -> str:
        """That of its process."""
        ...

    @property
    def workers(self) -> int:
        """How many it wants; 0: it has not said so yet."""
        ...

    @property
    def leaves(self) -> bool:
        """Whether it gives all its slots away."""
        ...


class Hosts(Protocol):
    """Who is there."""

    @property
    def hosts(self) -> Mapping[str, Seen]:
        """The hosts that are present, by name, as of the last look."""
        ...

    def is_absent(self, host: str, /) -> bool:
        """Whether a host has no lease, for sure. May take a moment."""
        ...


class Housing:
    """The homes of an app's shards, while this host leads."""

    def __init__(
        self, hosts: Hosts, register: Register, scaler: Scaler, stores: Members, say: Say
    ) -> None:
        self._hosts, self._register, self._scaler = hosts, register, scaler
        self._stores, self._say = stores, say
        self._look_s = 0.0

    def step(self) -> bool:
        """Go on, if the hosts have changed; tell whether some shard has another home, or will.

        Raises SkerryError: the description can't be written.
        """
        now_s = time.monotonic()
        if now_s < self._look_s:
            return False
        self._look_s = now_s + LOOK_S
        try:
            self._register.finish()
            return self._named() or self._rehomed() or self._settled()
        except Unavailable:
            return False  # It is tried again.

    def _named(self) -> bool:
        """Name the processes that hosts have now."""
        app, hosts = self._register.app, self._hosts.hosts
        tenants = {host: seen.nonce for host, seen in hosts.items()}
        if app.tenants | tenants == app.tenants:
            return False
        self._register.put(tenants=app.tenants | tenants)
        return True

    def _rehomed(self) -> bool:
        """Give the shards of hosts that are not there to others."""
        app, wants = self._register.app, self._wants()
        absent = set(app.homes.values()) - wants.keys()
        if not absent or not all(self._hosts.is_absent(host) for host in absent):
            return False
        found = homes.rehomed(Homes(app.homes, app.guests), wants)
        assert found is not None, "an absent host had shards"
        tenants = {host: nonce for host, nonce in app.tenants.items() if host not in absent}
        moved = {s: home for s, home in found.homes.items() if home != app.homes[s]}
        self._register.put(homes=found.homes, guests=found.guests, tenants=tenants)
        for host in sorted(absent):
            self._say(f"host {host} is gone; its shards go on elsewhere: {_told(moved)}")
        return True

    def _settled(self) -> bool:
        """Begin to move slots to where hosts want them."""
        app, scaler = self._register.app, self._scaler
        if scaler.busy or scaler.held:
            return False
        if app.goal:  # It is known by now to stand there, or that its end does not.
            scaler.start(None)
            return True
        wants = self._wants()
        fresh = self._stores.free_ids(app, sum(wants.values()))
        found = homes.settled(Homes(app.homes, app.guests), wants, fresh)
        if found is None:
            return False
        scaler.settle(*found)
        return True

    def _wants(self) -> dict[str, int]:
        """Return how many shards each present host wants."""
        app = self._register.app
        return {
            host: 0 if seen.leaves else seen.workers or len(homes.shards_at(app.homes, host))
            for host, seen in self._hosts.hosts.items()
        }


def _told(moved: Mapping[int, str]) -> str:
    return ", ".join(f"shard {shard} on {host}" for shard, host in sorted(moved.items()))
