"""A client that asks an app all the while, beside the test that does something to the app."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Self

import skerry


class Load:
    """Rounds of requests on a thread, from the beginning of a context to its end."""

    def __init__(self, data: Path) -> None:
        self._data, self._over = data, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.rounds = 0
        """Rounds that have ended."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with skerry.Client(self._data) as client:
            while not self._over.is_set():
                self.round(client)
                self.rounds += 1

    def round(self, client: skerry.Client) -> None:
        """One round."""
        raise NotImplementedError

    def until(self, condition: Callable[[], bool]) -> None:
        """Go on until then."""
        while not condition():
            assert self._thread.is_alive()
            os.sched_yield()

    def more(self, rounds: int) -> None:
        """Go on for so many rounds."""
        until = self.rounds + rounds
        self.until(lambda: self.rounds >= until)
