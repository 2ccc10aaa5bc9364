"""The heartbeat of a worker: a page of a file that its supervisor reads, even after the worker's end.

The page has the rounds of the loop, the newest commit and, in quarantine, the message that runs; and
the handler that runs, once it has run for long.
Rounds that stand still mean that a handler does not return. But a batch of a thousand messages of
some milliseconds each is one long round, and harmless. So when a round takes long, a thread looks
now and then at the call of the app's own code that is under way. Another call than before counts
as movement. Turns pay nothing for that. While a handler does not release the interpreter, the
thread does not run, and there is no movement.

While the loop sleeps, the thread sleeps as well. The page says until when, so that a loop that
sleeps is not taken for one that stands still.

Knows threads and a file, nothing of shards. Idea: docs/ideas/entities.md.
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

from skerry.entity import Entity
from skerry.runtime.app.watch import NOTHING, Beat
from skerry.runtime.core.events import Identity

LOOK_S = 0.25
"""How often to look at a long round: a fraction of any time that counts as a hang."""

_BEAT = struct.Struct("<QQQQQB")
_MOVES = struct.Struct("<Q")
_MOVES_AT = 64
_SLEEP = struct.Struct("<d")
_SLEEP_AT = 72
_STIRS = struct.Struct("<Q")
_STIRS_AT = 80
_LAST_WORD = struct.Struct("<B")
_LAST_WORD_AT = 128

_CALL = struct.Struct("<H")
_CALL_AT, _CALL_BYTES_MAX = 256, 1024

_MAIN = vars(sys.modules["__main__"])
"""The names of the program's main module: in a worker, of `process.py`."""


class Heartbeat:
    """The writing end. Watches the thread that makes it."""

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
        self._called = ""
        self._needed = threading.Event()

    def round(self, commit: int, *, slow: bool) -> None:
        """Note that a round begins, behind this commit."""
        self._rounds += 1
        self._commit = commit
        _BEAT.pack_into(self._page, 0, self._rounds, commit, *self._running, slow)

    def running(self, identity: Identity | None) -> None:
        """Note which message runs next, in quarantine; None: the message has run."""
        identity = identity or NOTHING
        if identity != self._running:
            self._running = identity
            _BEAT.pack_into(self._page, 0, self._rounds, self._commit, *identity, True)

    def sleep(self, until_s: float) -> None:
        """Note that the loop sleeps until this time at the latest."""
        self._asleep = True
        _SLEEP.pack_into(self._page, _SLEEP_AT, until_s)

    def wake(self) -> None:
        """Note that the loop is awake."""
        _SLEEP.pack_into(self._page, _SLEEP_AT, 0.0)

    def stir(self, stirs: int) -> None:
        """Note how often anything has come by now."""
        _STIRS.pack_into(self._page, _STIRS_AT, stirs)
        self.work()

    def work(self) -> None:
        """Note that the app's own code may run from now on."""
        self._asleep = False
        if not self._needed.is_set():
            self._needed.set()

    def watch_calls(self) -> None:
        """Start to count calls that follow each other within a round as movement."""
        threading.Thread(target=self._watch, name="heartbeat", daemon=True).start()

    def _watch(self) -> None:
        rounds, moves = self._rounds, 0
        call: FrameType | None = None
        while True:
            if self._asleep:
                self._needed.clear()
                self._name("")
                if self._asleep:  # Else the loop woke meanwhile, and found the event set.
                    self._needed.wait()
            time.sleep(LOOK_S)
            if rounds != self._rounds:
                rounds, call = self._rounds, None
                self._name("")
                continue
            latest = _outermost_call(sys._current_frames()[self._thread])
            # We hold the frame, so no other call can have it: the same frame is the same call.
            if call is not None and latest is not call:
                moves += 1
                _MOVES.pack_into(self._page, _MOVES_AT, moves)
            self._name(_name_of(call) if call is not None and latest is call else "")
            call = latest

    def _name(self, call: str) -> None:
        """Note which call has run for long; empty: none has."""
        if call == self._called:
            return
        self._called, raw = call, call.encode(errors="replace")[:_CALL_BYTES_MAX]
        _CALL.pack_into(self._page, _CALL_AT, 0)  # A reader never sees a part of it.
        at = _CALL_AT + _CALL.size
        self._page[at : at + len(raw)] = raw
        _CALL.pack_into(self._page, _CALL_AT, len(raw))


def leave_word(path: Path, code: int) -> None:
    """Note that the worker itself ends with this exit code: a handler may end the process with any."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return  # Somebody removed the folder.
    try:
        os.pwrite(fd, _LAST_WORD.pack(code), _LAST_WORD_AT)
    finally:
        os.close(fd)


def last_word(path: Path) -> int:
    """Return the exit code that the worker itself chose; 0: it chose that one, or none."""
    try:
        with open(path, "rb") as file:
            file.seek(_LAST_WORD_AT)
            return (file.read(_LAST_WORD.size) or b"\0")[0]
    except OSError:
        return 0


def read(path: Path) -> Beat | None:
    """Return the last heartbeat; None: there is none yet."""
    try:
        with open(path, "rb") as file:
            page = file.read(mmap.PAGESIZE)
        rounds, commit, peer, seq, index, slow = _BEAT.unpack_from(page)
        (moves,) = _MOVES.unpack_from(page, _MOVES_AT)
        (until_s,) = _SLEEP.unpack_from(page, _SLEEP_AT)
        (stirs,) = _STIRS.unpack_from(page, _STIRS_AT)
        (size,) = _CALL.unpack_from(page, _CALL_AT)
        call = page[_CALL_AT + _CALL.size :][:size].decode(errors="replace")
    except (OSError, struct.error):
        return None
    return Beat(rounds + moves, commit, (peer, seq, index), bool(slow), stirs, until_s, call)


def _name_of(call: FrameType) -> str:
    """Return the name of a call, with its entity if it is a handler's."""
    code, entity = call.f_code, call.f_locals.get("self")
    if isinstance(entity, Entity):
        return f"{type(entity).__name__}/{entity.key} {code.co_name}"
    return code.co_qualname


def _outermost_call(frame: FrameType | None) -> FrameType | None:
    """Return the outermost call from our own code into the app's; None: there is none."""
    found = None
    while frame is not None:
        names = frame.f_globals
        ours = names is _MAIN or names.get("__name__", "skerry.").startswith(("skerry.", "runpy"))
        if not ours:
            found = frame
        frame = frame.f_back
    return found
