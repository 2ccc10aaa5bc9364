"""Workers by load: `skerry status` says how busy they are, and slots move to those that are idle."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections import Counter as Counts
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import skerry
from skerry import message
from skerry.runtime.app import directory
from skerry.runtime.config import Config, Program, Supervision
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.placement import Placement
from tests.crash.apps import RECEIVERS, Receiver
from tests.processes.apps import Counter
from tests.processes.load import Load
from tests.processes.numbered import Sender
from tests.processes.started import ROOT, await_start, launcher, running

TURN_S = 0.002
"""A turn waits for so long. That counts as busy, and other load of the machine does not matter."""

LOOK_S = 0.1

KEYS = [f"k{n}" for n in range(400) if slot_of("Counter", f"k{n}") % 2 == 0][:20]
"""On the first of two workers."""


class Waiting(Load):
    """Requests to these entities; each is to count once."""

    def __init__(self, data: Path, keys: list[str]) -> None:
        super().__init__(data)
        self._keys = keys
        self.counts: Counts[str] = Counts()
        self.wrong = 0

    def round(self, client: skerry.Client) -> None:
        told = client.ask_many(message(Counter.at(key).wait, TURN_S) for key in self._keys)
        for key, count in zip(self._keys, told):
            self.counts[key] += 1
            self.wrong += count != self.counts[key]


@contextlib.contextmanager
def balanced(
    data: Path, app: str = "trouble", module: str = "tests.processes.apps", **supervision: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """An app on two workers, whose load is looked at often."""
    config = Config(
        program=Program(app=app, target=f"{module}:app", path=[str(ROOT)]),
        data=str(data),
        workers=2,
        supervision=Supervision(serve=True, look_s=LOOK_S, **supervision),
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "skerry.runtime.app.background"], stdin=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(config) + b"\n")
    process.stdin.flush()
    try:
        await_start(process, data, data / "no file")
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=60)


def status(data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(launcher("status", "--json", "--data", str(data)).stdout)
    return found


def placement(data: Path) -> Placement:
    app = directory.load(data)
    assert app is not None
    return app.placement


def test_a_hot_entity_is_named_with_its_share_and_an_idle_app_names_none(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        assert status(data)["hot"] == []
        with Waiting(data, ["hot"] * 19 + ["cold"]) as load:
            load.until(lambda: bool(status(data)["hot"]))
            (hot,) = status(data)["hot"]
            told = launcher("status", "--data", str(data)).stdout
        assert hot["entity"] == "Counter/hot"
        assert hot["of_shard"] > 0.5 and 0.5 < hot["of_app"] < 1
        assert "Counter/hot takes " in told
        assert f"of the time of shard {hot['shard']} and " in told


def test_slots_of_a_busy_worker_move_to_an_idle_one_and_each_request_counts_once(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    ours = [slot_of("Counter", key) for key in KEYS]
    with balanced(data):
        with Waiting(data, KEYS) as load:
            load.until(lambda: 0.3 < sum(placement(data).slots[s] for s in ours) / len(ours) < 0.7)
            load.until(lambda: status(data)["rebalancing"]["last"]["done"])
            load.more(3)
            last = status(data)["rebalancing"]["last"]
        assert load.wrong == 0
        assert {last["giver"], last["taker"]} == {0, 1} and last["slots"] > 0
        assert last["giver_busy"] > last["taker_busy"]
    by_load = placement(data)
    with balanced(data), skerry.Client(data) as client:
        answers = client.ask_many(message(Counter.at(key).add) for key in KEYS)
        assert answers == [load.counts[key] + 1 for key in KEYS]
        # A transfer that the stop cut short goes on.
        for slot, owner in enumerate(placement(data).slots):
            wanted = by_load.slots[slot], by_load.coming.get(slot)
            assert owner in wanted, "a start deals nothing back"
        assert launcher("scale", "3", "--data", str(data)).returncode == 0
        owners = Counts(placement(data).slots)
        assert len(owners) == 3 and max(owners.values()) - min(owners.values()) <= 1
    assert launcher("check", "--data", str(data)).returncode == 0


class Sending(Waiting):
    """Turns that send numbered messages."""

    def round(self, client: skerry.Client) -> None:
        client.ask_many(message(Sender.at(key).next, TURN_S) for key in self._keys)


def test_numbered_messages_come_once_and_in_order_while_slots_move_by_load(tmp_path: Path) -> None:
    data = tmp_path / "data"
    senders = [f"s{n}" for n in range(400) if slot_of("Sender", f"s{n}") % 2 == 0][:20]
    with balanced(data, "numbered", "tests.processes.numbered"):
        with Sending(data, senders) as load:
            ours = [slot_of("Sender", key) for key in senders]
            load.until(lambda: sum(placement(data).slots[slot] for slot in ours) > len(ours) // 4)
            load.until(lambda: status(data)["rebalancing"]["last"]["done"])
            load.more(3)
        with skerry.Client(data) as client:
            for n in range(RECEIVERS):
                receiver = Receiver(last={})
                while any(receiver.last.get(key, 0) < load.rounds for key in senders):
                    receiver = client.get(Receiver.at(f"receiver-{n}")) or receiver
                assert receiver.last == dict.fromkeys(senders, load.rounds)
                assert receiver.wrong == []


def test_a_hot_entity_that_no_move_can_help_moves_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with balanced(data), Waiting(data, ["hot"] * 20) as load:
        load.more(100)
        assert placement(data).version == 1


def test_with_no_rebalance_nothing_moves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with balanced(data, rebalance=False), Waiting(data, KEYS) as load:
        load.more(100)
        assert placement(data).version == 1


@pytest.mark.parametrize(("options", "on"), [((), True), (("--no-rebalance",), False)])
def test_status_says_whether_slots_move_by_load(
    tmp_path: Path, options: tuple[str, ...], on: bool
) -> None:
    data = tmp_path / "data"
    with running(data, *options):
        assert status(data)["rebalancing"] == {"on": on, "last": None}
