"""Killed at every named point of the real code that touches the disk; nothing durable is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from skerry.runtime.store.check import check
from skerry.runtime.store.store import LmdbStore
from tests.processes.started import ROOT
from tests.store.dying import model

WRITES = [
    "a write of the log",
    "its write and its news",
    "a slice of a checkpoint",
    "a new segment",
    "the log's roll",
    "a new position",
    "the log's trim",
]


def die(point: str, when: str, nth: int, folder: Path) -> tuple[bool, int]:
    """Whether it died, and the newest commit that was said to be durable."""
    command = [sys.executable, "-m", "tests.store.dying", point, when, str(nth), str(folder)]
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


def test_a_disk_that_refuses_a_write_ends_the_store_and_loses_nothing_durable(
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
        refused += "raise `ulimit -f`" in done.stderr
        store = LmdbStore.open(path, shard=1)
        assert store.last.no >= int((done.stdout.split() or ["0"])[-1])
        assert dict(store.states("Thing")) == model(store.last.no)
        store.close()
        assert list(check(path, shard=1)) == []
    assert refused >= 3


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
