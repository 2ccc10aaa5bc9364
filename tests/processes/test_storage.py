"""What the disk and a new release can do to an app, tried with real processes."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

import skerry
from examples.bank import Account
from skerry import SkerryError, StoreFull, message
from skerry.runtime.app import directory
from tests.processes.apps import Blob, Counter
from tests.processes.started import launcher, running
from tests.store.image import image


def test_a_store_that_reaches_its_quota_takes_nothing_new_and_loses_nothing(tmp_path: Path) -> None:
    data = tmp_path / "data"
    filled = []
    with running(data, "--quota", "64M"), skerry.Client(data) as client:
        # Each word of it can be followed: what a full store refuses, it does not advise.
        with pytest.raises(StoreFull, match=r"room by `skerry dead drop`, or .* larger --quota"):
            for n in range(4000):
                client.ask(Blob.at(f"b{n}").fill, 100_000)
                filled.append(f"b{n}")
        assert client.ask(Counter.at("a").value) == 0, "a query needs no room"
        assert {key for key, _ in client.scan(Blob)} == set(filled)
    assert len(filled) > 50
    assert launcher("check", str(data)).returncode == 0
    with running(data, "--quota", "1G"), skerry.Client(data) as client:
        assert {key for key, _ in client.scan(Blob)} == set(filled)
        assert client.ask(Blob.at("more").fill, 100_000) == 100_000


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """A file system of its own on this folder. Skips where none can be mounted."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_ends_the_app_with_its_name_and_loses_nothing_acknowledged(
    tmp_path: Path,
) -> None:
    with small_disk(tmp_path / "disk", "24M"):
        data = tmp_path / "disk" / "data"
        filled = []
        said = tmp_path / "said"
        with running(data, said=said) as process, skerry.Client(data) as client:
            waiting = client.options(timeout=3)
            try:
                for n in range(4000):
                    waiting.ask(Blob.at(f"b{n}").fill, 100_000)
                    filled.append(f"b{n}")
            except (skerry.TimedOut, skerry.Unavailable):
                pass
            assert process.wait(timeout=60) == 1
        assert "is full" in said.read_text()
        assert len(filled) > 50
        subprocess.run(["mount", "-o", "remount,size=200M", str(tmp_path / "disk")], check=True)
        with running(data), skerry.Client(data) as client:
            assert {key for key, _ in client.scan(Blob)} >= set(filled)
        assert launcher("check", str(data)).returncode == 0


def test_more_entities_than_the_cache_holds_are_all_counted(tmp_path: Path) -> None:
    data = tmp_path / "data"
    keys = [f"k{n}" for n in range(30_000)]
    with running(data, "--cache", "1M"), skerry.Client(data) as client:
        for _ in range(2):
            client.ask_many([message(Counter.at(key).add) for key in keys])
        assert {key: counter.count for key, counter in client.scan(Counter)} == dict.fromkeys(
            keys, 2
        )


@pytest.mark.parametrize("sync", ["10ms", "off"])
def test_softer_syncs_keep_everything_when_all_processes_are_killed(
    tmp_path: Path, sync: str
) -> None:
    data = tmp_path / "data"
    with running(data, "--sync", sync) as process, skerry.Client(data) as client:
        client.ask_many([message(Counter.at(f"k{n % 7}").add) for n in range(700)])
        process.kill()
        process.wait()
    with running(data, "--sync", sync), skerry.Client(data) as client:
        assert {c.count for _, c in client.scan(Counter)} == {100}


@pytest.mark.parametrize("sync", ["commit", "10ms"])
def test_what_clients_were_told_is_there_after_power_cuts_under_load(
    tmp_path: Path, sync: str
) -> None:
    told = dict.fromkeys(("a", "b", "c", "d"), 0)

    def load(client: skerry.Client, key: str) -> None:
        """One request after the other, until there is no answer any more."""
        with suppress(SkerryError):
            while True:
                told[key] = client.ask(Counter.at(key).add)

    with image(tmp_path, 128) as real, ThreadPoolExecutor() as pool:
        data, said = real.path / "data", tmp_path / "said"
        for count in (30, 90):
            before = sum(told.values())
            with running(data, "--sync", sync, said=said) as process, skerry.Client(data) as client:
                loads = [pool.submit(load, client.options(timeout=1), key) for key in told]
                while sum(told.values()) < before + count:
                    assert not any(one.done() for one in loads), said.read_text()
                    os.sched_yield()
                real.power_fails()
                process.kill()
                wait(loads)
            real.power_comes_back()
            assert launcher("check", str(data)).returncode == 0
            with running(data, said=said), skerry.Client(data) as client:
                for key, known in told.items():
                    told[key] = client.ask(Counter.at(key).value)
                    assert known <= told[key] <= known + 1


