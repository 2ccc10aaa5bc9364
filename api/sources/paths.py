"""Paths of source files: what patterns find, and the names that files have as partitions.

A file is one partition, named by its real path, however it was spelled or linked. Does I/O.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import urllib.parse
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from skerry.errors import SkerryError
from skerry.sources import packed


def check_paths(paths: Iterable[object], what: str) -> list[str]:
    """Return paths and patterns as text.

    Args:
        paths: what a program gave.
        what: who takes them, for error messages.

    Raises:
        TypeError: one is no path.
        ValueError: there is none, one is empty, or holds a NUL.
    """
    given = list(paths)
    if not given:
        raise ValueError(f"{what} takes one path at least, or a pattern such as 'corpus/**/*.txt'")
    for path in given:
        if not isinstance(path, str | os.PathLike):
            raise TypeError(
                f"{what} takes paths, or patterns such as 'logs/*.txt', not {path!r:.80}"
            )
    found = [os.fsdecode(path) for path in given if isinstance(path, str | os.PathLike)]
    for text in found:
        if not text or "\0" in text:
            raise ValueError(f"{what}: {text!r:.80} is no path and no pattern")
    return found


def name_of(path: str) -> str:
    """Return a path as a partition's name: what is no printable UTF-8 in it is written as %ff."""
    text = os.fsencode(path).decode("utf-8", "surrogateescape")
    return re.sub(r"[%\x00-\x1f\x7f\udc80-\udcff]", _escaped, text)


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode("utf-8", "surrogateescape"))


def path_of(name: str) -> str:
    """Return the path that a partition's name was made of."""
    return os.fsdecode(urllib.parse.unquote_to_bytes(name))


def find(paths: Iterable[str], folder: str) -> list[str]:
    """Return the names of files as partitions, sorted, each file once.

    Args:
        paths: paths, or patterns where no such file exists.
        folder: the folder that relative ones are relative to.

    Raises:
        SkerryError: a path finds nothing that can be read.
    """
    real, first = _RealPaths(), dict[object, Path]()
    for given in paths:
        try:
            for path in map(real.path, _matching(given, folder)):
                status = path.stat()
                # Some network disks number no files: ask for that only where there are links.
                linked = status.st_nlink > 1
                file = (status.st_dev, status.st_ino) if linked else path
                first[file] = min(path, first.get(file, path))
        except OSError as error:
            raise lost(given, error) from error
    return sorted(name_of(str(path)) for path in first.values())


def _matching(path: str, folder: str) -> list[Path]:
    whole = Path(folder, path)
    if whole.is_file():
        return [whole]
    # Only the user's part is a pattern: the folder that it is relative to may have brackets.
    pattern = str(Path(glob.escape(folder), path))
    files = [Path(file) for file in glob.glob(pattern, recursive=True) if Path(file).is_file()]
    if files:
        return files
    if whole.is_dir():
        raise SkerryError(f"{path} is a folder: name its files, as {Path(path, '*')}.")
    if whole.exists():
        raise SkerryError(f"{path} is no regular file: it could not be read again after a crash.")
    raise SkerryError(
        f"There is no file {path}: look at the path, or at the folder that the app was "
        f"started in ({folder})."
    )


class _RealPaths:
    """Resolves each folder once: of thousands of files most lie in a few folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, Path] = {}

    def path(self, path: Path) -> Path:
        """Return the absolute path without any link in it."""
        if path.is_symlink() or path.name == "..":
            return path.resolve()
        folder = path.parent
        if folder not in self._folders:
            self._folders[folder] = folder.resolve()
        return self._folders[folder] / path.name


def size_of(name: str) -> int | None:
    """Return a file's size in bytes; None if it is packed, since only reading it tells."""
    try:
        with opened(name) as file:
            head = file.read(packed.HEAD_BYTES)
            return None if packed.packing(name, head) else os.fstat(file.fileno()).st_size
    except OSError as error:
        raise lost(name, error) from error


def opened(name: str) -> IO[bytes]:
    """Open a file by its partition's name. Raises OSError: also for a pipe, which would block."""
    file = open(
        path_of(name), "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)
    )
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError("it is no regular file any more")
    return file


def lost(name: str, error: Exception) -> SkerryError:
    """Make the error of a file that can't be read."""
    return SkerryError(
        f"{name} can't be read: {error}. Its lines so far are counted; bring it back, or start "
        f"the app without it."
    )
