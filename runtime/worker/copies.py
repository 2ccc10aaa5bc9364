"""Copies of a store for backups, made by a thread while turns go on.

Does the I/O of copying and nothing else. Idea: docs/ideas/log.md.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from skerry.errors import SkerryError
from skerry.runtime.gateway.protocol import Caller
from skerry.runtime.ports import Copied, WorkerStore

COPIES_MAX = 2
"""Backups under way at most. Each keeps a reading transaction, and with it all pages freed since."""


class Copies:
    """The copies that are under way."""

    def __init__(self, store: WorkerStore, wake: Callable[[], None]) -> None:
        self._store, self._wake = store, wake
        self._thread = ThreadPoolExecutor(1, "copier")
        self._under_way: list[tuple[Caller, int, Future[Copied]]] = []

    def check_room(self) -> None:
        """Raise SkerryError when no other copy may begin now."""
        if len(self._under_way) >= COPIES_MAX:
            raise SkerryError(f"{COPIES_MAX} backups are under way already. Wait for one to end.")

    def begin(self, caller: Caller, n: int, no: int, folder: str) -> None:
        """Begin to copy the rows that were kept for this backup. Raises SkerryError: none are."""
        copying = self._thread.submit(self._store.copy_kept(no, Path(folder)))
        copying.add_done_callback(lambda _: self._wake())
        self._under_way.append((caller, n, copying))

    def finished(self) -> list[tuple[Caller, int, Exception | tuple[int, int]]]:
        """Return the copies that have ended since the last call."""
        if not self._under_way:
            return []
        ended = [copy for copy in self._under_way if copy[2].done()]
        self._under_way = [copy for copy in self._under_way if copy not in ended]
        return [(caller, n, _result(copying)) for caller, n, copying in ended]

    def close(self) -> None:
        """Wait for the copies that are under way."""
        self._thread.shutdown()


def _result(copying: Future[Copied]) -> Exception | tuple[int, int]:
    if error := copying.exception():
        assert isinstance(error, Exception), "a copy is not interrupted"
        return error
    copied = copying.result()
    return copied.commit, copied.size
