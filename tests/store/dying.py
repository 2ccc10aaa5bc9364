"""Works on a store or an app's folder, and kills itself at a named point of that work.

    python -m tests.store.dying POINT WHEN NTH FOLDER [WORK]

WORK is a function below; `write` when it is not said, which writes commits and prints each that it
was told is durable. POINT is a function of the code that touches the disk; WHEN is before or after
its NTH call. With POINT "a write" the disk refuses what goes beyond NTH KiB instead (RLIMIT_FSIZE).
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from skerry.runtime.app import backup, directory, membership, reshard
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Commit, CommitNo, StateGroup
from skerry.runtime.store import checkpoint, label
from skerry.runtime.store.checkpointer import Checkpointer
from skerry.runtime.store.committer import Committer
from skerry.runtime.store.segments import Segments
from skerry.runtime.store.store import LmdbStore

COMMITS = 120
POINTS: dict[str, tuple[Any, str]] = {
    "a write of the log": (Segments, "append"),
    "its write and its news": (Committer, "_commit"),
    "a slice of a checkpoint": (checkpoint, "write"),
    "a new segment": (Segments, "prepare_roll"),
    "the log's roll": (Segments, "roll"),
    "a new position": (Checkpointer, "_note"),
    "the log's trim": (Segments, "trim"),
    "a new store": (LmdbStore, "create"),
    "a file's rename": (os, "rename"),
    "a file's sync": (os, "fsync"),
    "a description of the app": (directory, "save"),
    "a store's label": (label, "write"),
    "old stores marked": (membership, "dealt_out"),
    "a store thrown away": (membership, "_remove"),
    "a file's removal": (Path, "unlink"),
}


def changes(no: int) -> dict[str, bytes | None]:
    """What commit `no` writes and deletes."""
    changed: dict[str, bytes | None] = {f"k{no * 7 % 23}": msgspec.msgpack.encode(f"v{no}" * 20)}
    if no % 5 == 0:
        changed[f"k{no * 3 % 23}"] = None
    return changed


def model(upto: int) -> dict[str, bytes]:
    """The states after so many commits."""
    states: dict[str, bytes] = {}
    for no in range(1, upto + 1):
        for key, value in changes(no).items():
            states.pop(key, None)
            if value is not None:
                states[key] = value
    return states


def die_at(point: str, when: str, nth: int) -> None:
    """Plant the death."""
    owner, name = POINTS[point]
    function, left = getattr(owner, name), nth

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        left -= 1
        now = left == 0
        if now and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **kwargs)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    wrapped: Callable[..., Any] = functools.wraps(function)(counted)
    setattr(owner, name, wrapped)


def write(path: Path) -> None:
    """Commits, with checkpoints all the time; says what is durable."""
    if not (path / "data.mdb").exists():
        LmdbStore.create(path, shard=1)
    store = LmdbStore.open(path, shard=1, log_bytes=1)
    checksum = store.last.checksum
    for no in range(store.last.no + 1, COMMITS + 1):
        changed = changes(no)
        states = [StateGroup.of("Thing", changed.items())]
        record = records.encode(no, 1, no, checksum, states, [])
        checksum = records.checksum_of(record)
        store.append(Commit(CommitNo(no), record, states, []))
        while store.durable() < no:
            os.sched_yield()
        print(no, flush=True)
    store.close()


def move(folder: Path) -> None:
    """The app in this folder, on one shard more."""
    app = membership.described(folder)
    assert membership.clear(folder, app) == []
    reshard.reshard(folder, app, len(app.placement.members) + 1)


def begin(folder: Path) -> None:
    """A new app in this folder, unless there is one."""
    if directory.load(folder) is None:
        membership.create(folder, app="dying", workers=2)


def start(folder: Path) -> None:
    """What a start writes, before it starts workers."""
    app = membership.described(folder)
    app.clean = False
    membership.enlist(folder, app)


def restore(folder: Path) -> None:
    """An app from the backup beside this folder."""
    backup.restore(folder.with_name("backup"), folder, lambda line: None)


if __name__ == "__main__":
    if sys.argv[1] == "a write":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]) << 10, resource.RLIM_INFINITY))
    else:
        die_at(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    work = sys.argv[5] if len(sys.argv) > 5 else "write"
    {"write": write, "move": move, "begin": begin, "start": start, "restore": restore}[work](
        Path(sys.argv[4])
    )
