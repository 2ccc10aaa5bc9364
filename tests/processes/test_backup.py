"""`skerry backup` of real apps, running and stopped, and what is restored from them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import skerry
from skerry import SkerryError, message
from skerry.runtime.app import backup as backups
from skerry.runtime.app import directory
from skerry.runtime.app.backup import back_up
from tests.crash.apps import RECEIVERS, SENDERS, Account, Receiver
from tests.processes import half
from tests.processes.apps import Counter
from tests.processes.load import Load
from tests.processes.started import CLI, ROOT, launcher, running

ACCOUNTS = [f"a{n}" for n in range(6)]
APP, CALM = "tests.crash.apps", "tests.crash.calm"
"""The same app; slots move soon in the second, since nothing piles up."""


class Transfers(Load):
    """Money goes round and round, once the accounts are open."""

    def round(self, client: skerry.Client) -> None:
        if not self.rounds:
            client.ask_many(message(Account.at(name).deposit, 100) for name in ACCOUNTS)
        client.ask_many(
            message(Account.at(name).transfer, ACCOUNTS[(place + self.rounds + 1) % 6], 1 + place)
            for place, name in enumerate(ACCOUNTS)
            for _ in range(20)
        )


def test_a_backup_under_load_is_one_moment_of_all_shards(tmp_path: Path) -> None:
    data, backup, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with running(data, target=APP), Transfers(data) as load:
        load.more(1)
        for _ in range(3):
            shutil.rmtree(backup, ignore_errors=True)
            made = launcher("backup", str(backup), "--data", str(data), "--json")
            assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["shards"] == 2
    assert launcher("check", str(backup)).stdout.strip().endswith("2 shards, all clean")
    restored = launcher("restore", str(backup), "--data", str(again))
    assert restored.returncode == 0, restored.stderr
    goes_on_from_one_moment(again, APP)


def goes_on_from_one_moment(data: Path, target: str, *options: str) -> None:
    """What was restored is one moment of all shards, and the app goes on from it."""
    with running(data, *options, target=target), skerry.Client(data) as client:
        # What was under way arrives; the numbered messages go on where they stood.
        while sum(client.get(Account.at(name)).balance for name in ACCOUNTS) != 600:
            pass
        before = client.get(Receiver.at("receiver-0")).last
        while client.get(Receiver.at("receiver-0")).last == before:
            pass
        for n in range(RECEIVERS):
            receiver = client.get(Receiver.at(f"receiver-{n}"))
            assert receiver.wrong == []
            assert len(receiver.last) == SENDERS


def test_a_backup_while_slots_move_is_one_moment_and_is_restored_with_other_workers(
    tmp_path: Path,
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data, target=CALM):
        with Transfers(data) as load:
            load.more(1)
            scaling = subprocess.Popen([*CLI, "scale", "4", "--data", str(data)], cwd=ROOT)
            while not (app := directory.load(data)) or app.placement.version < 6:
                os.sched_yield()
            made = back_up(data, backup, print)
        assert scaling.wait() == 0
        app = directory.load(data)
        assert app is not None and len(app.placement.members) == 4, "the change went on"
    copied = directory.load(backup)
    assert copied is not None
    assert 6 <= copied.placement.version < app.placement.version, "it was taken meanwhile"
    assert made.shards == len(copied.placement.members) and not copied.goal
    assert launcher("check", str(backup)).stdout.strip().endswith("shards, all clean")
    for workers in ("1", "3"):
        again = tmp_path / f"again-{workers}"
        restored = launcher("restore", str(backup), "--data", str(again))
        assert restored.returncode == 0, restored.stderr
        goes_on_from_one_moment(again, CALM, "--workers", workers)


@pytest.fixture(scope="module")
def half_read(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup of an app that had read a part of its source."""
    folder = tmp_path_factory.mktemp("half")
    data, backup = folder / "data", folder / "backup"
    with running(data, "--serve", target="tests.processes.half"), skerry.Client(data) as client:
        beside = client.options(idempotency_key="once")
        assert beside.ask(half.Tally.at("beside").add, 5) == 5
        client.send(half.Tally.at("beside").ring_later)
        back_up(data, backup, print)
    return backup


