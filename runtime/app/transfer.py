"""Takes an app into a cluster, from a backup: its data there are the backup's.

    the cluster does not have the app -> a data directory from the backup
        -> for each shard: an empty commit, a log that begins with it, a snapshot up to it
        -> the description, which makes them members

A log can't be empty while its shard has rows, for then a log that was lost would look like a new one. So
each begins with a commit that follows those of the backup. The description is last: before that, whoever
looks finds no app, and what was made is removed when anything fails.

Does file I/O, and network I/O. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app import directory
from skerry.runtime.app.backup import restore
from skerry.runtime.app.membership import folder_of
from skerry.runtime.cluster import joining, names
from skerry.runtime.cluster.bucket import Bucket, Overtaken
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.log import NewLog
from skerry.runtime.cluster.presence import DESCRIPTION
from skerry.runtime.cluster.snapshots import Snapshots
from skerry.runtime.cluster.stream import JetStream
from skerry.runtime.core.commit import Chain
from skerry.runtime.description import Description
from skerry.runtime.printable import Say
from skerry.runtime.store import sealed_file
from skerry.runtime.store.store import LmdbStore

LOOK_S = 0.01
"""How often to look whether a commit is durable."""


def restore_into(servers: list[str], backup: Path, data: Path, say: Say) -> Description:
    """Make an app in a cluster, and the new data directory `data` of a host of it, from a backup.

    Raises SkerryError: the cluster has the app, there is no backup, or the folder is not new;
    StoreDamaged; Unavailable: no servers answer.
    """
    known = directory.load(backup)
    if known is None or known.backup is None:
        raise SkerryError(f"{backup} is no backup: `skerry backup DIR` makes one.")
    engine = Engine(servers, name=f"skerry restore {known.app}")
    try:
        replicas = joining.reach(engine, say, lambda: False)
        bucket = joining.bucket(engine, known.app, replicas, say, lambda: False)
        revision = _vacant(engine, bucket, known.app)
        app = restore(backup, data, say, cluster=names.of_app(known.app))
        try:
            for shard in app.placement.members:
                say(f"sending shard {shard} …")
                _send(engine, app, shard, data, replicas)
        except BaseException:
            _undo(engine, app, data, replicas)
            raise
        if not _described(bucket, app, revision):
            _undo(engine, app, data, replicas)
            raise SkerryError(f"{_there(engine, known.app)} Nothing was restored.")
        first = app.placement.members[0]
        Snapshots(engine, app.app, app.incarnation, first, replicas).remove_earlier()
    finally:
        engine.close()
    return app


def _described(bucket: Bucket, app: Description, revision: int) -> bool:
    """Write the description; tell whether it is this one that the cluster has. Raises Unavailable: that
    is not known, so what was made stays: hosts may run on it."""
    try:
        bucket.change(DESCRIPTION, sealed_file.encoded(app, indent=1), revision).finish()
        return True
    except Overtaken:
        # By a host that has found it already, perhaps, while our answer was lost.
        there = bucket.get(DESCRIPTION).value
        place = f"The key {DESCRIPTION} of the bucket {bucket.name} in NATS"
        return there is not None and (
            directory.decoded(there, place, "Remove it there.").incarnation == app.incarnation
        )
    except Away as away:
        raise Unavailable(
            f"{away} Whether the app {app.app!r} was restored is not known. When NATS is back, "
            f"`skerry run --cluster` runs it if it was; else `skerry restore` says what to remove."
        ) from away


def _vacant(engine: Engine, bucket: Bucket, app: str) -> int:
    """Return the revision of the description that is to be. Raises SkerryError: there is one."""
    found = bucket.get(DESCRIPTION)
    if found.value is not None:
        raise SkerryError(
            f"{_there(engine, app)} Stop its hosts and remove it there, with `nats stream rm` for the "
            f"streams KV_{bucket.name} and {bucket.name}-*, or choose another cluster. Nothing was written."
        )
    if left := joining.logs(engine, app):
        raise SkerryError(
            f"NATS at {', '.join(engine.servers)} has logs of the app {app!r}, but no description of it: "
            f"{', '.join(left)}. Remove them with `nats stream rm`. Nothing was written."
        )
    return found.revision


def _there(engine: Engine, app: str) -> str:
    return f"The cluster of {', '.join(engine.servers)} has the app {app!r} already."


def _send(engine: Engine, app: Description, shard: int, data: Path, replicas: int) -> None:
    """Make the log and the first snapshot of a shard."""
    log = JetStream(engine, names.log_of(app.app, app.incarnation, shard))
    log.create(replicas=replicas)
    folder = folder_of(data, shard)
    copy = folder.with_name(f"{folder.name}.copy")
    store = LmdbStore.open(folder, shard=shard, replicate=lambda segments: NewLog(segments, log))
    try:
        last = store.last
        commit = Chain(last.epoch, last.no, last.checksum).seal(time.time_ns(), [], [])
        store.append(commit)
        while store.durable() < commit.no:
            time.sleep(LOOK_S)
        copied = store.copy_now(copy)()
        snapshots = Snapshots(engine, app.app, app.incarnation, shard, replicas)
        snapshots.save(copy, commit=copied.commit, sequence=1)
    finally:
        store.close()
        shutil.rmtree(copy, ignore_errors=True)


def _undo(engine: Engine, app: Description, data: Path, replicas: int) -> None:
    """Remove what was made, as far as NATS can be reached."""
    with suppress(SkerryError):
        for shard in app.placement.members:
            JetStream(engine, names.log_of(app.app, app.incarnation, shard)).delete()
            Snapshots(engine, app.app, app.incarnation, shard, replicas).remove()
    shutil.rmtree(data, ignore_errors=True)
