"""Backs a whole app up as of one moment, and restores apps from backups.

    no slot moves -> every shard's epoch -> a snapshot marker everywhere, copies
        -> the same epochs and the same placement still -> app.json

The marker makes the copies fit together (`core/streams/cuts.py`). Here a backup is begun and judged.
No slot moves while it lasts, so that all copies are of one version of the placement. If a shard was
restarted meanwhile, the backup is thrown away: the shard may have forgotten the marker, and told
others what happened behind it. A backup is a data directory whose description
says that it is one: it can be read and checked, but not run. It is restored under a new
incarnation, so that remains of the old app can't talk to the new one and clients begin anew.

Does file I/O. Idea: docs/ideas/backup.md.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.app import directory, membership
from skerry.runtime.app.control import Line
from skerry.runtime.app.scaler import Held
from skerry.runtime.client.connection import Connection
from skerry.runtime.description import Backup, Description, boot_id
from skerry.runtime.printable import Say
from skerry.runtime.store import label
from skerry.runtime.store.disk import sync_path
from skerry.runtime.store.environment import TREE
from skerry.runtime.store.segment import NAMES
from skerry.runtime.store.store import LmdbStore

COPY_S = 24 * 3600.0
"""How long the copying of one shard may take."""

LOOK_S = 1.0
"""How often to look whether the app still runs while its shards are copied."""

SETTLED_S = 0.1
"""How often to look whether slots are still on their way."""

GRACE_S = 5.0
"""How long the other shards may go on copying when one has failed, before the folder is removed."""


class Made(Struct):
    """A finished backup."""

    backup: str
    shards: int
    bytes: int
    commits: dict[int, int]
    seconds: float


class _Copies(Struct):
    """The copies of all shards."""

    app: Description
    """The app as it was while it was copied."""
    marker: int
    """The number of the snapshot marker; 0: the app was stopped."""
    of: dict[int, tuple[int, int]]
    """(newest commit, bytes) by shard."""


def back_up(data: Path, target: Path, say: Say) -> Made:
    """Back up the app in `data`, running or stopped, to the new folder `target`.

    Raises SkerryError: the folder is not new, or a shard failed; StoreDamaged: a copy is damaged.
    """
    started = time.time()
    app = directory.load(data)
    assert app is not None, "callers have looked for the app"
    if app.backup is not None:
        raise SkerryError(f"{data} is a backup, and no app. Copy it like any folder: `cp -r`.")
    _refuse_used(target)
    partial = _begun(target)
    try:
        if directory.is_running(data):
            copies = asyncio.run(_of_running(data, partial, say))
        else:
            copies = _of_stopped(data, app, partial, say)
        for shard, damage in _damages(partial, copies.app, say):
            raise StoreDamaged(
                f"No backup was made: the copy of {data / f'shard-{shard}'} is damaged. {damage} "
                f"Stop the app and run `skerry check {data}`, which says whether the store is, too."
            )
        commits = {shard: commit for shard, (commit, _) in copies.of.items()}
        # A change of the number of shards that is under way ends with the app that makes it.
        copies.app.goal = []
        copies.app.backup = Backup(time_s=started, marker=copies.marker, commits=commits)
        _finish(partial, target, copies.app)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    size = sum(size for _, size in copies.of.values())
    return Made(str(target), len(copies.of), size, commits, time.time() - started)


def restore(backup: Path, data: Path, say: Say, *, cluster: str = "") -> Description:
    """Make the new data directory `data` from a backup.

    `cluster`: the app's name in the cluster that it will be in; empty: it is one machine's.

    Raises SkerryError: there is no backup, or the folder is not new; StoreDamaged.
    """
    app = directory.load(backup)
    if app is None or app.backup is None:
        raise SkerryError(f"{backup} is no backup: `skerry backup DIR` makes one.")
    _refuse_used(data)
    partial = _begun(data)
    try:
        for shard in app.placement.members:
            say(f"copying shard {shard} …")
            _copy_store(backup, partial, f"shard-{shard}")
        for _, damage in _damages(partial, app, say):
            raise StoreDamaged(
                f"The backup {backup} is damaged, and nothing was restored. "
                f"{damage.replace(str(partial), str(backup))} Take another backup."
            )
        app.backup, app.cluster, app.directory = None, cluster, os.urandom(16).hex()
        app.homes, app.guests, app.tenants = {}, [], {}
        app.begin_anew()
        app.boot_id, app.clean = boot_id(), True
        membership.adopt(partial, app)
        _finish(partial, data, app)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return app


def _copy_store(backup: Path, partial: Path, name: str) -> None:
    copy = partial / name
    copy.mkdir(mode=0o700)
    files = [backup / name / TREE, backup / name / label.NAME, *(backup / name).glob(NAMES)]
    for file in files:
        try:
            shutil.copyfile(file, copy / file.name)
        except FileNotFoundError as error:
            raise StoreDamaged(
                f"The backup {backup} is incomplete: it has no {name}/{file.name}. Nothing was "
                f"restored; copy the whole backup to here, or take another."
            ) from error
        (copy / file.name).chmod(0o600)
        sync_path(copy / file.name)
    sync_path(copy)


def _refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SkerryError(f"{folder} is there already. Choose a new folder; nothing was written.")


def _begun(target: Path) -> Path:
    """Make a private folder beside the target; its name says that the backup is incomplete."""
    whole = target.resolve()
    partial = whole.with_name(f"{whole.name}.partial")
    try:
        partial.mkdir(mode=0o700, parents=True)
    except FileExistsError as error:
        raise SkerryError(
            f"{partial} is there already: of one that is under way, or was killed. Remove it if "
            f"nobody writes to it, or choose another folder; nothing was written."
        ) from error
    return partial


def _finish(partial: Path, target: Path, app: Description) -> None:
    """Write the description, then give the folder its name; each is durable before the next."""
    directory.save(partial, app)
    partial.rename(target)
    sync_path(target.resolve().parent)


def _damages(folder: Path, app: Description, say: Say) -> Iterator[tuple[int, str]]:
    """Yield (shard, sentence) for each damage in the copies."""
    for shard, damage in membership.disagreements(folder, app):
        yield shard, damage
    for shard in app.placement.members:
        say(f"verifying shard {shard} …")
        for damage in membership.damages(folder, app, shard):
            yield shard, damage


def _of_stopped(data: Path, app: Description, partial: Path, say: Say) -> _Copies:
    """Copy the stores of a stopped app, which nobody can run meanwhile."""
    lock = directory.lock(data)
    copies = {}
    try:
        # The app may have run since the last look, with other shards.
        app = membership.described(data)
        if app.may_have_lost:
            # A backup would carry the torn shards on under a new name.
            raise SkerryError(
                f"{data} ran with --sync off when the machine went down: its last commits may be "
                f"lost, and its shards no longer agree. Run it with --accept-loss, then back it up."
            )
        for shard in app.placement.members:
            say(f"copying shard {shard} …")
            store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
            try:
                store.keep(1)
                copied = store.copy_kept(1, partial / f"shard-{shard}")()
            finally:
                store.close()
            copies[shard] = (copied.commit, copied.size)
    finally:
        os.close(lock)
    return _Copies(app, 0, copies)


async def _of_running(data: Path, partial: Path, say: Say) -> _Copies:
    """Copy the stores of a running app, by a snapshot marker.

    Raises SkerryError: a shard was restarted, or slots have moved all the same.
    """
    connection = await Connection.open(data)
    try:
        version = await _held(data, say)
        app = directory.load(data)
        assert app is not None, "an app that runs describes itself"
        members = app.placement.members
        before = await _looks(connection, members)
        # Greater than any marker before, even when the clock was set back or never was right.
        no = max(time.time_ns(), 1 + max(marker for _, marker in before.values()))

        async def copy(shard: int) -> tuple[int, int, int]:
            say(f"copying shard {shard} …")
            folder = partial / f"shard-{shard}"
            epoch, commit, size = await connection.control(
                shard, "backup", no, str(folder), timeout_s=COPY_S
            )
            return epoch, commit, size

        copying = {shard: asyncio.ensure_future(copy(shard)) for shard in members}
        failed = await _copied(data, list(copying.values()))
        if app.placement.version != version or _hold(data).version != version:
            raise SkerryError(
                "No backup was made: slots have moved meanwhile, since this command was stopped for "
                "a while. Begin another."
            )
        after = await _looks(connection, members)
        for shard, one in copying.items():
            epochs = {before[shard][0], after[shard][0]}
            if one.done() and not one.cancelled() and one.exception() is None:
                epochs.add(one.result()[0])
            if len(epochs) > 1:
                raise SkerryError(
                    f"No backup was made: worker {shard} was started anew meanwhile. Begin "
                    f"another; the app's logs in {data / 'logs'} say why."
                )
        if failed is not None:
            sort = StoreDamaged if isinstance(failed, StoreDamaged) else SkerryError
            raise sort(f"No backup was made: {failed}") from failed
    finally:
        await connection.close()
    return _Copies(app, no, {shard: one.result()[1:] for shard, one in copying.items()})


async def _copied(
    data: Path, copying: Sequence[asyncio.Future[tuple[int, int, int]]]
) -> BaseException | None:
    """Wait for all copies; return what the first to fail raised. Raises SkerryError: the app ended."""
    waiting: set[asyncio.Future[tuple[int, int, int]]] = set(copying)
    try:
        while waiting:
            done, waiting = await asyncio.wait(
                waiting, timeout=LOOK_S, return_when=asyncio.FIRST_EXCEPTION
            )
            errors = [error for one in done if (error := one.exception()) is not None]
            if errors:
                if waiting:
                    await asyncio.wait(waiting, timeout=GRACE_S)
                return errors[0]
            if waiting and not directory.is_running(data):
                raise SkerryError(
                    f"No backup was made: the app in {data} ended meanwhile. Begin another: a "
                    f"stopped app can be backed up, too."
                )
            if waiting:
                _hold(data)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    return None


async def _held(data: Path, say: Say) -> int:
    """Wait until no slot is on its way, and have none begin; return the placement's version."""
    held = _hold(data)
    if not held.settled:
        say("waiting for the slots that are on their way …")
    while not held.settled:
        await asyncio.sleep(SETTLED_S)
        held = _hold(data)
    return held.version


def _hold(data: Path) -> Held:
    """Have no slot begin to move for some seconds."""
    with Line(data, directory.running_app(data), leader=True) as line:
        return msgspec.convert(line.ask("hold"), Held)


async def _looks(connection: Connection, shards: Sequence[int]) -> dict[int, tuple[int, int]]:
    """Return (epoch, newest snapshot marker) by shard."""
    answers = await asyncio.gather(*(connection.control(s, "status") for s in shards))
    return {answer["shard"]: (answer["epoch"], answer["snapshot_marker"]) for answer in answers}
