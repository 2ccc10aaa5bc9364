"""A caller's connection on a loop that has other work to do."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from msgspec import Raw

from skerry.errors import StoreDamaged, Unavailable
from skerry.runtime.client import connection as connections
from skerry.runtime.client import questions
from skerry.runtime.client.connection import Connection
from skerry.runtime.client.pending import UNSAID, WAITED
from skerry.runtime.client.window import WINDOW_MAX
from skerry.runtime.core.events import SLOTS, Outcome
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.placement import Placement
from skerry.runtime.description import Running
from skerry.runtime.gateway import knock, protocol
from skerry.runtime.gateway.channel import Channel

SECRET = knock.new_secret()


class Door:
    """The one door of an app: answers all that it was told, whenever it is served; but questions,
    only if it `knows`."""

    def __init__(self, folder: Path, shard: int = 0, *, knows: bool = True) -> None:
        self._shard, self._knows = shard, knows
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(folder / f"door-{shard}"))
        self._listening.listen()
        self._listening.setblocking(False)
        self._caller: Channel | None = None
        self.heard: list[bytes] = []
        self.questions = 0
        self.placement: Placement | None = None
        """None: the shard has all slots."""

    def serve(self) -> None:
        """Answer."""
        if self._caller is None:
            try:
                end, _ = self._listening.accept()
            except BlockingIOError:
                return
            self._caller = Channel(end, message_bytes_max=1 << 30)
        while heard := self._caller.hear():
            if not self.heard:
                self.heard.append(heard.pop(0))
                self._caller.say(knock.answer(SECRET, self.heard[0]) or b"")
            for raw in heard:
                self._answer(self._caller, protocol.decode_call(raw))

    def _answer(self, caller: Channel, call: Any) -> None:
        if isinstance(call, protocol.Hello):
            shard = self._shard
            placement = self.placement or balanced([shard], version=1 + shard, next_id=1 + shard)
            greeting = protocol.Greeting(bytes(16), shard, 1, placement, 1, "app", {"Box": ["put"]})
            caller.say(protocol.encode(protocol.Welcome(greeting)))
        elif isinstance(call, protocol.Asks):
            runs = [("done", run.numbers, [Raw(b"\xc0")] * len(run.numbers)) for run in call.runs]
            caller.say(protocol.encode(protocol.Outcomes(runs)))
        elif isinstance(call, protocol.Get | protocol.Scan | protocol.Count):
            self.questions += 1
            if self._knows:
                caller.say(protocol.encode(protocol.Answer(call.n, self.found(call))))

    def found(self, call: protocol.Get | protocol.Scan | protocol.Count) -> Any:
        """What the question is answered by."""
        match call:
            case protocol.Get():
                return [b"state", b"schema"]
            case protocol.Scan():
                return [[["box", b"state"]], {}, protocol.ALL_SLOTS]
            case protocol.Count():
                return [1, call.slots]

    def close(self) -> None:
        """Nobody is there any more."""
        self._listening.close()
        if self._caller is not None:
            self._caller.close()


async def opened(door: Door, folder: Path) -> Connection:
    """A connection to this door."""
    opening = asyncio.create_task(Connection.open(folder))
    while not opening.done():
        door.serve()
        await asyncio.sleep(0)
    return opening.result()


@pytest.mark.parametrize("error", [OSError(errno.EIO, "a disk that is gone"), StoreDamaged("lost")])
def test_who_waits_is_told_in_time_though_the_app_s_folder_can_t_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    door, told = Door(tmp_path), list[Outcome]()
    running = Running(1, "app", str(tmp_path), [0], SECRET)
    monkeypatch.setattr(connections, "running_app", lambda data: running)
    (tmp_path / "run.json").touch()
    come = asyncio.Event()

    def tell(of: None, outcome: Outcome) -> None:
        told.append(outcome)
        come.set()

    async def play() -> None:
        connection = await opened(door, tmp_path)
        door.close()
        monkeypatch.setattr(connections, "running_app", mock.Mock(side_effect=error))
        until_s = asyncio.get_running_loop().time() + 1
        connection.request("Box", "box", "put", b"\x90", tell, until_s=until_s)
        await come.wait()
        await connection.close()

    asyncio.run(asyncio.wait_for(play(), 20))
    assert told[0] in (UNSAID, WAITED)


def test_a_line_for_which_no_file_can_be_opened_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    door = Door(tmp_path)
    with monkeypatch.context() as none_left:
        error = OSError(errno.EMFILE, "too many open files")
        none_left.setattr(socket, "socket", mock.Mock(side_effect=error))
        assert Channel.to(f"{tmp_path}/door-0", message_bytes_max=1) is None
    channel = Channel.to(f"{tmp_path}/door-0", message_bytes_max=1)
    assert channel is not None
    channel.close()
    door.close()


def test_a_loop_that_comes_by_rarely_hears_what_came_before_it_asks_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In each pass of this loop more is asked, and the door answers what it has. Outcomes that came
    are heard in the next pass, not in the one after it: so each pass serves a window."""
    windows, told = 8, 0
    door = Door(tmp_path)
    running = Running(1, "app", str(tmp_path), [0], SECRET)
    monkeypatch.setattr(connections, "running_app", lambda data: running)
    (tmp_path / "run.json").touch()

    def tell(of: int, outcome: Any) -> None:
        nonlocal told
        told += outcome.kind == "done"

    async def play() -> int:
        connection = await opened(door, tmp_path)
        count = windows * WINDOW_MAX
        for number in range(count):
            connection.request("Box", f"box-{number}", "put", b"\x90", tell, of=number)
        passes = 0
        while told < count:
            connection.request("Box", f"more-{passes}", "put", b"\x90", tell, of=count + passes)
            await asyncio.sleep(0)
            door.serve()
            passes += 1
        await connection.close()
        return passes

    try:
        assert asyncio.run(play()) <= windows + 2
    finally:
        door.close()


