"""Keeps an app's folders private: its data, its logs and its sockets.

Another user who can write there can take the app's place: lead clients to another listener, or a
start to another description. So our own folders lose the permissions of others, folders of
somebody else are refused, and clients check the owner of a file before they believe it.

The sockets live in the data directory if its path is short enough for a socket, else in a folder
whose name nobody can guess, so that nobody can be there first. Idea: docs/ideas/clients.md.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.causes import explained
from skerry.runtime.printable import Say

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH

PATH_BYTES_MAX = 107
"""Length of a socket's path: the system has room for no more."""

NAME_BYTES_MAX = len("/door-") + 10
"""Length of a socket's name in its folder, with the ids of shards that were replaced for years."""

IN_DATA = "sockets"
ELSEWHERE = "skerry-"
"""Name of the folder in the data directory; how its name begins elsewhere."""


def narrow(folder: Path, say: Say) -> None:
    """Let only this user write to a folder. Raises SkerryError: it belongs to somebody else."""
    found, me = folder.stat(), os.geteuid()
    if found.st_uid not in {me, 0} and me != 0:
        raise SkerryError(
            f"{folder} belongs to {_user(found.st_uid)}, who could change what {_user(me)} runs "
            f"there. Choose a folder of your own, or run the app as {_user(found.st_uid)}."
        )
    if not found.st_mode & OTHERS_MAY_WRITE:
        return
    with contextlib.suppress(PermissionError):
        folder.chmod(0o700)
    left = folder.stat().st_mode
    if left & stat.S_IWOTH:
        raise SkerryError(
            f"Everybody can write to {folder} (mode {left & 0o7777:04o}), and so change what runs "
            f"there. It can't be narrowed by {_user(me)}: choose a folder in it that is yours alone."
        )
    if not left & OTHERS_MAY_WRITE:
        say(f"others could write to {folder} (mode {found.st_mode & 0o7777:04o}): now it is 0700")


def trusted(data: Path, said: Path) -> frozenset[int]:
    """The users whose files count for an app: the owners of its data directory and of a file there.

    Raises Unavailable: that file was made by somebody who could merely write there.
    """
    folder, file = data.stat(), said.stat()
    owners = frozenset({0, os.geteuid(), folder.st_uid})
    if file.st_uid not in owners and folder.st_mode & OTHERS_MAY_WRITE:
        raise Unavailable(
            f"{said} belongs to {_user(file.st_uid)}, and {data} to {_user(folder.st_uid)}: somebody "
            f"else has put it there, and it is not believed. `chmod 700 {data}`, remove that file, "
            f"and start the app again."
        )
    return owners | {file.st_uid}


def doubt(folder: Path, owners: frozenset[int]) -> str:
    """The reason why the sockets in a folder may not be the app's own; empty: they are."""
    try:
        found = folder.lstat()
    except OSError:
        return ""  # No folder is no reason for doubt.
    if stat.S_ISDIR(found.st_mode) and found.st_uid in owners:
        if not found.st_mode & OTHERS_MAY_WRITE:
            return ""
        return f"others can write to {folder}, where its sockets are (mode {found.st_mode & 0o7777:04o})"
    return f"{folder}, where its sockets should be, belongs to {_user(found.st_uid)}"


def doubt_of(user: int, folder: Path, owners: frozenset[int]) -> str:
    """The reason why a socket in a folder, on which this user listens, may not be the app's own."""
    if user not in owners:
        return f"a process of user {user} has taken the place of its socket in {folder}"
    return doubt(folder, owners)


def _user(id: int) -> str:
    try:
        return f"user {pwd.getpwuid(id).pw_name}"
    except KeyError:
        return f"user {id}"


class SocketsFolder:
    """A new, private folder for an app's sockets. Raises SkerryError: no place is fit for one."""

    def __init__(self, data: Path) -> None:
        refused = []
        for place, make in _places(data.resolve()):
            size = len(os.fsencode(place)) + NAME_BYTES_MAX
            if size > PATH_BYTES_MAX:
                refused.append(f"{place}: a socket's path would have {size} bytes")
                continue
            try:
                self.path = make(place)
            except OSError as error:
                refused.append(explained(error).rstrip("."))
                continue
            try:
                _try(self.path)
            except OSError as error:
                refused.append(
                    f"{place}: no sockets can be made there, {explained(error)}".rstrip(".")
                )
                shutil.rmtree(self.path, ignore_errors=True)
                continue
            self._made = self.path.lstat()
            return
        raise SkerryError(
            f"There is no place for the app's sockets, whose paths may have {PATH_BYTES_MAX} bytes. "
            f"{'. '.join(refused)}. Set XDG_RUNTIME_DIR to a folder of your own with a short path, or "
            f"choose a data directory with a shorter one."
        )

    def stands(self) -> bool:
        """Whether the same folder is still there."""
        try:
            return os.path.samestat(self._made, self.path.lstat())
        except OSError:
            return False

    def remove(self) -> None:
        """Remove the folder, unless something else is in its place."""
        if self.stands():
            shutil.rmtree(self.path, ignore_errors=True)


def remove_left(folder: Path) -> None:
    """Remove the sockets' folder that an app that was killed left outside its data directory."""
    with contextlib.suppress(OSError):
        ours = stat.S_ISDIR(folder.lstat().st_mode) and folder.lstat().st_uid == os.geteuid()
        if ours and folder.name.startswith(ELSEWHERE):
            shutil.rmtree(folder, ignore_errors=True)


def _places(data: Path) -> Iterator[tuple[Path, Callable[[Path], Path]]]:
    """(folder, function that makes it), best first."""
    yield data / IN_DATA, _made_in_data
    with contextlib.suppress(UnicodeEncodeError):
        if given := os.environ.get("XDG_RUNTIME_DIR"):
            yield Path(given) / f"{ELSEWHERE}12345678", _made_elsewhere
        with contextlib.suppress(FileNotFoundError):
            yield Path(tempfile.gettempdir()) / f"{ELSEWHERE}12345678", _made_elsewhere
    yield Path("/tmp") / f"{ELSEWHERE}12345678", _made_elsewhere


def _made_in_data(folder: Path) -> Path:
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    return folder


def _made_elsewhere(example: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=ELSEWHERE, dir=example.parent))


def _try(folder: Path) -> None:
    """Make a socket there, as a test. Raises OSError."""
    path = folder / "try"
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))
    path.unlink()
