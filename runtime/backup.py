"""Backups of a whole app at one moment, and apps from backups.

    begin: every shard's epoch -> a cut everywhere, copied -> the same epochs still -> app.json, last

The cut is what makes the copies fit (`Streams.cut_at`); here it is begun, and judged: when a
shard was started anew meanwhile, it may have forgotten the cut and told others things from
behind it, so the backup is thrown away. A backup is an app's data directory with a mark, which
can be read and checked and not run. It is restored under a new incarnation: what is left of the
old app can't talk to it, and its clients begin anew.

Does file I/O. Idea: docs/backup.md.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime import placement_file
from skerry.runtime.gateway.connection import Connection
from skerry.runtime.placement_file import AppFile, Backup
from skerry.runtime.store.check import check_apart
from skerry.runtime.store.files import Environment

COPY_S = 24 * 3600.0
"""How long the copying of one shard may take."""

Say = Callable[[str], None]


class Made(Struct):
    """A finished backup."""

    backup: str
    shards: int
    bytes: int
    commits: dict[int, int]
    seconds: float


def back_up(data: Path, target: Path, say: Say) -> Made:
    """Back up the app in `data`, running or stopped, to the new folder `target`.

    Raises SkerryError: the folder is not new, or a shard failed; StoreDamaged: a copy is damaged.
    """
    started = time.time()
    app = placement_file.load(data)
    assert app is not None, "who calls has looked for the app"
    _refuse_used(target)
    partial = _begun(target)
    try:
        if placement_file.is_running(data):
            copies = asyncio.run(_of_running(data, partial, say))
        else:
            copies = _of_stopped(data, app, partial, say)
        _verify(partial, app, say)
        commits = {shard: commit for shard, (commit, _) in copies.items()}
        app.backup = Backup(time_s=started, commits=commits)
        placement_file.save(partial, app)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    size = sum(size for _, size in copies.values())
    return Made(str(target), len(copies), size, commits, time.time() - started)


def restore(backup: Path, data: Path, say: Say) -> AppFile:
    """Make the app's data directory `data`, which is new, from a backup.

    Raises SkerryError: it is no backup, or the folder is not new; StoreDamaged.
    """
    app = placement_file.load(backup)
    if app is None or app.backup is None:
        raise SkerryError(f"{backup} is no backup: `skerry backup DIR` makes one.")
    _refuse_used(data)
    partial = _begun(data)
    try:
        for shard in app.placement.members:
            say(f"copying shard {shard} …")
            name = f"shard-{shard}"
            (partial / name).mkdir(mode=0o700)
            shutil.copyfile(backup / name / "data.mdb", partial / name / "data.mdb")
            (partial / name / "data.mdb").chmod(0o600)
            _sync(partial / name / "data.mdb")
            _sync(partial / name)
        _verify(partial, app, say)
        app.backup = None
        placement_file.begin_anew(app)
        app.boot_id, app.clean = placement_file.boot_id(), True
        placement_file.save(partial, app)
        partial.rename(data)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return app


def _refuse_used(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SkerryError(f"{folder} is there already. Choose a new folder; nothing was written.")


def _begun(target: Path) -> Path:
    """A folder beside the target, of which nobody takes half for the whole."""
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    return partial


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _verify(folder: Path, app: AppFile, say: Say) -> None:
    """Every checksum of every copy."""
    for shard in app.placement.members:
        say(f"verifying shard {shard} …")
        for damage in check_apart(folder / f"shard-{shard}", shard=shard):
            raise StoreDamaged(damage)


def _of_stopped(data: Path, app: AppFile, partial: Path, say: Say) -> dict[int, tuple[int, int]]:
    """Copies of the stores of an app that nobody runs meanwhile."""
    lock = placement_file.lock(data, app.app)
    copies = {}
    try:
        for shard in app.placement.members:
            say(f"copying shard {shard} …")
            store = Environment(
                data / f"shard-{shard}", shard=shard, sync=True, quota_bytes=1 << 40
            )
            try:
                copied = store.copy(store.env.begin(), partial / f"shard-{shard}")
            finally:
                store.close()
            copies[shard] = (copied.commit, copied.size)
    finally:
        os.close(lock)
    return copies


async def _of_running(data: Path, partial: Path, say: Say) -> dict[int, tuple[int, int]]:
    """Copies by a cut, while the app goes on. Raises SkerryError when a shard was started anew."""
    connection = await Connection.open(data)
    try:
        before = await _epochs(connection)
        # Larger than any before, also of an earlier coordinator.
        no = time.time_ns()

        async def copy(shard: int) -> tuple[int, int, int]:
            folder = (partial / f"shard-{shard}").resolve()
            say(f"copying shard {shard} …")
            epoch, commit, size = await connection.control(
                shard, "backup", no, str(folder), timeout=COPY_S
            )
            return epoch, commit, size

        shards = connection.shards
        try:
            answers = await asyncio.gather(*map(copy, shards))
        except SkerryError as error:
            raise SkerryError(f"No backup was made: {error}") from error
        after = await _epochs(connection)
    finally:
        await connection.close()
    for shard, (epoch, _, _) in zip(shards, answers):
        if not before[shard] == epoch == after[shard]:
            raise SkerryError(
                f"No backup was made: worker {shard} was started anew meanwhile. Begin another; the "
                f"app's logs in {data / 'logs'} say why."
            )
    return {shard: (commit, size) for shard, (_, commit, size) in zip(shards, answers)}


async def _epochs(connection: Connection) -> dict[int, int]:
    answers = await asyncio.gather(*(connection.control(s, "status") for s in connection.shards))
    return {answer["shard"]: answer["epoch"] for answer in answers}
