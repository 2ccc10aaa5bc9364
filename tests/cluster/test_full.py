"""NATS has no room for what an app appends, while its disks have: a limit of a stream, or of the servers."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from nats.aio.client import Client as Nats
from nats.errors import Error
from nats.js.api import DiscardPolicy, StreamConfig

from skerry import TimedOut
from skerry.runtime.cluster import names, nodes, server
from skerry.runtime.cluster.addresses import Ports
from skerry.runtime.cluster.engine import Engine
from skerry.runtime.cluster.server import Access
from tests.cluster.apps import Counter
from tests.cluster.hosts import Host
from tests.cluster.servers import Servers, servers_of
from tests.cluster.test_hosts import COUNTERS, added, burst, in_order, seen
from tests.processes.started import launcher

STORE_BYTES = 48 << 20
"""What each server may keep."""

FILLER = "filler"


ACCOUNT = """\
accounts {{
    shop {{
        users: [{{ user: "{user}", password: "{password}" }}]
        jetstream {{ max_file: {most}, max_mem: 16MB }}
    }}
}}
"""


@pytest.fixture
def small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Servers]:
    """Servers that may keep little, or whose users may."""

    def configuration(
        nodes: Sequence[Ports], n: int, access: Access, *, max_file_store: int
    ) -> str:
        if "account" not in request.node.name:
            return server.configuration(nodes, n, access, max_file_store=STORE_BYTES)
        text = server.configuration(nodes, n, access, max_file_store=max_file_store)
        user = f'authorization {{ user: "{server.USER}", password: "{access.password}" }}\n'
        account = ACCOUNT.format(user=server.USER, password=access.password, most=3 * STORE_BYTES)
        return text.replace(user, account, 1)

    monkeypatch.setattr(nodes, "configuration", configuration)
    (tmp_path / "nats").mkdir()
    yield from servers_of(Servers, tmp_path / "nats")


@pytest.fixture
def engine(small: Servers) -> Iterator[Engine]:
    found = Engine(small.servers, name="test")
    yield found
    found.close()


@pytest.fixture
def host(
    small: Servers, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], Host]]:
    """Makes hosts of one app, with a worker each."""
    program = tmp_path / "program.py"
    name = f"full-{zlib.crc32(request.node.nodeid.encode())}"
    program.write_text(
        "from skerry import App\nfrom tests.cluster import apps\n"
        f"app = App({name!r}, entities=apps.ENTITIES)\n"
    )
    made: list[Host] = []

    def new(folder: str) -> Host:
        made.append(Host(tmp_path / folder, small.url, "--workers", "1", target=f"{program}:app"))
        made[-1].start()
        return made[-1]

    yield new
    for each in made:
        each.end()


@contextlib.contextmanager
def full_logs(engine: Engine, logs: list[str]) -> Iterator[None]:
    """Streams that may have no byte more than they have."""

    async def limit(client: Nats, most: Callable[[int], int]) -> None:
        for log in logs:
            found = await client.jetstream().stream_info(log)
            await client.jetstream().update_stream(
                found.config.evolve(max_bytes=most(found.state.bytes))
            )

    engine.run(lambda client: limit(client, lambda there: there), 10)
    yield
    engine.run(lambda client: limit(client, lambda there: -1), 10)


@contextlib.contextmanager
def full_account(engine: Engine, logs: list[str]) -> Iterator[None]:
    """An account that keeps all that it may, or all its servers do."""

    async def fill(client: Nats) -> None:
        await client.jetstream().add_stream(
            StreamConfig(name=FILLER, subjects=[FILLER], num_replicas=3, discard=DiscardPolicy.NEW)
        )
        for size in (256 << 10, 4 << 10, 10):
            with contextlib.suppress(Error):
                while True:
                    await client.jetstream().publish(FILLER, bytes(size))

    engine.run(fill, 120)
    yield
    engine.run(lambda client: client.jetstream().delete_stream(FILLER), 10)


def outcome(waits: TimedOut) -> int:
    """What a request has come to that was waited for in vain."""
    while True:
        try:
            found: int = waits.again()
        except TimedOut as again:
            waits = again
        else:
            return found


@pytest.mark.parametrize(
    "full",
    [
        pytest.param(full_logs, id="logs"),
        pytest.param(full_account, id="account"),
        pytest.param(full_account, id="servers"),
    ],
)
def test_an_app_whose_logs_have_no_room_waits_says_so_and_goes_on_by_itself(
    host: Callable[[str], Host],
    engine: Engine,
    full: Callable[[Engine, list[str]], contextlib.AbstractContextManager[None]],
) -> None:
    first = host("a")
    first.await_homes(a=1)
    second = host("b")
    for each in (first, second):
        each.await_homes(a=1, b=1)
    logs = [names.log_of(first.app, first.incarnation, shard) for shard in range(first.shards)]
    with first.client() as client:
        before, version = added(client, 1), first.version
        burst(client)
        seen(client, 500)
        asked: list[TimedOut] = []
        with full(engine, logs):
            for n in range(COUNTERS):
                with pytest.raises(TimedOut) as waits:
                    client.options(timeout=1).ask(Counter.at(f"c{n}").add, 1)
                asked.append(waits.value)
            for each in (first, second):
                each.await_said("NATS says: ")
                assert "Make room on the servers, or raise their limit" in each.said
            told = launcher("status", "--data", str(first.data))
            assert told.returncode == 0
            assert "commits of shard 0 wait: " in told.stdout
        assert [outcome(each) for each in asked] == [value + 1 for value in before.values()]
        assert added(client, 1) == {key: value + 2 for key, value in before.items()}
        burst(client)
        assert seen(client, 1000) == in_order(1000)
    assert "commits go on" in first.said
    assert "joins again" not in first.said + second.said
    assert "the clock of host" not in first.said + second.said
    assert first.version == version