def test_a_door_that_was_made_anew_is_found_though_somebody_holds_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that the old worker has forked may hold its socket: then no line ever breaks."""
    running = Running(1, "app", str(tmp_path), [0], SECRET)
    monkeypatch.setattr(connections, "running_app", lambda data: running)
    monkeypatch.setattr(connections, "TICK_S", 0.01)
    (tmp_path / "run.json").touch()
    told: list[str] = []

    async def play() -> None:
        old = Door(tmp_path)
        opening = asyncio.create_task(Connection.open(tmp_path))
        while not opening.done():
            old.serve()
            await asyncio.sleep(0)
        connection = opening.result()
        (tmp_path / "door-0").unlink()
        new = Door(tmp_path)
        connection.request(
            "Box", "a", "put", b"\x90", lambda of, outcome: told.append(outcome.kind)
        )
        async with asyncio.timeout(30):
            while not told:
                new.serve()
                await asyncio.sleep(0)
        await connection.close()
        old.close()
        new.close()

    asyncio.run(play())
    assert told == ["done"]


async def first_page(connection: Connection) -> list[str]:
    """The keys of the first page of a scan."""
    return [key for key, _ in (await anext(connection.scan("Box")))[0]]


def test_questions_under_way_at_a_change_of_workers_are_asked_of_the_new_owners(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question for one shard ends, when the app has come back without it."""
    running = Running(1, "app", str(tmp_path), [0], SECRET)
    monkeypatch.setattr(connections, "running_app", lambda data: running)
    monkeypatch.setattr(connections, "TICK_S", 0.01)
    monkeypatch.setattr(questions, "ANSWER_S", 1e6)
    (tmp_path / "run.json").touch()

    async def play() -> None:
        nonlocal running
        old = Door(tmp_path, knows=False)
        connection = await opened(old, tmp_path)
        looks = [asyncio.ensure_future(connection.get("Box", f"box-{n}")) for n in range(3)]
        page = asyncio.ensure_future(first_page(connection))
        count = asyncio.ensure_future(connection.reads.count("Box"))
        while old.questions < 5:
            old.serve()
            await asyncio.sleep(0)
        old.close()
        running = Running(2, "app", str(tmp_path), [1], SECRET)
        new = Door(tmp_path, 1)
        while not all(asked.done() for asked in (*looks, page, count)):
            new.serve()
            await asyncio.sleep(0)
        assert [look.result() for look in looks] == [(b"state", b"schema")] * 3
        assert (page.result(), count.result()) == (["box"], 1)
        with pytest.raises(Unavailable, match="other shards, and none is shard 0"):
            await connection.control(0, "status")
        await connection.close()
        new.close()

    asyncio.run(asyncio.wait_for(play(), 60))


BOXES = {slot_of("Box", f"box-{n}"): f"box-{n}" for n in range(20 * SLOTS)}
"""The key of one entity in each slot."""


