"""Keeps forked children out of our affairs: they lose our descriptors and treat signals normally.

A child of `os.fork`, and so of a pool or a `multiprocessing.Process` that forks, has copies of all
descriptors. As long as it lives, listeners listen, connections stand and locks are held, even if
the worker that they belong to is long dead: a client that connects is never answered. A program
that is started has none of them, since all are closed on exec.

So in the child the null device replaces them. Each keeps its number: whatever object still holds a
descriptor closes a harmless one.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

OURS_TO_HANDLE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that a service manager or a terminal sends to all processes of an app at once."""


def let_go_in_children(
    folders: Collection[Path],
    descriptors: Collection[int] = (),
    also: Callable[[], None] = lambda: None,
) -> None:
    """Make each child that this process forks from now on let go of these descriptors, and of every
    file and socket in these folders; and call `also` there."""
    places = {place for folder in folders for place in (folder, folder.resolve())}
    below = tuple(f"{place}/" for place in places)
    os.register_at_fork(after_in_child=partial(_let_go, below, frozenset(descriptors), also))


def _let_go(below: tuple[str, ...], descriptors: frozenset[int], also: Callable[[], None]) -> None:
    """Run in the child, right after the fork."""
    also()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if fd in descriptors or any(place.startswith(below) for place in _places(fd)):
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def _places(fd: int) -> list[str]:
    """The path of the file behind a descriptor; of a socket, its own name and its peer's."""
    try:
        place = str(Path(f"/proc/self/fd/{fd}").readlink())
    except FileNotFoundError:
        return []  # The descriptor of the listing itself.
    if not place.startswith("socket:"):
        return [place]
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    names = list[str]()
    for name_of in (end.getsockname, end.getpeername):
        try:
            name = name_of()
        except OSError:
            continue  # No peer, or none any more.
        if isinstance(name, str):
            names.append(name)
    end.detach()
    return names


def adopts_orphans() -> bool:
    """Whether processes whose parents have ended become our children, as in a container."""
    flag = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(flag))  # PR_GET_CHILD_SUBREAPER
    return os.getpid() == 1 or bool(flag.value)


def ignore_signals() -> None:
    """Go on when all processes of the app are told to end: the supervisor is told, too, and decides.

    Programs that are started here end by these signals as usual: an ignored signal would stay ignored
    there, a handler does not."""
    for number in OURS_TO_HANDLE:
        # Ignored as under `nohup`, they stay so, for children too.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _go_on)
            # System calls go on, also those of C code that would take an interruption for an error.
            signal.siginterrupt(number, False)
    unblock_signals()


def _go_on(number: int, frame: object) -> None:
    """Do nothing: the supervisor decides."""


def heed_signals_in_children() -> None:
    """Make forked children end by these signals as any process does, from their first moment on:
    the program that forked them may end them so."""
    os.register_at_fork(
        before=block_signals, after_in_parent=unblock_signals, after_in_child=_heed_signals
    )


def _heed_signals() -> None:
    for number in OURS_TO_HANDLE:
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        if signal.getsignal(number) is _go_on:
            signal.signal(number, default)
    unblock_signals()


def block_signals() -> None:
    """Make signals that come wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, OURS_TO_HANDLE)


def unblock_signals() -> None:
    """Let signals come, those first that have waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS_TO_HANDLE)
