"""The files that describe an app in its data directory.

    app.json    the description, behind a checksum; replaced as a whole
    run.json    while the app runs, likewise: its supervisor, and where its shards are reached
    lock        held by the supervisor

Does file I/O and decides nothing. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import msgspec
from msgspec import Struct

from skerry.errors import SkerryError, StoreDamaged, StoreLocked, Unavailable
from skerry.runtime.description import FORMAT, Description, Running
from skerry.runtime.private import trusted
from skerry.runtime.store import sealed_file

NAME, RUNNING, LOCK = "app.json", "run.json", "lock"
UNSEALED_FORMAT = 1
"""The format without a checksum."""

MEND = "Put the newest app.json back, or restore the app's last backup."
"""What to do about a damaged one."""

PROBED_S = 0.5
"""How long the lock may be held by processes that only look whether an app runs."""


class _Written(Struct):
    """The part of a description that every format has."""

    format: int


def save(data: Path, app: Description) -> None:
    """Write app.json. Raises StoreFull, SkerryError: the file could not be written, and is as it was."""
    sealed_file.write(data / NAME, sealed_file.encoded(app, indent=1))


def replace(data: Path, app: Description, *, generation: int) -> None:
    """Replace the app.json of this generation; 0: there is none yet.

    Raises SkerryError: the file is of another generation, or could not be written. It is as it was.
    """
    there = load(data)
    if (there.generation if there else 0) != generation:
        raise SkerryError(
            f"{data / NAME} was changed by somebody else: start {generation} has been, and it "
            f"describes start {there.generation if there else 0}. Nothing was written."
        )
    save(data, app)


def load(data: Path) -> Description | None:
    """Read app.json; None when there is no app in this folder. Raises StoreDamaged."""
    path = data / NAME
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    return decoded(raw, path)


def decoded(raw: bytes, place: Path | str, mend: str = MEND) -> Description:
    """Return the description in the bytes of an app.json.

    Raises StoreDamaged, which names the place of these bytes, and what mends it.
    """
    try:
        written = sealed_file.decoded(raw, _Written).format
        if written == FORMAT:
            app = sealed_file.decoded(raw, Description)
            app.check()
            return app
    except ValueError as error:
        if (written := _unsealed_format(raw)) != UNSEALED_FORMAT:
            raise StoreDamaged(
                f"{place} does not read as an app's description: {error}. Nothing was changed. {mend}"
            ) from error
    raise StoreDamaged(
        f"{place} has format {written}; this skerry reads {FORMAT}. Install the release that "
        f"wrote it, or a newer one."
    )


def _unsealed_format(raw: bytes) -> int:
    """Return the format that a description without a checksum names; 0: these bytes are none."""
    try:
        return msgspec.json.decode(raw, type=_Written).format
    except msgspec.MsgspecError:
        return 0


def _locked(fd: int) -> bool:
    """Try to take the lock; tell whether that succeeded."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def lock(data: Path) -> int:
    """Lock a data directory, which is made if need be. Raises StoreLocked: another process runs the app.

    Returns a descriptor; the lock ends when that is closed.
    """
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PROBED_S
    while not _locked(fd):
        if time.monotonic() < deadline:
            time.sleep(0.01)
            continue
        owner = os.pread(fd, 20, 0).decode(errors="replace").strip()
        os.close(fd)
        raise StoreLocked(data, int(owner) if owner.isdecimal() else 0)
    os.ftruncate(fd, 0)
    os.pwrite(fd, str(os.getpid()).encode(), 0)
    return fd


def refuse_copy(data: Path, app: Description) -> None:
    """Raises SkerryError: a data directory is a host's copy of what a cluster has."""
    if app.cluster:
        raise SkerryError(
            f"{data} is a host's copy of the app {app.app!r}, whose data are in a cluster "
            f"({app.cluster} in NATS). Start it with --cluster, and ask while it runs."
        )


def announce(data: Path, running: Running) -> None:
    """Write run.json."""
    sealed_file.write(data / RUNNING, sealed_file.encoded(running))


def withdraw(data: Path) -> None:
    """Remove run.json."""
    (data / RUNNING).unlink(missing_ok=True)


def is_running(data: Path) -> bool:
    """Tell whether a supervisor holds this data directory now."""
    try:
        fd = os.open(data / LOCK, os.O_RDWR | os.O_CLOEXEC)
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
    """Return the supervisor that runs this app, or ran it and was killed; None: run.json names none."""
    try:
        return _announced(data)
    except ValueError:
        return None


def _announced(data: Path) -> Running | None:
    """Return the contents of run.json; None: there is no such file. Raises ValueError: it is damaged."""
    try:
        return sealed_file.decoded((data / RUNNING).read_bytes(), Running)
    except FileNotFoundError:  # The app comes up, or has ended.
        return None


def running_app(data: Path) -> Running:
    """Return the supervisor that runs this app. Raises Unavailable: there is none."""
    try:
        if is_running(data) and (running := _announced(data)) is not None:
            trusted(data, data / RUNNING)
            return running
    except ValueError as error:
        raise Unavailable(
            f"{data / RUNNING}, which says where the app's sockets are, is damaged: {error}. End "
            f"the process that {data / 'lock'} names, and start the app again."
        ) from error
    raise Unavailable(f"No app runs in {data}. Start it with `skerry run TARGET --data {data}`.")


def stored_name(data: Path, type_name: str) -> str:
    """Return the name under which an entity type is stored."""
    app = load(data)
    return type_name if app is None else app.renamed.get(type_name, type_name)


def find_data(data: str | Path | None) -> Path:
    """Return the given data directory, or else the only one in ./.skerry.

    Raises Unavailable: there is none, or there are several.
    """
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