def describe(data: Path, **changes: Any) -> None:
    """Write an app's description anew, otherwise as it was."""
    known = directory.load(data)
    assert known is not None
    directory.save(data, msgspec.structs.replace(known, **changes))


def test_after_a_power_cut_with_sync_off_a_start_needs_a_word(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, "--sync", "off") as process, skerry.Client(data) as client:
        client.ask(Counter.at("a").add)
        process.kill()
        process.wait()
    describe(data, boot_id="another boot")
    refused = launcher("run", "tests.processes.apps", "--data", str(data))
    assert (refused.returncode, "--accept-loss" in refused.stderr) == (1, True)
    with running(data, "--accept-loss"), skerry.Client(data) as client:
        assert client.ask(Counter.at("a").add) == 2


OLD = """
from skerry import App, Entity, send_later, set_timer

class Konto(Entity):
    balance: int = 0
    note: str = ""
    limit: int = 7

    def pay_in(self, amount: int) -> int:
        self.balance += amount
        return self.balance

    def plan(self, amount: int) -> None:
        send_later(WAIT, self.pay_in, amount)

class Odd(Entity):
    value: str = "not a number"

    def touch(self) -> None: ...

app = App("evolving", entities=[Konto, Odd])
"""

NEW = """
from skerry import App, Entity, handler, send_later

class Account(Entity, was="Konto", renamed={"note": "memo"}):
    tags: list[str] = []
    memo: str = ""
    balance: int = 0

    @handler(was="pay_in")
    def deposit(self, amount: int, times: int = 2) -> int:
        self.balance += amount * times
        return self.balance

class Odd(Entity):
    value: int = 0
    UPGRADE

    def touch(self) -> int:
        return self.value

app = App("evolving", entities=[Account, Odd])
"""
UPGRADE = """
    @classmethod
    def _upgrade(cls, old: dict) -> dict:
        return {"value": len(old["value"])}
"""


def test_a_new_release_reads_old_states_and_messages_that_lie_in_the_store(tmp_path: Path) -> None:
    data, source = tmp_path / "data", tmp_path / "evolving.py"
    at = ("--data", str(data))
    source.write_text(OLD.replace("WAIT", "3"))
    with running(data, target="evolving.py", cwd=tmp_path):
        launcher("ask", "Konto/a", "pay_in", "5", *at)
        launcher("send", "Odd/a", "touch", *at)
        launcher("send", "Konto/a", "plan", "10", *at)  # Last: the app is stopped before it is due.
    source.write_text(NEW.replace("UPGRADE", ""))
    with running(data, target="evolving.py", cwd=tmp_path):
        while (state := json.loads(launcher("get", "Account/a", *at).stdout))["balance"] == 5:
            pass
        assert state["balance"] == 25, "the old message got the new argument's default"
        assert launcher("ask", "Account/a", "deposit", "1", *at).stdout == "27\n"
        state = json.loads(launcher("get", "Account/a", *at).stdout)
        assert state == {"balance": 27, "memo": "", "tags": []}
        odd = launcher("ask", "Odd/a", "touch", *at)
        assert (odd.returncode, "IncompatibleState" in odd.stderr) == (1, True)
        assert "_upgrade" in odd.stderr
    source.write_text(NEW.replace("UPGRADE", UPGRADE))
    with running(data, target="evolving.py", cwd=tmp_path):
        assert launcher("ask", "Odd/a", "touch", *at).stdout == "12\n"


def test_files_and_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        sockets = Path(json.loads((data / "run.json").read_text())["sockets"])
        for path in [*data.rglob("*"), sockets, *sockets.iterdir()]:
            assert not path.stat().st_mode & 0o077, path


def asks_under_way(data: Path) -> int:
    """How many entities wait for an outcome."""
    told = launcher("status", "--json", "--data", str(data))
    return sum(shard["asks"] for shard in json.loads(told.stdout)["shards"])


