"""Clients against a real app: exactly once over crashes, order, and what is said when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import skerry
from skerry import (
    App,
    Entity,
    Failed,
    InvalidMessage,
    Rejected,
    TimedOut,
    Unavailable,
    UnknownEntity,
    UnknownHandler,
    message,
)
from tests.processes.apps import Counter
from tests.processes.started import launcher, running


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data directory of an app that runs."""
    folder = tmp_path_factory.mktemp("clients") / "data"
    with running(folder, SKERRY_HANG="3"):
        yield folder


def workers(data: Path) -> list[int]:
    """The processes of the workers."""
    status = launcher("status", "--json", "--data", str(data))
    return [shard["pid"] for shard in json.loads(status.stdout)["shards"]]


def test_results_come_in_order_and_messages_to_one_entity_run_in_order(data: Path) -> None:
    with skerry.Client(data) as client:
        asked = [message(Counter.at(f"order-{n % 3}").add, n) for n in range(-1, 3000)]
        answers = client.ask_many(asked)
    sums = [0, 0, 0]
    for n, answer in zip(range(-1, 3000), answers, strict=True):
        if n < 0:
            assert answer == Rejected("no negative amounts", amount=-1)
            continue
        sums[n % 3] += n
        assert answer == sums[n % 3]


def test_a_refusal_a_failure_and_a_wrong_message_are_told_apart(data: Path) -> None:
    class Stranger(Entity):
        def hello(self) -> None: ...

    counter = type("Counter", (Entity,), {"__annotations__": {}, "fly": lambda self: None})
    with skerry.Client(data) as client:
        with pytest.raises(Rejected, match="no negative amounts") as refused:
            client.ask(Counter.at("wrong").add, -7)
        assert refused.value.details == {"amount": -7}
        with pytest.raises(Failed, match="ValueError: always") as failed:
            client.ask(Counter.at("wrong").fail)
        assert "raise ValueError" in failed.value.traceback
        with pytest.raises(UnknownEntity, match="no entity type `Stranger`"):
            client.ask(Stranger.at("a").hello)
        with pytest.raises(UnknownHandler, match="no handler `fly`"):
            client.ask(counter.at("a").fly)
        with pytest.raises(UnknownEntity, match="Stranger"):
            client.ask_many([message(Counter.at("wrong").add, 1), message(Stranger.at("a").hello)])
        with pytest.raises(TypeError, match="private"):
            client.ask(Counter.at("a")._tick)
        with pytest.raises(TypeError):
            client.ask(Counter.at("a").add, "ten")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="takes it alone"):
            client.send(message(Counter.at("wrong").add, 1), 99)  # type: ignore[call-overload]
        for stranger in "Counter", Counter(), Entity:
            with pytest.raises(TypeError, match="scan takes an entity class, such as Account"):
                list(client.scan(stranger))  # type: ignore[arg-type]
        assert client.get(Counter.at("untouched")) == Counter()
        assert client.ask(Counter.at("wrong").value) == 0


def test_a_client_of_another_release_is_told_that_its_arguments_do_not_fit(data: Path) -> None:
    def add(self: Entity, amount: str) -> int:
        return len(amount)

    other = type("Counter", (Entity,), {"__annotations__": {}, "add": add})
    with skerry.Client(data) as client, pytest.raises(InvalidMessage, match="Expected `int`"):
        client.ask(other.at("a").add, "ten")


def test_an_idempotency_key_counts_once_over_clients_handlers_apart(data: Path) -> None:
    for _ in range(3):
        with skerry.Client(data) as client:
            once = client.options(idempotency_key="order-17")
            assert once.ask(Counter.at("named").add, 5) == 5
            once.send(Counter.at("named").name, "x")
    with skerry.Client(data) as client:
        assert client.get(Counter.at("named")) == Counter(count=5, names=["x"])
        assert client.options(idempotency_key="order-18").ask(Counter.at("named").add) == 6


