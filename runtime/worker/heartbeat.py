"""What a worker writes of itself where its supervisor reads it, also after its end.

A page of a file that both map: rounds of the loop, the newest commit, and in slow mode the message
that runs. Rounds that stand still mean that a handler does not return. But a batch of a thousand
messages, each of some milliseconds, is one long round and no harm. So when a round takes long, a
thread looks now and then at which call of the app's own code is under way: while these follow each
other, there is movement. It costs the turns nothing; and where a handler never lets go of the
interpreter, the thread does not run, and there is none. While the loop sleeps, so does the thread;
and the page says until when, so that nobody takes it for a loop that stands still.

Threads and a file; knows nothing of shards. Idea: docs/entities.md.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from skerry.runtime.app.watch import NOTHING, Beat
from skerry.runtime.core.events import Identity

LOOK_S = 0.25
"""How often a round that takes long is looked at: a fraction of any time that counts as a hang."""

_BEAT = struct.Struct("<QQQQQB")
_MOVES = struct.Struct("<Q")
_MOVES_AT = 64
_SLEEP = struct.Struct("<d")
_SLEEP_AT = 72
_STIRS = struct.Struct("<Q")
_STIRS_AT = 80
_LAST_WORD = struct.Struct("<B")
_LAST_WORD_AT = 128

_MAIN = vars(sys.modules["__main__"])
"""Of a worker, the module of its loop."""


class Heartbeat:
    """The writing end, for the thread that makes it."""

    def __init__(self, path: Path) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.ftruncate(fd, mmap.PAGESIZE)
            self._page = mmap.mmap(fd, mmap.PAGESIZE)
        finally:
            os.close(fd)
        self._rounds = self._commit = 0
        self._running = NOTHING
        self._thread = threading.get_ident()
        self._asleep = False
        self._needed = threading.Event()

    def round(self, commit: int, *, slow: bool) -> None:
        """Note that a round begins, behind this commit."""
        self._rounds += 1
        self._commit = commit
        _BEAT.pack_into(self._page, 0, self._rounds, commit, *self._running, slow)

    def running(self, identity: Identity | None) -> None:
        """Note which message runs next, in quarantine; None: it has run."""
        identity = identity or NOTHING
        if identity != self._running:
            self._running = identity
            _BEAT.pack_into(self._page, 0, self._rounds, self._commit, *identity, True)

    def sleep(self, until_s: float) -> None:
        """The loop sleeps now, until then at the latest."""
        self._asleep = True
        _SLEEP.pack_into(self._page, _SLEEP_AT, until_s)

    def wake(self) -> None:
        """It sleeps no more."""
        _SLEEP.pack_into(self._page, _SLEEP_AT, 0.0)

    def stir(self, stirs: int) -> None:
        """Something came, so often by now."""
        _STIRS.pack_into(self._page, _STIRS_AT, stirs)
        self.work()

    def work(self) -> None:
        """From now on the app's own code may run."""
        self._asleep = False
        if not self._needed.is_set():
            self._needed.set()

    def watch_calls(self) -> None:
        """From now on calls that follow each other within a round are movement, too."""
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def _watch(self) -> None:
        rounds, moves = self._rounds, 0
        call: FrameType | None = None
        while True:
            if self._asleep:
                self._needed.clear()
                if self._asleep:  # Who woke meanwhile may have found it set.
                    self._needed.wait()
            time.sleep(LOOK_S)
            if rounds != self._rounds:
                rounds, call = self._rounds, None
                continue
            latest = _outermost_call(sys._current_frames()[self._thread])
            # A frame that is held is no other call's: so the same one is the same call.
            if call is not None and latest is not call:
                moves += 1
                _MOVES.pack_into(self._page, _MOVES_AT, moves)
            call = latest


def leave_word(path: Path, code: int) -> None:
    """Say that we end with this exit code ourselves: a handler may end our process with any."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return  # The folder was swept away.
    try:
        os.pwrite(fd, _LAST_WORD.pack(code), _LAST_WORD_AT)
    finally:
        os.close(fd)


def last_word(path: Path) -> int:
    """The exit code that the worker gave itself; 0: none, or that."""
    try:
        with open(path, "rb") as file:
            file.seek(_LAST_WORD_AT)
            return (file.read(_LAST_WORD.size) or b"\0")[0]
    except OSError:
        return 0


def read(path: Path) -> Beat | None:
    """What the worker last wrote; None before it did."""
    try:
        with open(path, "rb") as file:
            page = file.read(mmap.PAGESIZE)
        rounds, commit, peer, seq, index, slow = _BEAT.unpack_from(page)
        (moves,) = _MOVES.unpack_from(page, _MOVES_AT)
        (until_s,) = _SLEEP.unpack_from(page, _SLEEP_AT)
        (stirs,) = _STIRS.unpack_from(page, _STIRS_AT)
    except (OSError, struct.error):
        return None
    return Beat(rounds + moves, commit, (peer, seq, index), bool(slow), stirs, until_s)


def _outermost_call(frame: FrameType | None) -> FrameType | None:
    """The call that our own code has made of somebody else's; None: there is none."""
    found = None
    while frame is not None:
        names = frame.f_globals
        ours = names is _MAIN or names.get("__name__", "skerry.").startswith(("skerry.", "runpy"))
        if not ours:
            found = frame
        frame = frame.f_back
    return found
