"""What people and disks do to an app's data directory, tried with real starts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

import skerry
from skerry import message
from skerry.runtime.app import directory
from tests.processes.apps import Counter
from tests.processes.started import launcher, running
from tests.processes.test_storage import small_disk
from tests.store.described import files

COUNTED = {f"k{n}": 2 for n in range(20)}


def count(data: Path, *options: str, said: Path | None = None) -> None:
    """Run the app, which counts each key once more, until slots are where they should be."""
    with running(data, *options, said=said), skerry.Client(data) as client:
        client.ask_many([message(Counter.at(key).add) for key in COUNTED])
        while directory.load(data).goal:  # type: ignore[union-attr]
            os.sched_yield()


def counted(data: Path) -> dict[str, int]:
    """What the stopped app holds, and that `check` finds it clean."""
    assert launcher("check", str(data)).returncode == 0
    rows = launcher("export", "Counter", "--data", str(data)).stdout.splitlines()
    return {row["key"]: row["state"]["count"] for row in map(json.loads, rows)}


def start(data: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A start that is to be refused."""
    return launcher("run", "tests.processes.apps", "--data", str(data), *options)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped app on two shards, started twice."""
    data = tmp_path_factory.mktemp("app") / "data"
    for _ in range(2):
        count(data)
    return data


@pytest.fixture
def data(app: Path, tmp_path: Path) -> Path:
    """A copy of it, which its description and its stores do not mind."""
    shutil.copytree(app, tmp_path / "data")
    return tmp_path / "data"


MEMBER, OWNER, NEXT_ID, VERSION = (
    b'"placement": [\n  1,\n  [\n   0,\n   1',
    b"\n   0,\n   1,\n   0,\n   1,\n   0",
    b"\n  2,\n  {}",
    b'"placement": [\n  1',
)


@pytest.mark.parametrize(
    ("place", "options"),
    [(MEMBER, ()), (OWNER, ()), (NEXT_ID, ("--workers", "3")), (VERSION, ())],
    ids=["a member", "an owner", "the next id", "the version"],
)
def test_a_flipped_bit_of_the_description_is_named_and_touches_no_store(
    data: Path, place: bytes, options: tuple[str, ...]
) -> None:
    path = data / "app.json"
    stored = bytearray(path.read_bytes())
    digits = [at for at in range(len(place)) if place[at : at + 1].isdigit()]
    stored[stored.index(place) + digits[-1]] ^= 2
    path.write_bytes(stored)
    before = files(data)
    for done in (start(data, *options), launcher("check", str(data))):
        assert (done.returncode, f"{path} does not read" in done.stderr) == (3, True), done.stderr
    assert files(data) == before


def test_an_older_description_put_back_after_a_change_of_workers_is_refused(data: Path) -> None:
    older = (data / "app.json").read_bytes()
    count(data, "--workers", "3")
    newest = (data / "app.json").read_bytes()
    (data / "app.json").write_bytes(older)
    before = files(data)
    done = start(data)
    assert (done.returncode, "app.json is older than" in done.stderr) == (3, True), done.stderr
    assert launcher("check", str(data)).returncode == 3
    assert files(data) == before
    (data / "app.json").write_bytes(newest)
    assert counted(data) == dict.fromkeys(COUNTED, 3)


def test_the_description_of_another_app_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    count(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "app.json", data / "app.json")
    before = files(data)
    for done in (start(data), launcher("export", "Counter", "--data", str(data))):
        assert (done.returncode, "in another data directory" in done.stderr) == (3, True)
    checked = launcher("check", str(data))
    assert (checked.returncode, "in another data directory" in checked.stdout) == (3, True)
    assert files(data) == before


def test_folders_that_people_put_beside_stores_are_named_and_left_alone(data: Path) -> None:
    shutil.copytree(data / "shard-1", data / "shard-1.bak")
    shutil.copytree(data / "shard-1", data / "shard-2")
    (data / "shard-9" / "mine").mkdir(parents=True)
    strangers = ("shard-1.bak", "shard-2", "shard-9")
    before = [files(data / name) for name in strangers]
    said = data.with_name("said")
    count(data, "--workers", "3", said=said)
    for name in strangers:
        assert f"{data / name} is no part of the app" in said.read_text()
        assert str(data / name) in launcher("check", str(data)).stdout
    assert [files(data / name) for name in strangers] == before
    assert (data / "shard-9" / "mine").is_dir()
    assert counted(data) == dict.fromkeys(COUNTED, 3)


def test_a_start_on_a_full_disk_is_refused_and_loses_nothing(app: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "24M"):
        data = tmp_path / "disk" / "data"
        shutil.copytree(app, data)
        with open(data.with_name("filler"), "wb") as filler:
            room = os.statvfs(data)
            filler.write(bytes((room.f_bavail - 1) * room.f_frsize))
        before = files(data)
        done = start(data)
        assert (done.returncode, "is full" in done.stderr) == (1, True), done.stderr
        assert files(data) == before
        data.with_name("filler").unlink()
        assert counted(data) == COUNTED
        count(data)
        assert counted(data) == dict.fromkeys(COUNTED, 3)


def removed(data: Path) -> None:
    """The folder goes while the app runs."""
    shutil.rmtree(data)


def moved(data: Path) -> None:
    """The folder gets another name while the app runs."""
    data.rename(data.with_name("elsewhere"))


@pytest.mark.parametrize("lose", [removed, moved])
def test_the_end_of_an_app_removes_nothing_of_one_that_was_begun_in_its_place(
    tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    data = tmp_path / "data"
    with running(data) as old:
        with skerry.Client(data) as client:
            client.ask_many([message(Counter.at(key).add) for key in COUNTED])
        lose(data)
        with running(data) as new, skerry.Client(data) as client:
            assert client.ask(Counter.at("a").add) == 1
            known, announced = directory.load(data), (data / "run.json").read_bytes()
            old.terminate()
            # It may have seen it itself, and be on its way out already.
            assert old.wait(timeout=60) in (0, 1, -signal.SIGTERM)
            assert directory.load(data) == known
            assert (data / "run.json").read_bytes() == announced
            with skerry.Client(data) as another:
                assert another.ask(Counter.at("a").add) == 2
            assert new.poll() is None
    assert msgspec.json.decode(launcher("check", "--json", str(data)).stdout)["clean"]


def test_an_app_json_of_before_a_move_in_the_same_start_is_refused(data: Path) -> None:
    """Its generation is the newest; only the stores know of the later placement."""
    with running(data) as process:
        older = (data / "app.json").read_bytes()
        assert launcher("scale", "1", "--data", str(data)).returncode == 0
        process.kill()
        process.wait()
    newest = (data / "app.json").read_bytes()
    (data / "app.json").write_bytes(older)
    done = start(data)
    assert done.returncode == 3, done.stderr
    (data / "app.json").write_bytes(newest)
    count(data)
    assert counted(data) == dict.fromkeys(COUNTED, 3)