def test_an_ask_under_the_key_of_a_send_says_that_the_reply_is_not_kept(data: Path) -> None:
    with skerry.Client(data) as client:
        named = client.options(idempotency_key="sent-first")
        named.send(Counter.at("sent").add, 5)
        with pytest.raises(skerry.SkerryError, match="a `send` under this idempotency key"):
            named.ask(Counter.at("sent").add, 5)
        assert client.ask(Counter.at("sent").value) == 5


def test_options_that_are_not_given_stay_as_they_are(data: Path) -> None:
    with skerry.Client(data) as client:
        named = client.options(idempotency_key="chained").options(timeout=20)
        assert [named.ask(Counter.at("chained").add) for _ in range(2)] == [1, 1]

    async def twice() -> list[int]:
        async with skerry.AsyncClient(data) as client:
            named = client.options(idempotency_key="also").options(timeout=20)
            return [await named.ask(Counter.at("chained").add) for _ in range(2)]

    assert asyncio.run(twice()) == [2, 2]


def test_an_empty_idempotency_key_is_refused_since_it_names_nothing(data: Path) -> None:
    with skerry.Client(data) as client:
        for each in client, skerry.AsyncClient(data):
            with pytest.raises(ValueError, match="'' names none"):
                each.options(idempotency_key="")


def test_requests_count_once_while_workers_are_killed(data: Path) -> None:
    def kill_all() -> None:
        for pid in workers(data):
            # The next one may not be up, yet: it has been killed, then.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def drive() -> list[int]:
        async with skerry.AsyncClient(data) as client:

            async def one(n: int) -> int:
                return await client.ask(Counter.at(f"killed-{n % 5}").add)

            answers: list[int] = []
            for _ in range(4):
                asked = [asyncio.create_task(one(n)) for n in range(500)]
                await asyncio.to_thread(kill_all)
                answers += await asyncio.gather(*asked)
            return answers

    answers = asyncio.run(drive())
    assert sorted(answers) == sorted(n for n in range(1, 401) for _ in range(5))


def test_a_time_out_says_that_it_is_unknown_and_can_be_waited_for(data: Path) -> None:
    pids = workers(data)
    with skerry.Client(data) as client:
        client.ask(Counter.at("slow").value)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimedOut, match="unknown whether it ran") as late:
                client.options(timeout=0.3).ask(Counter.at("slow").add)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        while True:
            try:
                assert late.value.again() == 1
                break
            except TimedOut:
                continue
        assert client.ask(Counter.at("slow").value) == 1


def test_a_client_outlives_a_restart_of_its_app(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data):
        client = skerry.Client(data).__enter__()
        assert client.ask(Counter.at("a").add) == 1
    with running(data):
        assert client.ask(Counter.at("a").add) == 2
        client.__exit__(None, None, None)


def test_a_client_outlives_restarts_with_more_and_with_fewer_workers(tmp_path: Path) -> None:
    data, keys = tmp_path / "data", "abcdefgh"
    with contextlib.ExitStack() as opened:
        client = skerry.Client(data)
        for time, workers in enumerate((2, 3, 1), 1):
            with running(data, "--workers", str(workers)):
                if time == 1:
                    opened.enter_context(client)
                assert [client.ask(Counter.at(key).add) for key in keys] == [time] * len(keys)
                assert client.get(Counter.at("a")).count == time


def test_without_an_app_a_client_says_how_to_start_one(tmp_path: Path) -> None:
    with (
        pytest.raises(Unavailable, match="skerry run"),
        skerry.Client(tmp_path / "nothing"),
    ):
        raise AssertionError("a client without an app was opened")


def test_threads_can_share_a_blocking_client_and_ctrl_c_ends_the_waiting_of_one_call(
    data: Path,
) -> None:
    with skerry.Client(data) as client:
        with ThreadPoolExecutor(8) as pool:
            sums = [pool.submit(client.ask, Counter.at("shared").add, 1) for _ in range(200)]
            assert sorted(one.result() for one in sums) == list(range(1, 201))
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(KeyboardInterrupt):
                client.ask(Counter.at("hung").hang)
        finally:
            signal.signal(signal.SIGALRM, before)
        assert client.ask(Counter.at("shared").add, 1) == 201


