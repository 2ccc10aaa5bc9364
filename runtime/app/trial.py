"""Tries the program as it is now, in a process of its own, before any worker is replaced.

    supervisor -> Question -> `release.py` in a new process -> Verdict

The process is started like a worker, so it imports what a worker would import. Never waits for it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

import msgspec
from msgspec import Struct

from skerry.runtime import as_json
from skerry.runtime.app import children
from skerry.runtime.config import Config
from skerry.runtime.printable import Say

TRIAL_S = 300.0
"""How long a program may take to be imported and to read some stored states."""

VERDICT_BYTES_MAX = 1 << 20
"""The longest verdict that is read; a traceback is far shorter."""


class Question(Struct, frozen=True):
    """What is to be tried."""

    config: Config
    shards: list[int]
    """The shards that serve, so that their states can be read."""
    version: str
    """The version of skerry that the supervisor runs."""


class Verdict(Struct, frozen=True):
    """What was found."""

    refused: str = ""
    """Why the app can't go on with this program; empty: it can."""
    renamed: dict[str, str] = {}
    """`Program.renamed` of the program as it is now."""
    hidden: list[str] = []
    """`Program.hidden`, likewise."""


class Trial:
    """One trial, which begins when it is made."""

    def __init__(self, question: Question, say: Say) -> None:
        self._say = say
        self._by_s = time.monotonic() + TRIAL_S
        self._heard = b""
        self._process = children.start(
            "skerry.runtime.app.release",
            as_json.encode(question) + b"\n",
            apart=True,
        )
        assert self._process.stdout is not None, "its answer comes through a pipe"
        self._answers = self._process.stdout.fileno()
        os.set_blocking(self._answers, False)
        threading.Thread(target=self._collect, daemon=True).start()

    def _collect(self) -> None:
        """Repeat what the program prints when it is imported."""
        assert self._process.stderr is not None, "its output is a pipe"
        for raw in self._process.stderr:
            self._say(f"[new] {raw.decode(errors='replace').rstrip()}")

    def verdict(self) -> Verdict | None:
        """What was found; None: nothing yet."""
        ended = self._process.poll() is not None
        with contextlib.suppress(BlockingIOError):
            self._heard += os.read(self._answers, VERDICT_BYTES_MAX)
        if self._heard.endswith(b"\n"):
            try:
                return as_json.decode(self._heard, Verdict)
            except msgspec.MsgspecError as error:
                return Verdict(
                    f"The program could not be tried: its answer does not read: {error}."
                )
        if ended:
            how = children.Ended(self._process.returncode, True, None).how
            return Verdict(
                f"The process that tried the program ended ({how}); what it said is in the output of "
                f"the app."
            )
        if time.monotonic() > self._by_s:
            return Verdict(f"The program was not imported within {TRIAL_S:.0f} s.")
        return None

    def close(self) -> None:
        """End the process, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
