"""Killed at every named point of the real code that touches the disk; nothing durable is lost."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from examples.bank import Account
from skerry.runtime import placement_file
from skerry.runtime.store.check import check
from skerry.runtime.store.log import LmdbStore
from tests.processes.started import ROOT, launcher, running
from tests.store.dying import model

WRITES = [
    "a write of the log",
    "its write and its news",
    "a slice of a sweep",
    "a new file of the log",
    "its turn",
    "a sweep's end",
    "an old file's removal",
]
MOVES = [
    "a new store",
    "a write of the log",
    "a file's rename",
    "a file's sync",
    "a description of the app",
    "a store's label",
    "old stores marked",
    "a store thrown away",
    "a file's removal",
]


def die(point: str, when: str, nth: int, folder: Path, work: str = "write") -> tuple[bool, int]:
    """Whether it died, and the newest commit that was said to be durable."""
    command = [sys.executable, "-m", "tests.store.dying", point, when, str(nth), str(folder), work]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9, int((done.stdout.split() or ["0"])[-1])


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", WRITES)
def test_a_store_killed_at_this_point_holds_all_that_was_durable(
    tmp_path: Path, point: str, when: str
) -> None:
    path, deaths = tmp_path / "shard-1", 0
    LmdbStore.create(path, shard=1)
    # The same store dies again and again, a little later in its life each time.
    for nth in (1, 2, 3, 5, 8, 13, 21):
        died, acknowledged = die(point, when, nth, path)
        deaths += died
        assert list(check(path, shard=1)) == []
        store = LmdbStore.open(path, shard=1)
        assert store.last.no >= acknowledged
        assert dict(store.states("Thing")) == model(store.last.no)
        store.close()
    assert deaths >= 4


def test_a_disk_that_refuses_a_write_ends_the_store_and_loses_nothing_durable_trace_16(
    tmp_path: Path,
) -> None:
    path, refused = tmp_path / "shard-1", 0
    LmdbStore.create(path, shard=1)
    for kilobytes in (40, 48, 56, 64, 80, 96, 128):
        command = [sys.executable, "-m", "tests.store.dying", "a write", "beyond"]
        done = subprocess.run(
            [*command, str(kilobytes), str(path)],
            cwd=ROOT, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        refused += "The disk refused a commit" in done.stderr
        store = LmdbStore.open(path, shard=1)
        assert store.last.no >= int((done.stdout.split() or ["0"])[-1])
        assert dict(store.states("Thing")) == model(store.last.no)
        store.close()
        assert list(check(path, shard=1)) == []
    assert refused >= 3


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped app with states and messages under way."""
    data = tmp_path_factory.mktemp("move") / "data"
    with running(data, target="examples.bank"):
        for n in range(30):
            launcher("send", f"Account/a{n}", "deposit", "[100]", "--data", str(data))
    return data


def money(data: Path) -> int:
    """All that the stopped app's accounts hold."""
    known = placement_file.load(data)
    assert known is not None
    total = 0
    for shard in known.placement.members:
        assert list(check(data / f"shard-{shard}", shard=shard)) == []
        store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
        kind = Account.__skerry__
        for key, state in store.states("Account"):
            total += kind.decode(state, key, lambda _: None).balance  # type: ignore[attr-defined]
        store.close()
    return total


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("point", MOVES)
def test_a_change_of_shards_killed_at_this_point_is_done_or_not_begun(
    app: Path, tmp_path: Path, point: str, when: str
) -> None:
    data = tmp_path / "data"
    shutil.copytree(app, data)
    deaths = 0
    for nth in (1, 2, 4):
        deaths += die(point, when, nth, data, "move")[0]
        assert money(data) == 3000
    assert deaths


def test_flipped_bits_and_cut_files_are_named_or_harmless_never_read_as_good() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.store.flips", "300"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "refused" in done.stdout