def test_a_client_that_is_not_open_any_more_says_so(data: Path) -> None:
    with skerry.Client(data) as client:
        client.send(Counter.at("closed").add, 1)
    with pytest.raises(skerry.SkerryError, match="not open"):
        client.ask(Counter.at("closed").add, 1)
    with pytest.raises(skerry.SkerryError, match="not open"):
        client.get(Counter.at("closed"))


def test_a_client_in_a_second_event_loop_says_what_to_do_instead_of_waiting_for_ever(
    data: Path,
) -> None:
    client = skerry.AsyncClient(data)

    async def opened() -> int:
        await client.__aenter__()
        return await client.ask(Counter.at("loops").add)

    async def used() -> None:
        for _ in range(2):
            with pytest.raises(skerry.SkerryError, match="another event loop"):
                await client.ask(Counter.at("loops").add)
            with pytest.raises(skerry.SkerryError, match="another event loop"):
                await client.get(Counter.at("loops"))

    with asyncio.Runner() as runner:
        assert runner.run(opened()) == 1
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, used()).result()
        runner.run(client.__aexit__())


def test_a_client_that_was_closed_can_be_opened_again(data: Path) -> None:
    client = skerry.Client(data)
    for count in (1, 2):
        with client:
            assert client.ask(Counter.at("reopened").add) == count


def test_many_clients_at_once_share_nothing(data: Path) -> None:
    async def one(number: int) -> int:
        async with skerry.AsyncClient(data) as client:
            answers = await client.ask_many(
                message(Counter.at(f"many-{number}").add) for _ in range(50)
            )
            return len({*map(str, answers)})

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*map(one, range(20)))

    assert asyncio.run(all_of_them()) == [50] * 20


def test_an_app_runs_from_a_notebook_s_own_classes_while_a_context_is_open() -> None:
    class Local(Entity):
        seen: int = 0

        def see(self) -> int:
            self.seen += 1
            return self.seen

    with App("local", entities=[Local]).running() as client:
        assert [client.ask(Local.at("a").see) for _ in range(3)] == [1, 2, 3]
        assert client.get(Local.at("a")).seen == 3


def in_a_fork(act: Callable[[], str]) -> str:
    """What it gives, or the error that it raises, in a forked child."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        with open(theirs, "w") as out:
            try:
                out.write(act())
            except skerry.SkerryError as error:
                out.write(str(error))
        os._exit(0)
    os.close(theirs)
    with open(ours) as told:
        said = told.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_client_in_a_forked_child_says_so_at_once_and_its_parent_goes_on(data: Path) -> None:
    says = rf"opened by process {os.getpid()}, .*Open a client in the child"
    entity = Counter.at("forked")

    def leave(client: skerry.Client) -> str:
        client.__exit__()
        return "left"

    def again(client: skerry.Client) -> str:
        with client:
            return str(client.ask(entity.add))

    with skerry.Client(data) as client:
        assert client.ask(entity.add) == 1
        for use in (
            lambda: client.ask(entity.add),
            lambda: client.options(timeout=1).send(entity.add),
            lambda: client.ask_many([message(entity.add)]),
            lambda: client.get(entity),
            lambda: next(client.scan(Counter)),
        ):
            assert re.search(says, in_a_fork(lambda use=use: str(use())))  # type: ignore[misc]
        assert in_a_fork(lambda: leave(client)) == "left"
        assert in_a_fork(lambda: again(client)) == "2"
        assert client.ask(entity.add) == 3

    async def play() -> None:
        async with skerry.AsyncClient(data) as client:

            async def asked(client: skerry.AsyncClient) -> str:
                return str(await client.ask(entity.add))

            async def leave() -> str:
                await client.__aexit__()
                return "left"

            assert re.search(says, in_a_fork(lambda: asyncio.run(asked(client))))
            assert in_a_fork(lambda: asyncio.run(leave())) == "left"
            assert await client.ask(entity.add) == 4

    asyncio.run(play())