@pytest.mark.parametrize("workers", ["1", "3", "8"])
def test_a_restored_app_goes_on_where_its_backup_was_with_any_number_of_workers(
    workers: str, half_read: Path, tmp_path: Path
) -> None:
    """Positions of sources, messages on their way, timers, and requests with names."""
    again, copy = tmp_path / "again", tmp_path / "copy"
    assert launcher("restore", str(half_read), "--data", str(again)).returncode == 0
    assert launcher("restore", str(half_read), "--data", str(copy)).returncode == 0
    then = launcher("get", "Tally/k1", "--data", str(copy))
    assert json.loads(then.stdout)["total"] < half.total(1), "it was half read"
    options = ("--workers", workers, "--serve")
    with (
        running(again, *options, target="tests.processes.half"),
        skerry.Client(again) as client,
    ):
        beside = client.options(idempotency_key="once")
        assert beside.ask(half.Tally.at("beside").add, 5) == 5, "it is the same request"
        while client.get(half.Tally.at("beside")).rung == 0:
            os.sched_yield()
    ended = launcher("run", "tests.processes.half", "--data", str(again))
    assert ended.returncode == 0, ended.stderr
    rows = launcher("export", "Tally", "--data", str(again)).stdout.splitlines()
    found = {row["key"]: row["state"] for row in map(json.loads, rows)}
    assert found.pop("beside") == {"total": 5, "rung": 1}
    totals = {f"k{key}": {"total": half.total(key), "rung": 0} for key in range(half.KEYS)}
    assert found == totals
    rows = launcher("export", "replies", "--data", str(again)).stdout.splitlines()
    replies = sum(json.loads(row)["state"]["value"] for row in rows)
    assert replies == half.PARTITIONS * half.COUNT
    assert launcher("check", "--data", str(again)).returncode == 0


