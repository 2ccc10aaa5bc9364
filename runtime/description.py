"""The app's description, and who runs it: what all processes of an app agree on.

The description is what outlives every run: the app's identity, who serves its slots, and how
safely it was last run. It is replaced as a whole and never changed in place.

Data and its rules; `app/directory.py` reads and writes it. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from skerry.runtime.core.events import SLOTS
from skerry.runtime.core.placement import Placement

FORMAT = 2


class Backup(Struct, kw_only=True):
    """How a backup was made."""

    time_s: float
    """When it was begun, seconds since 1970."""
    marker: int = 0
    """The number of its snapshot marker; 0: the app was stopped."""
    commits: dict[int, int]
    """The newest commit of each shard."""


class Description(Struct):
    """An app, as its data directory describes it."""

    format: int
    generation: int
    """Grows with each start, so that of two descriptions the older one is known."""
    app: str
    directory: str
    """A name for the data directory, drawn when a first start or a restore makes it."""
    target: str
    incarnation: str
    placement: Placement
    sync: str
    boot_id: str
    """The boot in which the app last ran: tells `--sync off` that the power failed since."""
    goal: list[int] = []
    """The shards that the slots are on their way to; empty: they are where they should be."""
    clean: bool = False
    """Whether the last run ended in order."""
    renamed: dict[str, str] = {}
    """Entity types that are stored under an earlier name: name, earlier name."""
    life: str = ""
    """Tells the outputs of an app since a restore from those before it: docs/ideas/sinks.md."""
    homes: dict[int, str] = {}
    """The host of each shard, in a cluster."""
    guests: list[int] = []
    """Shards whose host was evicted, and that will go when it is back."""
    tenants: dict[str, str] = {}
    """The process of each host that its shards are run by: the nonce of its lease. Another process of the
    host waits until this names it."""
    ended: bool = False
    """Whether the app has come to its end, so that its hosts are to end."""
    cluster: str = ""
    """The app's name in a cluster, of whose rows a data directory holds a copy; empty: an app of one
    machine."""
    backup: Backup | None = None
    """The backup that this describes; None for an app that can run."""

    @classmethod
    def first(cls, app: str, placement: Placement) -> Description:
        """Describe an app that has never run."""
        return cls(
            format=FORMAT,
            generation=1,
            app=app,
            directory=os.urandom(16).hex(),
            target="",
            incarnation=os.urandom(16).hex(),
            placement=placement,
            sync="commit",
            boot_id=boot_id(),
        )

    @property
    def may_have_lost(self) -> bool:
        """Whether the machine went down while the app ran with `--sync off`."""
        return self.sync == "off" and not self.clean and self.boot_id != boot_id()

    def shards_of(self, host: str, nonce: str) -> list[int]:
        """Return the shards that a process of a host runs; of an app of one machine, all of them."""
        shards = sorted({*self.placement.members, *self.goal})
        if not self.cluster:
            return shards
        if self.tenants.get(host) != nonce:
            return []
        return [shard for shard in shards if self.homes[shard] == host]

    def begin_anew(self) -> None:
        """Draw a new incarnation: the data goes on from an earlier moment, so that nothing may take
        its numbers for the old ones."""
        self.incarnation = os.urandom(16).hex()
        self.life = self.incarnation[:8]

    def check(self) -> None:
        """Raises ValueError: the description contradicts itself, so no release has written it."""
        placement = self.placement
        members = set(placement.members)
        if len(placement.slots) != SLOTS:
            raise ValueError(f"it places {len(placement.slots)} slots, not {SLOTS}")
        if len(members) != len(placement.members):
            raise ValueError(f"two of its shards have one id: {placement.members}")
        if not members >= set(placement.slots):
            stray = set(placement.slots) - members
            raise ValueError(f"a slot's owner is none of its shards: {stray}")
        if not members >= set(placement.coming.values()):
            stray = set(placement.coming.values()) - members
            raise ValueError(f"a slot's next owner is none of its shards: {stray}")
        if any(not 0 <= slot < SLOTS for slot in placement.coming):
            raise ValueError(f"it places {SLOTS} slots, and names others: {list(placement.coming)}")
        if self.homes and not self.homes.keys() >= {*members, *self.goal}:
            homeless = {*members, *self.goal} - self.homes.keys()
            raise ValueError(f"some of its shards have no host: {homeless}")
        if placement.next_id <= max(members):
            raise ValueError(f"the id that it would give next, {placement.next_id}, is in use")


class Running(Struct):
    """The supervisor that runs an app, and where its workers are reached."""

    pid: int
    app: str
    sockets: str
    """The folder of the sockets: its bytes as UTF-8 whatever the locale, those that are none as Python
    does it."""
    shards: list[int]
    secret: str = ""
    """Proves to clients and listeners that they belong to this app: `gateway/knock.py`."""
    host: str = ""
    """The host's name, in a cluster."""
    leads: bool = True
    """Whether this supervisor is the one that leads the app."""

    @property
    def folder(self) -> Path:
        """The folder of the sockets."""
        return Path(os.fsdecode(self.sockets.encode(errors="surrogateescape")))


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
