"""The part of this process in its app: it leads, or follows another host that does.

    leads:    changes of the placement, by load or as somebody wishes; the homes of shards
    follows:  what the description says

On one machine there is nobody else, and it leads from the start.

Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app.children import Child
from skerry.runtime.app.homes import shards_at
from skerry.runtime.app.housing import Housing
from skerry.runtime.app.linking import Linking
from skerry.runtime.app.premises import Premises
from skerry.runtime.app.questions import Questions
from skerry.runtime.app.register import Register
from skerry.runtime.app.scaler import Hands, Held, Scaler
from skerry.runtime.cluster.lease import Lease
from skerry.runtime.config import Config, check_workers
from skerry.runtime.core.demand import Load
from skerry.runtime.description import Description
from skerry.runtime.printable import Say

AGAIN_S = 0.2
"""How long a worker waits that could not go on for what another host does."""


class Part:
    """Leads, or follows."""

    def __init__(
        self,
        config: Config,
        premises: Premises,
        register: Register,
        questions: Questions,
        hands: Hands,
        say: Say,
    ) -> None:
        self._config, self._register, self._questions = config, register, questions
        self._coordinator, self._stores = premises.coordinator, premises.members
        self._cluster = premises.cluster
        self._hands, self._say = hands, say
        self._linking: Linking | None = None
        self._scaler: Scaler | None = None
        """While this process leads."""
        self._housing: Housing | None = None
        """Likewise, in a cluster."""
        self._known: Description | None = None
        """The newest description by another host that was taken in."""
        self._leaves = False

    @property
    def leads(self) -> bool:
        """Whether this process changes the description."""
        return self._scaler is not None

    @property
    def busy(self) -> bool:
        """Whether slots are to move, and this process leads."""
        return self._scaler is not None and self._scaler.busy

    @property
    def leader(self) -> str:
        """The host that leads, as far as this one knows; empty: nobody."""
        leader = self._cluster.leader if self._cluster is not None else None
        return leader.host if leader is not None else ""

    @property
    def held(self) -> bool:
        """Whether a backup is made now."""
        return self._scaler is not None and self._scaler.held

    @property
    def over(self) -> bool:
        """Whether this host is to end: the app has, or this host has left it."""
        return self.left or (self._register.app.ended and not self.leads)

    @property
    def left(self) -> bool:
        """Whether this host was told to leave, and has no shard any more."""
        return self._leaves and not self.here

    @property
    def here(self) -> list[int]:
        """The shards that this process runs."""
        coordinator = self._coordinator
        return self._register.app.shards_of(coordinator.host, coordinator.nonce)

    def is_still_here(self, child: Child) -> bool:
        """Tell whether a shard whose worker has ended is still run by this process, as a member's.

        Asks: another host may have taken the shard over, or its log may not be there yet.
        """
        if self._cluster is None:
            return True
        child.start_at = time.monotonic() + AGAIN_S
        try:
            newest = self._cluster.read()
        except SkerryError:
            return False  # It is tried again.
        if newest is not None and not self.leads:
            self._register.know(newest)
        self._hands.house()
        return child.shard in self.here and child.shard in self._register.app.placement.members

    # ── with the run ──

    def meet(self, folder: Path) -> None:
        """Serve this folder of sockets from now on. Raises SkerryError: other hosts can't reach it."""
        if self._cluster is None:
            return
        if self._linking is not None:
            self._linking.move(folder)
            return
        assert self._config.cluster is not None, "it runs in a cluster"
        app = self._register.app.app
        self._linking = Linking(self._config.cluster, self._cluster, app, folder, self._say)

    def close(self) -> None:
        """Let other hosts reach this one no more."""
        if self._linking is not None:
            self._linking.close()

    def finish(self, *, in_order: bool) -> None:
        """Note how the run has ended, once no worker runs."""
        if self._cluster is not None:
            if self.left:
                self._cluster.leave()
        elif in_order:
            try:
                self._register.put(clean=True)
            except SkerryError as error:
                self._say(str(error))  # Only a start after `--sync off` depends on it.

    # ── steps ──

    def look(self) -> None:
        """See who leads, and take in what has changed. Raises SkerryError."""
        if self._coordinator.leads and self._scaler is None:
            self._lead()
        elif self._scaler is not None and not self._coordinator.leads:
            self._say("another host leads the app by now; this one follows")
            self._scaler = self._housing = None
            self._hands.house()
        if self._scaler is None:
            newest = self._coordinator.newest()
            if newest is not None and newest is not self._known:
                self._known = newest
                self._register.know(newest)
                self._hands.house()
        elif self._housing is not None and self._housing.step():
            self._hands.house()
        if self._linking is not None:
            self._linking.step(self._register.app, self.leader)

    def _lead(self) -> None:
        """Begin to lead; go on with what was begun before."""
        leading = self._stores.lead(self._config, self._register.app)
        if leading is None:
            return  # Another host was faster, or nobody can be asked. It is tried again.
        self._register.know(leading)
        self._scaler = Scaler(self._register, self._stores, self._questions, self._hands, self._say)
        if self._cluster is not None:
            self._housing = Housing(
                self._cluster, self._register, self._scaler, self._stores, self._say
            )
        try:
            self._scaler.start(self._config.workers if self._cluster is None else None)
        except Unavailable:
            self._scaler = self._housing = None  # It is tried again.
        self._hands.house()

    def step(self) -> None:
        """Go on with a change that is under way. Raises SkerryError: a version could not be written."""
        if self._scaler is not None:
            self._scaler.step()

    def weigh(self, loads: Mapping[int, Load]) -> None:
        """Begin to move a few slots, if these loads ask for it."""
        if self._scaler is not None:
            self._scaler.weigh(loads)

    def ended(self) -> bool:
        """Tell the other hosts that the app has come to its end; tell whether they can know it now."""
        if self._cluster is None:
            return True
        try:
            self._register.put(ended=True)
        except SkerryError as error:
            self._say(f"the app has come to its end, and other hosts can't be told so yet: {error}")
            return False
        return True

    # ── what it is told to do ──

    def scale(self, workers: int) -> None:
        """Begin to change to this many workers, here. Raises SkerryError."""
        if self._cluster is None:
            self._leading.scale(workers)
            return
        try:
            check_workers(workers)
        except ValueError as error:
            raise SkerryError(f"Nothing was changed: {error}.") from None
        self._cluster.tell(workers=workers)

    def leave(self) -> None:
        """Begin to give all slots away. Raises SkerryError."""
        if self._cluster is None:
            raise SkerryError("This app runs on one machine. Stop it with `skerry stop`.")
        hosts, here = self._cluster.hosts, self._cluster.host
        if all(seen.leaves for name, seen in hosts.items() if name != here):
            raise SkerryError(
                "This is the last host of the app, and somebody has to keep its slots. Start another "
                "one first; or stop this one with `skerry stop`, and nothing moves."
            )
        self._leaves = True
        self._cluster.tell(leaves=True)

    def hold(self) -> Held:
        """Let no slot begin to move for a while; say what still moves. Raises SkerryError."""
        return self._leading.hold()

    def check_idle(self, wish: str) -> None:
        """Raises SkerryError: a change is under way, so what somebody wishes has to wait."""
        if self._scaler is not None:
            self._scaler.check_idle(wish)

    @property
    def _leading(self) -> Scaler:
        if self._scaler is None:
            raise SkerryError("Another host leads the app now. Ask again.")
        return self._scaler

    def status(self) -> dict[str, Any]:
        """Say what is under way, and which hosts there are."""
        told = self._scaler.status() if self._scaler is not None else {}
        if self._cluster is None:
            return told
        app, hosts = self._register.app, self._cluster.hosts
        found: list[dict[str, Any]] = []
        for name in sorted({*hosts, *app.homes.values()}):
            lease = hosts.get(name) or Lease(host=name, nonce="", pid=0, lease_s=0.0, ended=True)
            found.append(
                {
                    "name": name,
                    "address": lease.address,
                    "alive": not lease.ended,
                    "leaves": lease.leaves,
                    "leads": name == self._cluster.host and self.leads,
                    "shards": shards_at(app.homes, name),
                    "workers": lease.workers,
                    "detours": [other for other in lease.detours if other in hosts],
                    "silent": [other for other in lease.silent if other in hosts],
                    "refusing": [other for other in lease.refusing if other in hosts],
                }
            )
        nats = {"nats_silent_s": round(self._cluster.silent_s, 1), "leased": self._cluster.holds()}
        return told | {"hosts": found} | nats
