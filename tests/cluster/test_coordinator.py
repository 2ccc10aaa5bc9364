"""Which process is a host, who leads, and what hosts agree on, when any of them ends or freezes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec.structs import replace

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.app import directory
from skerry.runtime.cluster import bucket as buckets
from skerry.runtime.cluster import names
from skerry.runtime.cluster.bucket import Bucket
from skerry.runtime.cluster.coordinator import ClusterCoordinator
from skerry.runtime.cluster.engine import Away, Engine
from skerry.runtime.cluster.lease import NS, Lease
from skerry.runtime.cluster.presence import DESCRIPTION, boottime_ns
from skerry.runtime.ports import Deposed, Interrupted
from tests.cluster.servers import Servers
from tests.processes.started import ROOT
from tests.store import described

LEASE_S = 2.0
HOST = "h"
"""The name of all hosts here that are to exclude each other."""


class Hosts:
    """Hosts of one app, in this process or in processes of their own."""

    def __init__(self, nats: Servers, folder: Path, app: str) -> None:
        self.nats, self.folder, self.app = nats, folder, app
        self._ends = ExitStack()

    def engine(self) -> Engine:
        engine = Engine(self.nats.servers, name="test")
        self._ends.callback(engine.close)
        return engine

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.engine(), f"skerry-{self.app}")

    def here(
        self,
        name: str,
        say: Callable[[str], None] = print,
        stop: Callable[[], bool] = lambda: False,
        host: str = HOST,
    ) -> ClusterCoordinator:
        """A host in this process; `name` is that of its folder."""
        data = self.folder / name
        return ClusterCoordinator(
            self.engine(), self.app, host, data, say=say, stop=stop, lease_s=LEASE_S
        )

    def made(self, name: str, host: str = HOST) -> ClusterCoordinator:
        """A host in this process, which has made the app."""
        first = self.here(name, host=host)
        first.acquire()
        first.replace(described.make(self.folder / "made"), generation=0)
        return first

    def start(self, name: str) -> Holder:
        """A host in its own process."""
        holder = Holder(self.folder / name, self.nats.url, self.app)
        self._ends.callback(holder.kill)
        return holder

    def close(self) -> None:
        self._ends.close()


class Holder:
    """See `holder.py`."""

    def __init__(self, data: Path, url: str, app: str) -> None:
        self._claims, self._said = Path(f"{data}.claims"), Path(f"{data}.said")
        command = [sys.executable, "-m", "tests.cluster.holder", url, app, HOST, str(data)]
        self._process = subprocess.Popen([*command, str(LEASE_S)], cwd=ROOT)

    def claims(self) -> list[int]:
        """The moments at which it held the lease."""
        lines = self._claims.read_text().splitlines() if self._claims.exists() else []
        return [int(line) for line in lines if line != "lost"]

    def until(self, come: Callable[[], bool]) -> None:
        while not come():
            assert self._process.poll() is None or self.lost(), "it has ended"
            os.sched_yield()

    def until_held(self) -> None:
        self.until(lambda: len(self.claims()) > 0)

    def until_waiting(self) -> None:
        self.until(lambda: self._said.exists() and "waiting: " in self._said.read_text())

    def lost(self) -> bool:
        return self._claims.exists() and self._claims.read_text().endswith("lost\n")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@pytest.fixture
def hosts(nats: Servers, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    made = Hosts(nats, tmp_path, f"held-{abs(hash(request.node.nodeid)) % 10**8}")
    yield made
    made.close()


def overlap(one: Holder, other: Holder) -> bool:
    """Whether one has held the lease after the other had begun to, and the other way round."""
    a, b = one.claims(), other.claims()
    return max(a) >= min(b) and max(b) >= min(a)


# ── who holds the lease ──


def test_a_holder_that_is_killed_is_replaced_once_its_lease_is_over(hosts: Hosts) -> None:
    first = hosts.start("a")
    first.until_held()
    second = hosts.start("b")
    second.until_waiting()
    first.kill()
    second.until_held()
    assert not overlap(first, second)
    took_s = (second.claims()[0] - first.claims()[-1]) / 1e9
    assert took_s >= LEASE_S / 2, "it was not waited for"


def test_a_holder_that_was_frozen_past_its_lease_never_holds_it_again(hosts: Hosts) -> None:
    first = hosts.start("a")
    first.until_held()
    second = hosts.start("b")
    second.until_waiting()
    first.send(signal.SIGSTOP)
    second.until_held()
    first.send(signal.SIGCONT)
    first.until(first.lost)
    assert not overlap(first, second)
    assert not second.lost()


def test_the_next_process_of_a_machine_does_not_wait_for_the_lease_of_the_one_before(
    hosts: Hosts,
) -> None:
    first = hosts.start("a")
    first.until_held()
    first.kill()
    lines: list[str] = []
    second = hosts.here("a", lines.append)
    second.acquire()
    assert second.holds() and lines == []
    second.release()


def test_a_lease_that_is_given_back_is_taken_without_its_end(hosts: Hosts) -> None:
    first = hosts.made("a")
    first.release()
    lines: list[str] = []
    second = hosts.here("b", lines.append)
    second.acquire()
    assert second.holds() and lines == []
    second.release()


def test_a_host_whose_name_is_taken_says_so_once_and_stops_when_told_to(
    hosts: Hosts,
) -> None:
    first = hosts.made("a")
    lines: list[str] = []
    looks = iter(range(40))
    second = hosts.here("b", lines.append, lambda: next(looks, None) is None)
    with pytest.raises(Interrupted):
        second.acquire()
    assert len(lines) == 1
    assert lines[0].startswith(f"waiting: host h (process {os.getpid()}) runs {hosts.app}")
    assert "--host" in lines[0]
    assert not directory.is_running(hosts.folder / "b")
    first.release()


def waits(hosts: Hosts, name: str) -> tuple[ClusterCoordinator, threading.Thread]:
    said = threading.Event()
    second = hosts.here(name, lambda line: said.set())
    thread = threading.Thread(target=second.acquire)
    thread.start()
    assert said.wait(30)
    return second, thread


def test_an_election_takes_the_lease_from_nobody(hosts: Hosts, nats: Servers) -> None:
    first = hosts.made("a")
    second, thread = waits(hosts, "b")
    stream = f"KV_skerry-{hosts.app}"
    for _ in range(2):
        led = nats.leader(stream)
        nats.kill(led)
        while nats.leader(stream) == led:
            pass
        nats.start(led)
        before = first.until_ns
        while first.until_ns == before or not first.holds():
            assert thread.is_alive(), "the lease was taken in an election"
    first.release()
    thread.join(60)
    second.release()


def test_servers_that_were_all_down_find_the_lease_where_it_was(
    hosts: Hosts, nats: Servers
) -> None:
    first = hosts.made("a")
    second, thread = waits(hosts, "b")
    for i in nats.indexes:
        nats.kill(i)
    while first.holds():
        os.sched_yield()
    nats.heal()
    while not first.holds():
        assert thread.is_alive(), "the lease was taken though nobody could renew it"
    first.release()
    thread.join(60)
    assert second.holds()
    second.release()


def test_a_leader_that_still_answers_but_writes_nothing_takes_the_lease_from_nobody(
    hosts: Hosts, nats: Servers
) -> None:
    first = hosts.made("a")
    second, thread = waits(hosts, "b")
    led = nats.leader(f"KV_skerry-{hosts.app}")
    for i in set(nats.indexes) - {led}:
        nats.kill(i)
    while first.holds():
        os.sched_yield()
    silent_ns = boottime_ns() + int(1.5 * LEASE_S * NS)
    while boottime_ns() < silent_ns:
        os.sched_yield()
    nats.heal()
    while not first.holds():
        assert thread.is_alive(), "the lease was taken though nobody could renew it"
    first.release()
    thread.join(60)
    second.release()


def test_a_host_that_could_not_renew_a_lease_itself_takes_none(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    hosts.made("made").release()
    first = hosts.start("a")
    first.until_held()
    second, thread = waits(hosts, "b")
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "set", away)
        first.kill()
        over_ns = boottime_ns() + int(2 * LEASE_S * NS)
        while boottime_ns() < over_ns:
            assert thread.is_alive()
            os.sched_yield()
    thread.join(60)
    assert second.holds()
    second.release()


def away(*_: object) -> None:
    raise Away("nothing can be written")


def test_a_lease_that_is_overwritten_by_hand_is_lost_at_the_next_renewal(hosts: Hosts) -> None:
    first = hosts.made("a")
    hosts.bucket.set(names.host_of(HOST), b"mine")
    while first.until_ns:
        os.sched_yield()
    assert not first.holds()
    first.release()
    assert hosts.bucket.get(names.host_of(HOST)).value == b"mine", (
        "what is there now is somebody else's"
    )


def test_many_hosts_at_once_hold_the_lease_one_after_the_other(hosts: Hosts) -> None:
    held: list[str] = []
    guard = threading.Lock()

    def hold(name: str) -> None:
        host = hosts.here(name)
        host.acquire()
        assert guard.acquire(blocking=False), "two hold it at once"
        held.append(name)
        assert host.holds()
        guard.release()
        host.release()

    threads = [threading.Thread(target=hold, args=(f"h{n}",)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    assert sorted(held) == ["h0", "h1", "h2", "h3", "h4"]


# ── what is agreed on ──


def test_the_next_host_finds_the_description_and_has_a_copy(hosts: Hosts) -> None:
    first = hosts.made("a")
    app = first.read()
    assert app is not None and directory.load(hosts.folder / "a") == app
    app.target = "changed"
    first.replace(app, generation=app.generation)
    first.release()
    second = hosts.here("b")
    second.acquire()
    assert second.read() == app
    assert directory.load(hosts.folder / "b") == app
    second.release()


def test_a_host_that_was_deposed_changes_nothing(hosts: Hosts) -> None:
    first = hosts.made("a", "a")
    app = first.read()
    assert app is not None
    second = hosts.here("b", host="b")
    second.acquire()
    started = second.read()
    assert started is not None
    started.generation += 1
    second.replace(started, generation=app.generation)
    app.target = "of the one before"
    with pytest.raises(Deposed, match=f"it describes start {started.generation}"):
        first.replace(app, generation=app.generation)
    assert second.read() == started
    first.release()
    second.release()


def test_a_change_that_is_based_on_an_older_description_is_refused(hosts: Hosts) -> None:
    first = hosts.made("a", "a")
    second = hosts.here("b", host="b")
    second.acquire()
    one, other = first.read(), second.read()
    assert one is not None and other is not None
    one.target, other.target = "one", "other"
    first.replace(one, generation=one.generation)
    with pytest.raises(Deposed, match="it describes another one now"):
        second.replace(other, generation=other.generation)
    first.replace(one, generation=one.generation)  # As after an answer that was lost.
    assert second.read() == one
    first.release()
    second.release()


def damaged(hosts: Hosts, value: bytes | None) -> ClusterCoordinator:
    first = hosts.made("a")
    first.release()
    bucket = hosts.bucket
    bucket.change(DESCRIPTION, value, bucket.get(DESCRIPTION).revision).finish()
    second = hosts.here("b")
    second.acquire()
    return second


def test_a_description_that_was_changed_by_hand_is_damage(hosts: Hosts) -> None:
    second = damaged(hosts, b'{"checksum":"0000000000000000","format":2}')
    with pytest.raises(StoreDamaged, match=f"description of the bucket skerry-{hosts.app} in NATS"):
        second.read()
    second.release()


def test_a_description_that_is_gone_while_a_host_runs_is_damage(hosts: Hosts) -> None:
    first = hosts.made("a")
    bucket = hosts.bucket
    bucket.change(DESCRIPTION, None, bucket.get(DESCRIPTION).revision).finish()
    with pytest.raises(StoreDamaged, match="it had one before"):
        first.read()
    first.release()


def test_a_folder_of_another_app_is_left_alone(hosts: Hosts) -> None:
    other = described.make(hosts.folder / "a")
    first = hosts.here("a")
    first.acquire()
    with pytest.raises(
        SkerryError, match=r"holds the app .described., which NATS .* does not know"
    ):
        first.read()
    first.replace(described.make(hosts.folder / "made"), generation=0)
    directory.save(hosts.folder / "a", other)
    with pytest.raises(SkerryError, match="holds another app"):
        first.read()
    assert directory.load(hosts.folder / "a") == other
    first.release()


def test_servers_that_have_lost_a_description_are_found_out(hosts: Hosts) -> None:
    first = hosts.made("a")
    app = first.read()
    assert app is not None
    newer = replace(app, generation=app.generation + 1)
    directory.save(hosts.folder / "a", newer)
    with pytest.raises(StoreDamaged, match="NATS has lost what it acknowledged"):
        first.read()
    first.release()


def test_an_older_description_than_one_that_was_seen_is_ignored(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hosts.made("a")
    bucket = hosts.bucket
    old = bucket.get(DESCRIPTION)
    app = first.read()
    assert app is not None
    app.target = "newer"
    first.replace(app, generation=app.generation)
    monkeypatch.setattr(Bucket, "get", lambda self, key: old)
    assert first.read() == app
    first.release()


# ── who is there, and who leads ──


def present(hosts: Hosts, *names: str) -> list[ClusterCoordinator]:
    """Hosts in this process, which know of each other."""
    found = [hosts.here(name, host=name) for name in names]
    for host in found:
        host.acquire()
    for host in found:
        while host.hosts.keys() != set(names):
            os.sched_yield()
    return found


def leader(hosts: list[ClusterCoordinator]) -> ClusterCoordinator:
    """The one that leads, once there is one."""
    while not any(host.leads for host in hosts):
        os.sched_yield()
    assert [host.leads for host in hosts].count(True) == 1
    return next(host for host in hosts if host.leads)


def test_one_host_leads_and_another_one_when_that_has_ended(hosts: Hosts) -> None:
    three = present(hosts, "a", "b", "c")
    first = leader(three)
    three.remove(first)
    first.release()
    second = leader(three)
    assert second.host != first.host
    for host in three:
        host.release()


def test_a_host_that_is_killed_is_evicted_once_its_lease_is_over_and_another_one_leads(
    hosts: Hosts,
) -> None:
    killed = hosts.start("k")
    killed.until_held()
    (other,) = present_with(hosts, "b")
    killed.kill()
    killed_ns = boottime_ns()
    while HOST in other.hosts:
        assert not other.is_absent(HOST) or boottime_ns() > killed_ns + LEASE_S / 2 * NS
    while not other.leads:
        os.sched_yield()
    assert other.is_absent(HOST)
    other.release()


def present_with(hosts: Hosts, *names: str) -> list[ClusterCoordinator]:
    """Hosts in this process beside one of another."""
    found = [hosts.here(name, host=name) for name in names]
    for host in found:
        host.acquire()
        while host.hosts.keys() != {*names, HOST}:
            os.sched_yield()
    return found


def test_a_host_that_was_evicted_never_holds_its_lease_again(hosts: Hosts) -> None:
    frozen = hosts.start("k")
    frozen.until_held()
    (other,) = present_with(hosts, "b")
    frozen.send(signal.SIGSTOP)
    while HOST in other.hosts:
        os.sched_yield()
    evicted_ns = boottime_ns()
    frozen.send(signal.SIGCONT)
    frozen.until(frozen.lost)
    assert max(frozen.claims()) < evicted_ns
    other.release()


def test_a_host_that_ended_in_order_is_there_until_its_lease_is_over(hosts: Hosts) -> None:
    one, other = present(hosts, "a", "b")
    one.release()
    while not other.hosts["a"].ended:
        os.sched_yield()
    assert not other.is_absent("a")
    while "a" in other.hosts:
        os.sched_yield()
    other.release()


def test_a_host_that_has_left_is_gone_at_once(hosts: Hosts) -> None:
    one, other = present(hosts, "a", "b")
    one.leave()
    assert other.is_absent("a")
    one.release()
    other.release()


def test_hosts_agree_on_keys_and_tell_each_other_where_they_are(hosts: Hosts) -> None:
    one, other = present(hosts, "a", "b")
    assert one.keys == other.keys
    one.tell(address="127.0.0.1:7", key="k")
    while other.hosts["a"].address != "127.0.0.1:7":
        os.sched_yield()
    one.release()
    other.release()


# ── compare-and-set ──


def test_a_host_whose_clock_is_an_hour_ahead_is_seen(hosts: Hosts) -> None:
    first = hosts.made("a")
    bucket, key, revision = hosts.bucket, names.host_of("b"), 0
    while not first.ahead_s.get("b"):
        ahead = Lease(host="b", nonce="b", pid=1, lease_s=60.0, time_s=time.time() + 3600)
        revision = bucket.change(key, ahead.encoded(), revision).finish()
    assert 3590 < first.ahead_s["b"] < 3610
    first.release()


def test_each_of_many_writers_at_once_replaces_what_it_has_read(
    hosts: Hosts, nats: Servers
) -> None:
    """Case 2: the number grows by one per change, also when answers are lost.

    Whoever is overtaken may have made its change before, if its answer was lost.
    """
    first = hosts.made("a")
    first.release()
    made: list[int] = []
    overtaken: set[int] = set()

    def write() -> None:
        bucket = hosts.bucket
        done = 0
        while done < 20:
            found = bucket.get("n")
            number = int(found.value or b"0") + 1
            try:
                bucket.change("n", str(number).encode(), found.revision).finish()
            except buckets.Overtaken:
                overtaken.add(number)
                continue
            made.append(number)
            done += 1

    threads = [threading.Thread(target=write) for _ in range(3)]
    for thread in threads:
        thread.start()
    while len(made) < 10:
        os.sched_yield()
    nats.kill(nats.leader(f"KV_skerry-{hosts.app}"))
    for thread in threads:
        thread.join(100)
    assert len(set(made)) == len(made) == 60
    last = int(hosts.bucket.get("n").value or b"")
    assert set(range(1, last + 1)) - set(made) <= overtaken
    assert max(made) <= last
