"""Opens a shard's store on a host of a cluster, where it is a copy of what the cluster has.

    what lies here fits the log -> open it, and read on from the log
    it is missing or does not fit -> the newest snapshot takes its place; none: an empty store
    the log ends before it        -> the servers have lost messages: nothing is opened

So a host's data may be deleted at any time. What does not fit is moved aside, once, and not removed:
`shard-3.astray` beside `shard-3`.

Does file I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec.structs import replace

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.cluster.log import Astray, Behind, ReplicatedLog
from skerry.runtime.cluster.snapshot_pointer import Pointer
from skerry.runtime.cluster.snapshots import Outdated
from skerry.runtime.ports import LogDamaged
from skerry.runtime.printable import Say
from skerry.runtime.store import label as labels
from skerry.runtime.store.label import Label
from skerry.runtime.store.segments import Segments
from skerry.runtime.store.store import LmdbStore

ASIDE, MEANWHILE = ".astray", ".fetched"

BEHIND_MAX, BEHIND_S = 5, 1.0
"""How often a log may end before what it has acknowledged to this host, and the time between: a server that
has just come back says so for a moment."""


class Snapshots(Protocol):
    """The snapshots of one shard; see `snapshots.py`."""

    def newest(self) -> Pointer | None:
        """The newest snapshot; None: there is none yet."""
        ...

    def before(self) -> Pointer | None:
        """The snapshot before the newest; None: there is none."""
        ...

    def load(self, pointer: Pointer, folder: Path) -> None:
        """Fetch one into a new folder. Raises StoreDamaged; Outdated: ask for the newest again."""
        ...


Open = Callable[[Callable[[Segments], ReplicatedLog]], LmdbStore]
"""Opens the store in the folder, with this log in front of its segments."""


def opened(
    folder: Path,
    label: Label,
    replicated: Callable[[Segments], ReplicatedLog],
    snapshots: Snapshots,
    open: Open,
    say: Say,
) -> LmdbStore:
    """Open the store in a folder, or what the cluster has in its place.

    Args:
        label: what the store's label says, apart from the store's own name.

    Raises LogDamaged: also when the log ends before what this host knows that it has acknowledged;
    StoreDamaged, StoreLocked; SkerryError: another app's store is there.
    """
    why = unfit(folder, label)
    if not why:
        try:
            return _reaching(lambda: open(replicated), folder)
        except LogDamaged:
            raise
        except (Astray, StoreDamaged) as error:
            why = str(error)
    if folder.exists():
        say(f"the copy in {folder} is of no use, and another is fetched from the cluster: {why}")
        _move_aside(folder)
    fetch(folder, label, snapshots, say)
    return open(replicated)


def _reaching(open: Callable[[], LmdbStore], folder: Path) -> LmdbStore:
    """Open a store whose log reaches as far as the copy here. Raises LogDamaged: it goes on ending before."""
    tries = 1
    while True:
        try:
            return open()
        except Behind as behind:
            if tries == BEHIND_MAX:
                raise LogDamaged(
                    f"{behind}: its servers have lost messages. Bring back a server that has them, or "
                    f"restore the app's last backup. To go on without them, stop this host and remove "
                    f"{folder}. Nothing was changed."
                ) from behind
        tries += 1
        time.sleep(BEHIND_S)


def unfit(folder: Path, label: Label) -> str:
    """Return why the store in a folder can't be the shard's; empty: it may be.

    Raises SkerryError: it is another app's.
    """
    if not folder.exists():
        return "it is missing"
    try:
        found = labels.read(folder)
    except StoreDamaged as damage:
        return str(damage)
    if found.directory != label.directory:
        raise SkerryError(
            f"{folder} is a store of the app {found.app!r} in another cluster or data directory. "
            f"Choose another folder with --data."
        )
    if (found.incarnation, found.shard) != (label.incarnation, label.shard):
        return f"it is of shard {found.shard} in incarnation {found.incarnation}"
    return ""


def fetch(folder: Path, label: Label, snapshots: Snapshots, say: Say) -> None:
    """Make the store in a folder from the newest snapshot that can be read; without any, empty.

    Raises StoreDamaged: no snapshot can be read; Away.
    """
    meanwhile = folder.with_name(folder.name + MEANWHILE)
    shutil.rmtree(meanwhile, ignore_errors=True)
    if _load(meanwhile, snapshots, say):
        name = labels.read(meanwhile).store  # Which its tree has, too.
        labels.write(meanwhile, replace(label, store=name))
    else:
        LmdbStore.create(meanwhile, shard=label.shard, label=label)
    meanwhile.rename(folder)


def _load(folder: Path, snapshots: Snapshots, say: Say) -> bool:
    """Load the newest of the two snapshots that is whole; return whether there are any."""
    while (newest := snapshots.newest()) is not None:
        try:
            snapshots.load(newest, folder)
        except Outdated:
            continue
        except StoreDamaged as damage:
            before = snapshots.before()
            if before is None:
                raise
            say(f"the snapshot before the newest is loaded: {damage}")
            try:
                snapshots.load(before, folder)  # The log has what follows this one, too.
            except Outdated:
                continue  # A newer one came meanwhile.
        return True
    return False


def _move_aside(folder: Path) -> None:
    aside = folder.with_name(folder.name + ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
