"""What a process that user code forks off gets of what is ours: nothing.

A child of `os.fork`, and so of a pool or a `multiprocessing.Process` that forks, has copies of all
descriptors. While it lives a listener listens, a connection stands and a lock is held, though
the worker that they belong to is long dead: who connects is never answered. What is started as
a program has none of them, since all are closed on exec.

So in the child the null device takes their places. Each keeps its number: whatever object still
holds it closes what is nobody's.
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
"""What a service manager or a terminal says to all processes of an app at once."""


def let_go_in_children(
    folders: Collection[Path],
    descriptors: Collection[int] = (),
    also: Callable[[], None] = lambda: None,
) -> None:
    """From now on each child that this process forks lets go of these descriptors and of every
    file and socket whose place is in one of these folders; and does `also`."""
    places = {place for folder in folders for place in (folder, folder.resolve())}
    below = tuple(f"{place}/" for place in places)
    os.register_at_fork(after_in_child=partial(_let_go, below, frozenset(descriptors), also))


def _let_go(below: tuple[str, ...], descriptors: frozenset[int], also: Callable[[], None]) -> None:
    """In the child."""
    also()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in [int(link.name) for link in Path("/proc/self/fd").iterdir()]:
        if fd in descriptors or any(place.startswith(below) for place in _places(fd)):
            os.dup2(null, fd, inheritable=False)
    os.close(null)


def _places(fd: int) -> list[str]:
    """Where the file or the socket behind a descriptor is: a socket's own name and its peer's."""
    try:
        place = str(Path(f"/proc/self/fd/{fd}").readlink())
    except FileNotFoundError:
        return []  # It was of the listing itself.
    if not place.startswith("socket:"):
        return [place]
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    names = list[str]()
    for name_of in (end.getsockname, end.getpeername):
        try:
            name = name_of()
        except OSError:
            continue  # It has no peer, or none any more.
        if isinstance(name, str):
            names.append(name)
    end.detach()
    return names


def adopts_orphans() -> bool:
    """Whether processes whose parents have ended become our children: in a container, mostly."""
    flag = ctypes.c_int()
    ctypes.CDLL(None).prctl(37, ctypes.byref(flag))  # PR_GET_CHILD_SUBREAPER
    return os.getpid() == 1 or bool(flag.value)


def ignore_signals() -> None:
    """Go on when all processes of the app are told to end: the supervisor is told so, too, and says
    what to do. What we start ends by these as ever: an ignored signal would stay ignored there, a
    handler does not."""
    for number in OURS_TO_HANDLE:
        if signal.getsignal(number) is not signal.SIG_IGN:  # As under `nohup`: for children, too.
            signal.signal(number, _go_on)
            # Calls into the system go on, also those of C code, which may take it for an error.
            signal.siginterrupt(number, False)
    unblock_signals()


def _go_on(number: int, frame: object) -> None:
    """The supervisor decides what it means."""


def heed_signals_in_children() -> None:
    """From now on a forked child ends by these signals as any process does: who forked it may end it
    so, in the very moment that it begins."""
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
    """Those that come wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, OURS_TO_HANDLE)


def unblock_signals() -> None:
    """Those that have waited come now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OURS_TO_HANDLE)