class Serving(Door):
    """A door of a shard that has some slots, and says so of others."""

    def __init__(self, folder: Path, shard: int, slots: set[int]) -> None:
        super().__init__(folder, shard)
        self.slots = slots

    def found(self, call: protocol.Get | protocol.Scan | protocol.Count) -> Any:
        """Of each slot one entity; in pages of two."""
        match call:
            case protocol.Get(_, type_name, key):
                return [b"state", b"schema"] if slot_of(type_name, key) in self.slots else None
            case protocol.Count():
                read = self.slots & protocol.slots_in(call.slots)
                return [len(read), protocol.as_bits(read)] if read else None
            case protocol.Scan():
                page = sorted(self.slots & protocol.slots_in(call.slots))[:2]
                rows = [[BOXES[slot], b"state"] for slot in page]
                return [rows, {}, protocol.as_bits(page)] if page else None


def test_what_is_asked_about_slots_that_move_is_asked_of_their_new_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller knows the old placement. The new owner serves some slots a while later."""
    running = Running(1, "app", str(tmp_path), [0, 1], SECRET)
    monkeypatch.setattr(connections, "running_app", lambda data: running)
    (tmp_path / "run.json").touch()

    async def play() -> None:
        every = set(range(SLOTS))
        first, second = Serving(tmp_path, 0, every), Serving(tmp_path, 1, set())
        first.placement = Placement(1, [0], [0] * SLOTS, 2)
        second.placement = Placement(0, [0], [0] * SLOTS, 2)
        connection = await opened(first, tmp_path)
        keys: list[str] = []

        async def scan() -> None:
            async for rows, _ in connection.scan("Box"):
                keys.extend(key for key, _ in rows)

        async def until(done: Callable[[], bool]) -> None:
            async with asyncio.timeout(30):
                while not done():
                    first.serve()
                    second.serve()
                    await asyncio.sleep(0)

        scanning = asyncio.ensure_future(scan())
        await until(lambda: len(keys) > 100)
        first.placement = Placement(2, [1], [1] * SLOTS, 2)
        first.slots = set()
        look = asyncio.ensure_future(connection.get("Box", "box"))
        count = asyncio.ensure_future(connection.reads.count("Box"))
        await until(lambda: second.questions > 3)
        assert not look.done() and not count.done()
        second.slots = set(range(500))
        await until(lambda: len(keys) == 500)
        second.slots = every
        await until(lambda: look.done() and count.done() and scanning.done())
        assert look.result() == (b"state", b"schema")
        assert count.result() == SLOTS
        assert sorted(keys) == sorted(BOXES.values())
        await connection.close()
        first.close()
        second.close()

    asyncio.run(play())


@pytest.mark.parametrize("at_first", [[0, 1], [0]], ids=["was there", "came later"])
def test_when_a_shard_leaves_what_it_was_told_is_asked_of_others_and_lines_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_first: list[int]
) -> None:
    """It ends without an answer; the caller has no other reason to ask who owns what."""
    running = Running(1, "app", str(tmp_path), at_first, SECRET)
    monkeypatch.setattr(connections, "running_app", lambda data: running)
    monkeypatch.setattr(connections, "TICK_S", 0.01)
    (tmp_path / "run.json").touch()

    async def play() -> None:
        nonlocal running
        stays, leaves = Door(tmp_path, 0), Door(tmp_path, 1, knows=False)
        stays.placement = leaves.placement = Placement(1, [0, 1], [1] * SLOTS, 2)
        connection = await opened(stays, tmp_path)
        look = asyncio.ensure_future(connection.get("Box", "box"))
        async with asyncio.timeout(30):
            while not leaves.questions:
                leaves.serve()
                await asyncio.sleep(0)
            told: list[Outcome] = []
            connection.request(
                "Box", "box", "put", b"\x90", lambda _, outcome: told.append(outcome)
            )
            await asyncio.sleep(0)
            leaves.close()
            stays.placement = Placement(2, [0], [0] * SLOTS, 2)
            running = Running(1, "app", str(tmp_path), [0], SECRET)
            while not (look.done() and told):
                stays.serve()
                await asyncio.sleep(0)
        assert look.result() == (b"state", b"schema")
        assert told[0].kind == "done"
        assert connection.shards == [0]
        await connection.close()
        stays.close()

    asyncio.run(play())
