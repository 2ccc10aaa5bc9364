"""What a host finds when it joins: servers that will do, are not there yet, or never will."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from nats.js.api import DiscardPolicy, StorageType, StreamConfig

from skerry.errors import SkerryError, StoreDamaged
from skerry.runtime.cluster import joining, names, server, settings
from skerry.runtime.cluster.addresses import in_a_row
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.ports import Interrupted
from tests.cluster.servers import Servers, free_row

JETSTREAM = 'jetstream { store_dir: "js", max_file_store: 1GB }\n'
WITH_USER = 'authorization { user: "u", password: "sesame" }\n'


class Odd:
    """Single servers, each set up in its own way; ended with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._ends = folder, ExitStack()
        self.urls: list[str] = []

    def start(self, text: str, port: int | None = None, user: str = "") -> list[str]:
        port = port or free_row(1)
        folder = self._folder / str(port)
        folder.mkdir()
        (folder / "conf").write_text(f"listen: 127.0.0.1:{port}\n{text}")
        process = subprocess.Popen(
            [server.binary(), "-c", "conf"],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._ends.callback(process.wait)
        self._ends.callback(process.kill)
        return [f"nats://{user}127.0.0.1:{port}"]

    def engine(self, urls: list[str]) -> Engine:
        engine = Engine(urls, name="test")
        self._ends.callback(engine.close)
        return engine

    def close(self) -> None:
        self._ends.close()


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[Odd]:
    try:
        server.binary()
    except SkerryError as error:
        pytest.skip(f"needs a real NATS server. {error}")
    servers = Odd(tmp_path)
    try:
        yield servers
    finally:
        servers.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "REFUSED_S", 0.5)
    monkeypatch.setattr(joining, "SAY_S", 0.3)


def never() -> bool:
    return False


def reached(engine: Engine) -> tuple[int, list[str]]:
    lines: list[str] = []
    return joining.reach(engine, lines.append, never), lines


def test_servers_that_are_not_there_yet_are_waited_for_and_told_of(
    odd: Odd, impatient: None
) -> None:
    port = free_row(1)
    engine, told = odd.engine([f"nats://u:sesame@127.0.0.1:{port}"]), threading.Event()
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            told.set()

    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(joining.reach(engine, say, never)))
    waiting.start()
    assert told.wait(60)
    odd.start(JETSTREAM + WITH_USER, port)
    waiting.join(60)
    assert found == [1]
    assert f"No NATS server at nats://127.0.0.1:{port} has answered" in lines[0]
    assert "refused" in lines[0].lower() or "Connect call failed" in lines[0]
    assert "sesame" not in "".join(lines)


def test_a_wait_ends_when_the_process_is_told_to_stop(odd: Odd, impatient: None) -> None:
    engine, lines = odd.engine(["nats://nowhere.invalid:4222"]), list[str]()
    with pytest.raises(Interrupted):
        joining.reach(engine, lines.append, lambda: bool(lines))
    assert "nowhere.invalid" in lines[0]


@pytest.mark.parametrize("user", ["u:secret@", ""])
def test_wrong_credentials_are_refused_and_not_shown(odd: Odd, user: str) -> None:
    engine = odd.engine(odd.start(JETSTREAM + WITH_USER, user=user))
    with pytest.raises(SkerryError, match="lets nobody in with these credentials") as refused:
        reached(engine)
    assert "secret" not in str(refused.value)


def test_a_missing_permission_is_named(odd: Odd) -> None:
    denied = 'permissions: { publish: { deny: ["$JS.API.STREAM.CREATE.>"] } }'
    users = f"authorization {{ users: [ {{ user: u, password: sesame, {denied} }} ] }}\n"
    engine = odd.engine(odd.start(JETSTREAM + users, user="u:sesame@"))
    replicas, lines = reached(engine)
    with pytest.raises(SkerryError, match=r"(?is)forbids what skerry needs.*stream\.create"):
        joining.bucket(engine, "shop", replicas, lines.append, never)


NO_ACCOUNT = (
    "accounts { A: { users: [ { user: u, password: sesame } ] }, B: { jetstream: enabled } }\n"
)


@pytest.mark.parametrize(("text", "user"), [("", ""), (JETSTREAM + NO_ACCOUNT, "u:sesame@")])
def test_servers_without_jetstream_are_refused(
    odd: Odd, impatient: None, text: str, user: str
) -> None:
    with pytest.raises(SkerryError, match="runs without JetStream"):
        reached(odd.engine(odd.start(text, user=user)))


def test_one_server_will_do_and_is_said_to_survive_no_loss(odd: Odd) -> None:
    engine = odd.engine(odd.start(JETSTREAM))
    replicas, lines = reached(engine)
    assert replicas == 1
    assert "survives no loss of that machine" in lines[-1]
    assert joining.bucket(engine, "shop", replicas, lines.append, never).name == "skerry-shop"


def monitored(odd: Odd, jetstream: str) -> list[str]:
    """What is said of a server with such a setting of JetStream, whose monitoring port answers."""
    (ports,) = in_a_row(free_row(1), 1)
    text = f'http: "127.0.0.1:{ports.monitor}"\njetstream {{ store_dir: "js", {jetstream} }}\n'
    return reached(odd.engine(odd.start(text, ports.clients)))[1]


