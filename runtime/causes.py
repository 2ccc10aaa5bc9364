"""Explains an error to a person: a sentence with its cause and the next step, and an exit code.

    OSError, lmdb.Error, RecursionError ... while something starts -> one sentence
    SkerryError that ends a command or a script                    -> 1, 2, 3 or 4

An error of the system tells what was refused and not why; the limits of the process and the room
on the disk mostly do.
"""

from __future__ import annotations

import errno
import os
import resource

from skerry.errors import (
    InvalidMessage,
    SkerryError,
    StoreDamaged,
    StoreLocked,
    UnknownEntity,
    UnknownHandler,
    told,
)

PASSING = (errno.EAGAIN, errno.ENOMEM, errno.EINTR, errno.ENFILE)
"""Errors of the system that may pass in a moment."""

_ROOM = (errno.ENOSPC, errno.EDQUOT)
_RIGHTS = (errno.EACCES, errno.EPERM, errno.EROFS)


def exit_code(error: SkerryError) -> int:
    """The exit code of a program that this error ends: 1 the app failed, 2 usage, 3 a damaged store,
    4 already running."""
    match error:
        case StoreLocked():
            return 4
        case StoreDamaged():
            return 3
        case UnknownEntity() | UnknownHandler() | InvalidMessage():
            return 2
        case _:
            return 1


def passes(error: BaseException) -> bool:
    """Whether a second try may work in a moment: the machine was short of memory or processes."""
    return isinstance(error, MemoryError) or _number(error) in PASSING


def is_limit(error: BaseException) -> bool:
    """Whether a limit of this process is the cause, and no disk."""
    return _number(error) in (errno.EFBIG, errno.EMFILE, errno.ENFILE)


def _number(error: BaseException) -> int:
    """The system's number of an error, which LMDB's have in their text only."""
    number = getattr(error, "errno", None)
    if isinstance(number, int):
        return number
    known = (*PASSING, *_ROOM, *_RIGHTS, errno.EFBIG, errno.EMFILE)
    return next((each for each in known if str(error).endswith(os.strerror(each))), 0)


def explained(error: BaseException) -> str:
    """An error and the next step, as sentences."""
    step = _step(error)
    return f"{told(error)}.{' ' if step else ''}{step}"


def _step(error: BaseException) -> str:
    number = _number(error)
    if number == errno.EMFILE:
        return (
            f"This process may have {_limit(resource.RLIMIT_NOFILE)} files open: raise `ulimit -n`."
        )
    if number == errno.EFBIG:
        return (
            f"A file of this process may have {_limit(resource.RLIMIT_FSIZE)} bytes: raise "
            f"`ulimit -f`."
        )
    if number in _ROOM:
        return "Make room on that disk, and start again."
    if number in _RIGHTS:
        return f"User {os.geteuid()} may not do that there: change the owner, or run as that one."
    if number in PASSING or isinstance(error, MemoryError):
        return "The machine is short of memory or of processes: free some, and start again."
    if isinstance(error, UnicodeError):
        return (
            "This process takes texts of the system as ASCII: start it with LC_ALL=C.UTF-8, or "
            "with PYTHONUTF8=1."
        )
    return ""


def _limit(which: int) -> str:
    soft, _ = resource.getrlimit(which)
    return "any number of" if soft == resource.RLIM_INFINITY else f"{soft:,}"
