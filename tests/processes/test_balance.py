"""`skerry status` says how busy workers are, and with what."""

from __future__ import annotations

import json
import threading
from collections import Counter as Counts
from pathlib import Path
from typing import Any

import skerry
from skerry import message
from tests.processes.apps import Counter
from tests.processes.started import launcher, running

STEPS = 50_000
"""Work of a turn: about a millisecond."""


class Load:
    """Requests to these entities all the while, on a thread."""

    def __init__(self, data: Path, keys: list[str]) -> None:
        self._data, self._keys, self._over = data, keys, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.counts: Counts[str] = Counts()
        """The count of each entity, as it should be."""
        self.wrong = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        with skerry.Client(self._data) as client:
            while not self._over.is_set():
                told = client.ask_many(message(Counter.at(key).work, STEPS) for key in self._keys)
                for key, count in zip(self._keys, told):
                    self.counts[key] += 1
                    self.wrong += count != self.counts[key]


def status(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(launcher("status", "--json", "--data", str(data)).stdout)
    return found


def test_a_hot_entity_is_named_with_its_share_and_an_idle_app_names_none(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        assert status(data)["hot"] == []
        with Load(data, ["hot"] * 19 + ["cold"]):
            said = ""
            while "Counter/hot takes " not in said:
                said = launcher("status", "--data", str(data)).stdout
            while not (found := status(data)["hot"]):
                pass
        (hot,) = found
        assert hot["entity"] == "Counter/hot"
        assert hot["of_shard"] > 0.5 and 0.5 < hot["of_app"] < 1
        assert f"of the time of shard {hot['shard']} and " in said