def test_servers_that_acknowledge_before_they_sync_are_told_of_with_what_mends_it(odd: Odd) -> None:
    (warning,) = [line for line in monitored(odd, "") if "a power cut can lose work" in line]
    assert " only every 120 s: " in warning
    assert "`sync_interval: always`" in warning
    (warning,) = [line for line in monitored(odd, "sync_interval: 5s") if "power cut" in line]
    assert " only every 5 s: " in warning


def test_servers_that_sync_first_are_accepted_without_words(nats: Servers, odd: Odd) -> None:
    """As those are that `skerry cluster up` starts."""
    assert reached(odd.engine(nats.servers)) == (3, [])
    assert not [line for line in monitored(odd, "sync_interval: always") if "power cut" in line]


def test_a_cluster_of_two_servers_is_refused(odd: Odd, impatient: None) -> None:
    two = in_a_row(free_row(2), 2)
    routes = ", ".join(f"nats://127.0.0.1:{each.routes}" for each in two)
    urls: list[str] = []
    for number, each in enumerate(two):
        listen = f"listen: 127.0.0.1:{each.routes}, routes: [{routes}]"
        text = f"server_name: n{number}\n{JETSTREAM}cluster {{ name: two, {listen} }}\n"
        urls += odd.start(text, each.clients)
    engine = odd.engine(urls)
    replicas, lines = reached(engine)
    with pytest.raises(SkerryError, match=r"to be kept by 3 servers .* has 2\. Start more"):
        joining.bucket(engine, "shop", replicas, lines.append, never)


def test_an_old_release_is_refused_by_name(
    nats: Servers, odd: Odd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "LOWEST", (99, 0))
    with pytest.raises(SkerryError, match=r"is nats-server \d+\.\d+\.\d+, and skerry needs 99\.0"):
        reached(odd.engine(nats.servers))


def made_otherwise(nats: Servers, odd: Odd, app: str, **fields: object) -> tuple[Engine, str]:
    engine = odd.engine(nats.servers)
    config = settings.of_bucket(names.of_app(app), replicas=3).evolve(**fields)
    engine.run(lambda client: client.jetstream().add_stream(config), 10)
    with pytest.raises(SkerryError, match="is not set up as skerry does it") as refused:
        joining.bucket(engine, app, 3, print, never)
    return engine, str(refused.value)


@pytest.mark.parametrize(
    ("app", "fields", "edit"),
    [
        ("one", {"num_replicas": 1}, "--replicas 3"),
        ("old", {"discard": DiscardPolicy.OLD}, "--discard new"),
        ("age", {"max_age": 3600.0}, "--max-age 0s"),
        ("direct", {"allow_direct": True}, "--no-allow-direct"),
        ("two", {"subjects": ["$KV.skerry-two.>", "x"]}, "--subjects '$KV.skerry-two.>'"),
        ("history", {"max_msgs_per_subject": 5}, "--max-msgs-per-subject 1"),
        ("few", {"max_msgs": 9}, "--max-msgs=-1"),
        ("silent", {"no_ack": True}, "--ack"),
    ],
)
def test_a_bucket_that_was_made_by_hand_is_refused_with_what_mends_it(
    nats: Servers, odd: Odd, app: str, fields: dict[str, object], edit: str
) -> None:
    engine, said = made_otherwise(nats, odd, app, **fields)
    [field] = fields
    assert f"{field} is " in said
    assert f"`nats stream edit KV_skerry-{app} {edit}`" in said
    mended = settings.of_bucket(names.of_app(app), replicas=3)
    engine.run(lambda client: client.jetstream().update_stream(mended), 10)
    assert joining.bucket(engine, app, 3, print, never)


def test_each_wrong_field_of_a_bucket_is_named_and_one_that_stays_has_another_way_out(
    nats: Servers, odd: Odd
) -> None:
    _, said = made_otherwise(nats, odd, "many", storage=StorageType.MEMORY, num_replicas=1)
    assert "num_replicas is 1 and not 3, storage is memory and not file" in said
    assert "can't be edited" in said and "nats stream backup KV_skerry-many" in said


def test_logs_without_the_bucket_that_describes_them_are_damage(nats: Servers, odd: Odd) -> None:
    engine = odd.engine(nats.servers)

    def make(name: str, *, written: bool) -> str:
        log = StreamConfig(name=name, subjects=[name], num_replicas=3)
        engine.run(lambda client: client.jetstream().add_stream(log), 10)
        if written:
            engine.run(lambda client: client.jetstream().publish(name, b"x"), 10)
        return name

    make(names.log_of("gone-b", "ab" * 16, 0), written=True)
    make(names.log_of("gone", "ab" * 16, 0), written=False)
    made = joining.bucket(engine, "gone", 3, print, never)
    assert made, "these are another app's, and of a first start that was cut short"
    log = make(names.log_of("lost", "ab" * 16, 0), written=True)
    with pytest.raises(StoreDamaged, match=log):
        joining.bucket(engine, "lost", 3, print, never)


def test_two_hosts_that_make_the_bucket_at_once_get_one(nats: Servers, odd: Odd) -> None:
    engines = [odd.engine(nats.servers) for _ in range(4)]
    found: list[str] = []

    def make(engine: Engine) -> Callable[[], None]:
        return lambda: found.append(joining.bucket(engine, "race", 3, print, never).name)

    threads = [threading.Thread(target=make(engine)) for engine in engines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == ["skerry-race"] * 4
