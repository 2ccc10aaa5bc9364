"""What an app's data directory says of it: the app, its placement, and who runs it now.

    app.json    the app's identity and placement; written anew as a whole, synced, renamed
    run.json    while it runs: the supervisor, the folder of its sockets, its shards
    lock        held by the supervisor that runs it

Does file I/O and decides nothing. Idea: docs/log.md.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged, StoreLocked, Unavailable
from skerry.runtime.private import IN_DATA, trusted
from skerry.runtime.shard.events import SLOTS, Placement
from skerry.runtime.shard.placement import balanced
from skerry.runtime.store.files import has_commits
from skerry.runtime.store.log import LmdbStore
from skerry.runtime.store.segments import sync_path

FORMAT = 1
PROBED_S = 0.5
"""How long a lock may be held by others who only look whether it is."""


class Backup(Struct, kw_only=True):
    """What a backup says of itself."""

    time_s: float
    """When it was begun, seconds since 1970."""
    cut: int = 0
    """Its number; 0: the app was stopped."""
    commits: dict[int, int]
    """The newest commit of each shard."""


class AppFile(Struct):
    """app.json."""

    format: int
    app: str
    target: str
    incarnation: str
    placement: Placement
    sync: str
    boot_id: str
    """The boot in which the app last ran; tells `--sync off` that the power failed since."""
    clean: bool = False
    renamed: dict[str, str] = {}
    """Entity types that are stored under an earlier name: name, earlier name."""
    life: str = ""
    """Tells what comes out at sinks since a restore from what came out before: see docs/sinks.md."""
    backup: Backup | None = None
    """What this is a backup of; None for an app that can run."""


class Running(Struct):
    """run.json."""

    pid: int
    app: str
    sockets: str
    """Their folder: its bytes as UTF-8, whatever the locale."""
    shards: list[int]
    secret: str = ""
    """Proves to clients and doors that they are of this app: see `gateway/knock.py`."""


def sockets_of(running: Running) -> Path:
    """The folder of an app's sockets."""
    return Path(os.fsdecode(running.sockets.encode()))


def boot_id() -> str:
    """The kernel's name for this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def write_durably(path: Path, data: bytes) -> None:
    """The file has its old content or its new one, whenever the power fails."""
    fresh = path.with_suffix(".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, data)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.rename(path)
    sync_path(path.parent)


def save(data: Path, app: AppFile) -> None:
    """Write app.json."""
    write_durably(data / "app.json", msgspec.json.format(msgspec.json.encode(app), indent=1))


def load(data: Path) -> AppFile | None:
    """Read app.json; None when there is no app in this folder. Raises StoreDamaged."""
    path = data / "app.json"
    try:
        app = msgspec.json.decode(path.read_bytes(), type=AppFile)
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise StoreDamaged(
            f"{path} does not read as an app's description: {error}. Restore the app's last backup."
        ) from error
    if app.format != FORMAT:
        raise StoreDamaged(
            f"{path} has format {app.format}; this skerry reads {FORMAT}. Install the release that "
            f"wrote it, or a newer one."
        )
    if len(app.placement.slots) != SLOTS:
        raise StoreDamaged(f"{path} places {len(app.placement.slots)} slots, not {SLOTS}.")
    return app


def create(data: Path, *, app: str, workers: int) -> AppFile:
    """A new app: its stores first, then app.json, which makes them members."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    foreign = [
        entry.name for entry in data.iterdir() if entry.name not in {"lock", "logs", IN_DATA}
    ]
    foreign = [name for name in foreign if not name.startswith("shard-")]
    if foreign:
        raise SkerryError(
            f"{data} holds {foreign[0]!r} and no app.json: it is no data directory of skerry. "
            f"Choose an empty or new folder with --data."
        )
    for folder in data.glob("shard-*"):
        if has_commits(folder):
            raise StoreDamaged(
                f"{data} holds the store {folder.name} and no app.json, which says what it is a part "
                f"of. Restore app.json, or the app's last backup; or choose another folder with --data."
            )
        discard(folder)  # Of a first start that did not come to its end.
    members = list(range(workers))
    for shard in members:
        LmdbStore.create(data / f"shard-{shard}", shard=shard)
    made = AppFile(
        FORMAT,
        app,
        "",
        os.urandom(16).hex(),
        balanced(members, version=1, next_id=workers),
        "commit",
        boot_id(),
    )
    save(data, made)
    return made


def begin_anew(app: AppFile) -> None:
    """The data goes on from an earlier moment: nothing may take its numbers for the old ones."""
    app.incarnation = os.urandom(16).hex()
    app.life = app.incarnation[:8]


def discard_strangers(data: Path, app: AppFile) -> None:
    """Throw away stores that are not of members: of a change that did not finish, or did."""
    members = {f"shard-{shard}" for shard in app.placement.members}
    for folder in data.glob("shard-*"):
        if folder.name not in members:
            discard(folder)


def discard(folder: Path) -> None:
    """A store without a member."""
    if folder.is_dir():
        for entry in folder.iterdir():
            entry.unlink()
        folder.rmdir()


def _held(fd: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def lock(data: Path, app: str) -> int:
    """The data directory is ours. Raises StoreLocked."""
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PROBED_S
    while not _held(fd):
        if time.monotonic() < deadline:
            time.sleep(0.01)
            continue
        owner = os.pread(fd, 20, 0).decode().strip()
        os.close(fd)
        raise StoreLocked(data, int(owner) if owner.isdigit() else 0)
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def is_running(data: Path) -> bool:
    """Whether a supervisor holds this data directory now."""
    try:
        fd = os.open(data / "lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(fd)
    return False


def last_running(data: Path) -> Running | None:
    """Who runs this app, or ran it last and was killed; None: nobody says so."""
    try:
        return msgspec.json.decode((data / "run.json").read_bytes(), type=Running)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def running_app(data: Path) -> Running:
    """Who runs this app. Raises Unavailable."""
    if is_running(data) and (running := last_running(data)) is not None:
        trusted(data, data / "run.json")
        return running
    raise Unavailable(f"No app runs in {data}. Start it with `skerry run TARGET --data {data}`.")


def may_have_lost(app: AppFile) -> bool:
    """Whether the machine went down while the app ran with `--sync off` (trace 26)."""
    return app.sync == "off" and not app.clean and app.boot_id != boot_id()


def stored_name(data: Path, type_name: str) -> str:
    """The name that the stores know an entity type by."""
    app = load(data)
    return type_name if app is None else app.renamed.get(type_name, type_name)


def find_data(data: str | Path | None) -> Path:
    """The data directory that is meant. Raises Unavailable when none or several could be."""
    if data is not None:
        path = Path(data)
        if not (path / "app.json").is_file():
            raise Unavailable(
                f"There is no app in {path}. Start one with `skerry run TARGET --data {path}`."
            )
        return path
    apps = sorted(Path(".skerry").glob("*/app.json"))
    if len(apps) == 1:
        return apps[0].parent
    if not apps:
        raise Unavailable(
            "There is no app in ./.skerry. Start one with `skerry run TARGET`, or name a data "
            "directory with --data."
        )
    names = ", ".join(str(path.parent) for path in apps)
    raise Unavailable(f"There are several apps in ./.skerry: {names}. Name one with --data.")