def test_an_app_that_was_killed_while_slots_moved_is_backed_up_and_its_copy_goes_on(
    tmp_path: Path,
) -> None:
    data, backup, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with running(data, "--workers", "1") as supervisor:
        with skerry.Client(data) as client:
            client.ask_many(message(Counter.at(f"k{n}").add) for n in range(300))
        scaling = subprocess.Popen([*CLI, "scale", "3", "--data", str(data)], cwd=ROOT)
        while not (app := directory.load(data)) or app.placement.version < 6:
            os.sched_yield()
        os.kill(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
        scaling.wait()
    back_up(data, backup, print)
    restored = launcher("restore", str(backup), "--data", str(again))
    assert restored.returncode == 0, restored.stderr
    with running(again), skerry.Client(again) as client:
        answers = client.ask_many(message(Counter.at(f"k{n}").add) for n in range(300))
        assert answers == [2] * 300


def test_a_stopped_app_is_backed_up_too_and_is_another_app_afterwards(tmp_path: Path) -> None:
    data, backup, again = tmp_path / "data", tmp_path / "backup", tmp_path / "again"
    with running(data), skerry.Client(data) as client:
        assert client.ask(Counter.at("a").add, 3) == 3
        made = launcher("backup", str(tmp_path / "while-it-runs"), "--data", str(data))
        assert made.returncode == 0, made.stderr
        assert client.ask(Counter.at("a").add, 3) == 6
    assert launcher("backup", str(backup), "--data", str(data)).returncode == 0
    assert launcher("restore", str(backup), "--data", str(again)).returncode == 0
    got = launcher("get", "Counter/a", "--data", str(again))
    assert json.loads(got.stdout)["count"] == 6
    earlier = launcher("get", "Counter/a", "--data", str(tmp_path / "while-it-runs"))
    assert json.loads(earlier.stdout)["count"] == 3
    incarnations = {
        json.loads((folder / "app.json").read_text())["incarnation"] for folder in (data, again)
    }
    assert len(incarnations) == 2
    with running(again), skerry.Client(again) as client:
        assert client.ask(Counter.at("a").add, 1) == 7


def test_what_is_in_the_way_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    refused = launcher("backup", str(tmp_path / "used"), "--data", str(data))
    assert (refused.returncode, "is there already" in refused.stderr) == (1, True)
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["file"]
    none = launcher("restore", str(data), "--data", str(tmp_path / "new"))
    assert (none.returncode, "is no backup" in none.stderr) == (1, True)
    assert launcher("backup", str(backup), "--data", str(data)).returncode == 0
    used = launcher("restore", str(backup), "--data", str(data))
    assert (used.returncode, "is there already" in used.stderr) == (1, True)
    run = launcher("run", "tests.processes.apps", "--data", str(backup))
    assert (run.returncode, "skerry restore" in run.stderr) == (1, True)


def test_a_damaged_backup_is_named_and_nothing_is_restored(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data), skerry.Client(data) as client:
        client.ask_many(message(Counter.at(f"c{n}").name, "y" * 500) for n in range(200))
    assert launcher("backup", str(backup), "--data", str(data)).returncode == 0
    (store,) = (backup / "shard-0").glob("log-*")
    spoilt = bytearray(store.read_bytes())
    place = spoilt.index(b"y" * 400)
    spoilt[place + 100] ^= 1
    store.write_bytes(spoilt)
    done = launcher("restore", str(backup), "--data", str(tmp_path / "new"))
    assert done.returncode == 3, done.stderr
    assert str(backup / "shard-0") in done.stderr, "not the folder that was swept away"
    assert not (tmp_path / "new").exists()


def test_a_worker_that_was_started_anew_meanwhile_means_no_backup_and_says_so(
    tmp_path: Path,
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
        status = json.loads(launcher("status", "--json", "--data", str(data)).stdout)

        def kill(line: str) -> None:
            if line == "copying shard 1 …":  # The marker is on its way to both.
                os.kill(status["shards"][1]["pid"], signal.SIGKILL)

        with pytest.raises(SkerryError, match="worker 1 was started anew"):
            back_up(data, backup, kill)
        assert not backup.exists(), "half of a backup has no name"
        assert list(tmp_path.glob("*.partial")) == []
        made = back_up(data, backup, lambda line: None)
        assert made.shards == 2


def test_a_backup_that_lacks_a_shard_is_named_incomplete_and_nothing_is_restored(
    tmp_path: Path,
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
    assert launcher("backup", str(backup), "--data", str(data)).returncode == 0
    shutil.rmtree(backup / "shard-1")
    done = launcher("restore", str(backup), "--data", str(tmp_path / "new"))
    assert (done.returncode, "it has no shard-1/data.mdb" in done.stderr) == (3, True), done.stderr
    assert sorted(path.name for path in tmp_path.glob("new*")) == []
    twice = launcher("backup", str(tmp_path / "again"), "--data", str(backup))
    assert (twice.returncode, "is a backup, and no app" in twice.stderr) == (1, True)


def test_a_folder_of_somebody_else_is_never_swept_away(tmp_path: Path) -> None:
    data, theirs = tmp_path / "data", tmp_path / "backup.partial"
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
    theirs.mkdir()
    (theirs / "file").write_text("mine")
    made = launcher("backup", str(tmp_path / "backup"), "--data", str(data))
    assert (made.returncode, str(theirs) in made.stderr) == (1, True), made.stderr
    assert (theirs / "file").read_text() == "mine"


def test_a_clock_that_was_set_back_stops_no_backup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
        back_up(data, tmp_path / "first", lambda line: None)
        monkeypatch.setattr(backups.time, "time_ns", lambda: 1)
        back_up(data, tmp_path / "second", lambda line: None)
    first, second = (directory.load(tmp_path / name) for name in ("first", "second"))
    assert first is not None and first.backup is not None
    assert second is not None and second.backup is not None
    assert second.backup.marker == first.backup.marker + 1


def test_a_loss_that_was_not_accepted_is_not_laundered_by_a_backup(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with running(data), skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
    app = directory.load(data)
    assert app is not None
    app.sync, app.clean, app.boot_id = "off", False, "the boot before"
    directory.save(data, app)
    made = launcher("backup", str(tmp_path / "backup"), "--data", str(data))
    assert (made.returncode, "--accept-loss" in made.stderr) == (1, True), made.stderr
    assert list(tmp_path.glob("backup*")) == []


def test_an_app_that_is_stopped_meanwhile_ends_its_backup_with_a_sentence(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    with running(data) as process, skerry.Client(data) as client:
        client.ask(Counter.at("a").add)

        def stop(line: str) -> None:
            if line == "copying shard 1 …":
                process.kill()
                process.wait()

        with pytest.raises(SkerryError, match=r"No backup was made: the app .* ended meanwhile"):
            back_up(data, backup, stop)
    assert list(tmp_path.glob("backup*")) == []
