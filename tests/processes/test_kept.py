"""What was acknowledged is read back: large states, and rows that an older release should have refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

import skerry
from skerry import Failed, message
from skerry.runtime.app import directory
from skerry.runtime.core import commit as records
from skerry.runtime.core.events import Commit, CommitNo, StateGroup
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.store.store import LmdbStore
from tests.processes.apps import Blob, Counter
from tests.processes.started import launcher, running


def test_a_state_of_many_megabytes_is_read_by_everybody_and_after_a_restart(tmp_path: Path) -> None:
    data, size = tmp_path / "data", 100 << 20
    with running(data), skerry.Client(data) as client:
        client.ask(Blob.at("small").fill, 3)
        client.ask(Blob.at("large").fill, size)
        assert len(client.get(Blob.at("large")).data) == size
    with running(data), skerry.Client(data) as client:
        scanned = {key: len(blob.data) for key, blob in client.scan(Blob)}
        assert scanned == {"small": 3, "large": size}
    assert launcher("check", str(data)).returncode == 0


def test_one_wrong_state_in_a_busy_batch_fails_alone_and_names_its_field(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data), skerry.Client(data) as client:
        many = [message(Counter.at(f"k{n}").add) for n in range(2000)]
        for n in range(0, 2000, 100):
            many[n] = message(Counter.at(f"k{n}").halve)
        told = client.ask_many(many)
        for n, outcome in enumerate(told):
            if n % 100:
                assert outcome == 1
            else:
                assert isinstance(outcome, Failed)
                assert "its field count = 0.5: a float where int is declared" in outcome.error
        assert client.ask(Counter.at("k0").add) == 1


def plant(data: Path, key: str, state: bytes) -> None:
    """A state in the store of a stopped app, as an older release would have left it."""
    described = directory.load(data)
    assert described is not None
    shard = described.placement.slots[slot_of("Counter", key)]
    store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
    last, group = store.last, StateGroup.of("Counter", [(key, state)])
    record = records.encode(last.no + 1, last.epoch, last.time_ns, last.checksum, [group], [])
    store.append(Commit(CommitNo(last.no + 1), record, [group], []))
    store.close()


def test_what_an_older_release_kept_and_nobody_can_read_is_named_and_the_rest_served(
    tmp_path: Path,
) -> None:
    data, id = tmp_path / "data", Counter.__skerry__.schema_id
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("fine").add)
    head = msgspec.msgpack.encode([id, 5])
    plant(data, "deep", b"\x93" + head[1:] + b"\x91" * 5000 + b"\xa1x")
    plant(data, "wrong", msgspec.msgpack.encode([id, 0.5, []]))
    assert launcher("check", str(data)).returncode == 0
    exported = launcher("export", "Counter", "--data", str(data))
    assert exported.returncode == 0, exported.stderr
    assert {
        json.loads(line)["key"] for line in exported.stdout.splitlines() if len(line) < 500
    } == {
        "fine",
        "wrong",
    }
    with running(data), skerry.Client(data) as client:
        assert client.ask(Counter.at("fine").add) == 2
        # Since 3.12 interpreters read this deep, and see that it is no list of texts.
        too_deep = r"nests deeper than this interpreter reads|field `names`: Expected `str`"
        with pytest.raises(Failed, match=rf"Counter/deep .*({too_deep})"):
            client.ask(Counter.at("deep").add)
        with pytest.raises(Failed, match=r"Counter/wrong .* field `count`: Expected `int`"):
            client.ask(Counter.at("wrong").add)
        told = client.ask_many([message(Counter.at(f"k{n}").add) for n in range(500)])
        assert told == [1] * 500
        got = launcher("get", "Counter/deep", "--data", str(data))
        assert '"count": 5' in got.stdout or '"count":5' in got.stdout, got.stderr
