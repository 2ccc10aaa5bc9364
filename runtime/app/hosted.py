"""What becomes of the stores of an app's members in a cluster, where a host has copies of them.

    first start:  logs -> description, which makes them members
    who leads:    the description, a generation further: whoever led before changes it no more
    who follows:  the description, once there is one

The cluster has the rows; what lies on this host may be deleted at any time. So nothing here is
compared with the description, but for one thing: the folder must not be another app's.

Imported only by apps that run in a cluster. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from skerry.errors import SkerryError, StoreDamaged, Unavailable, storable
from skerry.runtime.app import directory, membership, placer
from skerry.runtime.app.homes import shards_at
from skerry.runtime.app.machine import usable_cores
from skerry.runtime.app.members import Members
from skerry.runtime.app.opening import check_name
from skerry.runtime.cluster import joining, names
from skerry.runtime.cluster.coordinator import ClusterCoordinator
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.local import unfit
from skerry.runtime.cluster.replica import label_of
from skerry.runtime.cluster.snapshots import Snapshots
from skerry.runtime.cluster.stream import JetStream
from skerry.runtime.config import Cluster, Config
from skerry.runtime.description import Description, boot_id
from skerry.runtime.ports import LogDamaged
from skerry.runtime.printable import Say


class ClusterMembers:
    """The logs of an app's members in a cluster, and the copies on this host."""

    def __init__(
        self,
        data: Path,
        coordinator: ClusterCoordinator,
        engine: Engine,
        say: Say,
        stop: Callable[[], bool],
    ) -> None:
        self._data, self._coordinator, self._engine = data, coordinator, engine
        self._say, self._stop = say, stop
        self._refused = ""
        """Why NATS has not made a log, as it was told."""

    def open(self, config: Config) -> Description:
        """Note a start; see `Members.open`. The folder was checked before."""
        patience = joining.Patience(self._say, self._stop)
        while True:
            try:
                found = self._opened(config)
            except Unavailable as error:
                patience.wait(str(error))
                continue
            if found is not None:
                break
            patience.wait("another host is to describe the app first")
        check_name(self._data, found.app, config.program.app)
        here = [s for s in shards_at(found.homes, self._coordinator.host) if s not in found.guests]
        workers = config.workers or len(here) or len(usable_cores())
        self._coordinator.tell(workers=workers)
        return found

    def _opened(self, config: Config) -> Description | None:
        """Return the description, which a host that leads makes. Raises Unavailable."""
        known = self._coordinator.read()
        if self._coordinator.leads:
            return self._create(config) if known is None else known
        return None if known is None or known.ended else known

    def lead(self, config: Config, app: Description) -> Description | None:
        """Write the description anew, a generation further: whoever led before writes it no more."""
        host = self._coordinator.host
        try:
            known = self._coordinator.read()
            if known is None:
                raise SkerryError(f"The description of {app.app!r} in NATS was removed.")
            before = known.generation
            known.generation += 1
            known.sync, known.target = config.storage.sync, storable(config.program.target)
            known.renamed = config.program.renamed
            known.boot_id, known.clean, known.ended = boot_id(), False, False
            known.homes = known.homes or dict.fromkeys(known.placement.members, host)
            known.tenants[host] = self._coordinator.nonce
            self._coordinator.replace(known, generation=before)
        except Unavailable:
            return None
        return known

    def settled(self, config: Config) -> Config:
        """Return the settings with the number of replicas, which depends on the servers."""
        assert config.cluster is not None, "it runs in a cluster"
        return replace(config, cluster=replace(config.cluster, replicas=self._coordinator.replicas))

    def _create(self, config: Config) -> Description:
        """Make a new app: its logs first, then the description, which makes them members."""
        workers = config.workers or len(usable_cores())
        made = Description.first(config.program.app, placer.first(workers))
        made.cluster = names.of_app(made.app)
        for shard in made.placement.members:
            self.recruit(made, shard)
        self._coordinator.replace(made, generation=0)
        self._snapshots(made, made.placement.members[0]).remove_earlier()
        return made

    def free_ids(self, app: Description, count: int) -> list[int]:
        """Return ids that no shard ever had."""
        first = app.placement.next_id
        return list(range(first, first + count))

    def recruit(self, app: Description, shard: int) -> None:
        """Make a log. Its shard's worker makes the store. Raises Away: it is to be tried again."""
        self._check_near()
        try:
            self._log(app, shard).create(replicas=self._coordinator.replicas)
        except LogDamaged:
            # Whoever led before has made it for this goal, and its worker has begun.
            if shard not in app.goal:
                raise
        except Away as away:
            if str(away) != self._refused:
                self._say(f"no shard can come yet: {away}")
                self._refused = str(away)
            raise
        self._refused = ""

    def enrolled(self, app: Description, shard: int) -> None:
        """Do nothing: a worker labels its store by the description."""

    def retire(self, app: Description, shard: int) -> None:
        """Remove a log, its snapshots and the copy on this host. Raises Away: it is to be tried again."""
        self._check_near()
        folder = membership.folder_of(self._data, shard)
        if folder.exists() and not unfit(folder, label_of(app, shard)):
            shutil.rmtree(folder)
        self._log(app, shard).delete()
        self._snapshots(app, shard).remove()

    def _check_near(self) -> None:
        """Raise Away: the servers are known to be away, and nobody is to wait for them."""
        if silent_s := self._coordinator.silent_s:
            raise Away(f"NATS has not answered for {silent_s:.0f} s.")

    def lacking_room(self, shards: Sequence[int], slots: int) -> str:
        """Say nothing: the servers have the rows, and refuse what they have no room for."""
        return ""

    def _snapshots(self, app: Description, shard: int) -> Snapshots:
        replicas = self._coordinator.replicas
        # Who calls has workers to look after.
        return Snapshots(self._engine, app.app, app.incarnation, shard, replicas, patience_s=0)

    def _log(self, app: Description, shard: int) -> JetStream:
        return JetStream(self._engine, names.log_of(app.app, app.incarnation, shard))


def in_cluster(
    cluster: Cluster, app: str, data: Path, say: Say, stop: Callable[[], bool]
) -> tuple[ClusterCoordinator, Members, Callable[[], None]]:
    """Return who coordinates an app in a cluster, who keeps its members' stores, and what lets go of
    the servers. Raises SkerryError: the folder is another app's."""
    check_folder(data, app)
    engine = Engine(cluster.servers, name=f"skerry {app} {cluster.host}")
    coordinator = ClusterCoordinator(
        engine, app, cluster.host, data, say=say, stop=stop, lease_s=cluster.lease_s
    )
    return coordinator, ClusterMembers(data, coordinator, engine, say, stop), engine.close


def check_folder(data: Path, app: str) -> None:
    """Refuse a folder that holds anything but an empty host's, or a copy of this app's data.

    Raises SkerryError.
    """
    try:
        here = directory.load(data)
    except StoreDamaged:
        return  # A copy of what the cluster has; it is written again.
    if here is None:
        there = data.iterdir() if data.is_dir() else ()
        strange = [entry.name for entry in there if entry.name not in membership.OWN]
        if strange:
            raise SkerryError(
                f"{data} holds {sorted(strange)[0]!r} and no app.json: it is no data directory of "
                f"skerry. Choose an empty or new folder with --data."
            )
        return
    check_name(data, here.app, app)
    if not here.cluster:
        raise SkerryError(
            f"{data} holds the app {here.app!r} of this machine alone. Choose another folder for the "
            f"cluster's copy with --data."
        )