def test_shards_that_lost_different_amounts_are_refused_until_the_loss_is_accepted(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    for _ in range(2):
        if data.exists():
            shutil.copytree(data / "shard-0", tmp_path / "older")
        with running(data, target="examples.bank"), skerry.Client(data) as client:
            names = [f"a{n}" for n in range(20)]
            client.ask_many([message(Account.at(name).deposit, 100) for name in names])
            client.ask_many([message(Account.at(n).transfer, "a0", 1) for n in names[1:]])
            # Until the replies are back, too: by what one has taken the other is known to be older.
            while client.ask(Account.at("a0").deposit, 0) % 100 < 19 or asks_under_way(data):
                pass
    label = (data / "shard-0" / "store.json").read_bytes()
    shutil.rmtree(data / "shard-0")
    (tmp_path / "older").rename(data / "shard-0")
    (data / "shard-0" / "store.json").write_bytes(label)  # Which a power cut does not set back.
    mixed = launcher("run", "examples.bank", "--data", str(data))
    assert (mixed.returncode, "went back in time" in mixed.stderr) == (3, True)
    describe(data, sync="off", boot_id="another boot")
    accept = ("--sync", "off", "--accept-loss")
    with running(data, *accept, target="examples.bank"), skerry.Client(data) as client:
        before = client.get(Account.at("a1")).balance
        assert client.ask(Account.at("a1").deposit, 5) == before + 5
    assert launcher("check", str(data)).returncode == 0


REMOVED = """
from skerry import App, Entity, set_timer

class Kept(Entity):
    n: int = 0

    def _remind(self) -> None:
        self.n += 1

class Gone(Entity):
    n: int = 0

    def start(self) -> None:
        self.n = 1
        set_timer("remind", 0.5, self._remind)

    def _remind(self) -> None:
        self.n += 1

app = App("removed", entities=[CLASSES])
"""


def test_what_is_left_of_a_class_that_is_gone_is_named_read_and_taken_up_again(
    tmp_path: Path,
) -> None:
    data, source = tmp_path / "data", tmp_path / "removed.py"
    at = ("--data", str(data))

    def release(classes: str) -> None:
        source.write_text(REMOVED.replace("CLASSES", classes))

    release("Kept, Gone")
    with running(data, target="removed.py", cwd=tmp_path):
        launcher("ask", "Gone/a", "start", *at)
    release("Kept")
    with running(data, target="removed.py", cwd=tmp_path):
        while not (listed := launcher("dead", "list", *at).stdout):
            pass
        assert "Gone/a  _remind" in listed and "has no handler Gone._remind" in listed
        assert launcher("get", "Gone/a", *at).stdout == '{"n": 1}\n'
        assert launcher("count", "Gone", *at).stdout == "1\n"
        assert launcher("export", "Gone", *at).stdout == '{"key": "a", "state": {"n": 1}}\n'
        assert launcher("get", "Gone/b", *at).returncode == 1
        assert "no entity type `Gon`" in launcher("get", "Gon/a", *at).stderr
        assert "no entity type `Gone`" in launcher("ask", "Gone/a", "start", *at).stderr
        refused = launcher("dead", "retry", "--all", *at)
        assert (refused.returncode, "retried 0 of 1" in refused.stdout) == (1, True)
        assert "This release does not have its handler" in refused.stderr
    release("Kept, Gone")
    with running(data, target="removed.py", cwd=tmp_path):
        done = launcher("dead", "retry", "--all", "--type", "Gone", "--handler", "_remind", *at)
        assert done.stdout == "retried 1 of 1 dead letters\n"
        assert launcher("get", "Gone/a", *at).stdout == '{"n": 2}\n'
        assert launcher("dead", "list", *at).stdout == ""


def test_a_limit_on_files_that_is_met_is_named_and_is_no_damage(tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said"
    filled = []
    with running(data, said=said) as process, skerry.Client(data) as client:
        waiting = client.options(timeout=3)
        for worker in psutil.Process(process.pid).children():
            resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
        with pytest.raises((skerry.TimedOut, skerry.Unavailable)):
            for n in range(400):
                waiting.ask(Blob.at(f"b{n}").fill, 100_000)
                filled.append(f"b{n}")
        assert process.wait(timeout=60) == 1
    assert "raise `ulimit -f`" in said.read_text()
    assert "needs a person" not in said.read_text()
    with running(data), skerry.Client(data) as client:
        assert {key for key, _ in client.scan(Blob)} >= set(filled)
