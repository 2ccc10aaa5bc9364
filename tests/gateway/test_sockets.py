"""A door and its callers, over real sockets: who is let in, who leaves for whom, who is told what."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from skerry.runtime.gateway import knock, listener, protocol
from skerry.runtime.gateway.channel import Broken, Channel
from skerry.runtime.gateway.listener import KEPT_FILES, PEER_FILES, Listener, callers_that_fit

HELLO = protocol.encode(protocol.Hello())
SECRET = knock.new_secret()


class Street:
    """A door, and who stands before it."""

    def __init__(self, folder: Path, *, callers_max: int) -> None:
        self.path = folder / "door"
        self.door = Listener(self.path, SECRET, callers_max=callers_max)
        self.came: list[Channel] = []

    def comes(self) -> Channel:
        """Somebody new; the door is served."""
        caller = Channel.to(str(self.path), message_bytes_max=1 << 30)
        assert caller is not None
        self.came.append(caller)
        self.door.receive()
        return caller

    def greeted(self) -> Channel:
        """Somebody who knows the secret and says hello, and is welcomed."""
        caller = self.comes()
        assert self.proves(caller)
        assert self.serves(caller)
        return caller

    def proves(self, caller: Channel) -> bool:
        """Whether both ends have proven that they know the secret."""
        number = knock.drawn()
        caller.say(knock.knock(SECRET, number))
        self.door.receive()
        (answer,) = caller.hear()
        return knock.is_answer(SECRET, number, answer)

    def serves(self, caller: Channel) -> bool:
        """Whether it is still answered."""
        try:
            caller.say(HELLO)
            for control in self.door.receive():
                self.door.welcome(control.caller, {"to": "you"})  # type: ignore[union-attr]
            return bool(caller.hear())
        except Broken:
            return False


@pytest.fixture
def street(tmp_path: Path) -> Iterator[Street]:
    """With room for five."""
    there = Street(tmp_path, callers_max=5)
    yield there
    there.door.close()
    for caller in there.came:
        caller.close()


def test_who_has_said_nothing_leaves_for_who_comes(street: Street) -> None:
    speaks = street.greeted()
    silent = [street.comes() for _ in range(50)]
    assert street.door.callers == 5
    assert street.serves(speaks)
    others = [street.greeted() for _ in range(4)]
    assert street.door.turned_away == 0
    assert all(street.serves(one) for one in [speaks, *others])
    with pytest.raises(Broken):
        silent[0].hear()


def test_a_full_door_says_why_and_serves_those_that_it_has(street: Street) -> None:
    inside = [street.greeted() for _ in range(5)]
    away = street.comes()
    (raw,) = away.hear()
    word = protocol.decode_word(raw)
    assert isinstance(word, protocol.Refusal)
    assert word.error == "Busy"
    assert "5 callers" in word.text
    assert "ulimit -n" in word.text
    with pytest.raises(Broken):
        away.hear()
    assert street.door.turned_away == 1
    assert all(map(street.serves, inside))
    inside.pop().close()
    street.door.receive()
    assert street.serves(street.greeted())


def test_who_keeps_most_unread_is_let_go_and_not_who_happens_to_be_told_something(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "UNSENT_BYTES_MAX", 4 << 20)
    honest, greedy = street.greeted(), street.greeted()
    callers = list(street.door._callers.values())
    for _ in range(15):
        street.door.answer(callers[1], 1, bytes(256 << 10))
    assert street.door.callers == 2
    for n in range(4):
        street.door.answer(callers[0], n, bytes(256 << 10))
    assert street.door.callers == 1
    heard: list[bytes] = []
    while len(heard) < 4:
        heard += honest.hear()
        street.door.receive()
    with pytest.raises(Broken):
        while True:
            greedy.hear()


def test_who_is_at_one_large_answer_is_not_let_go_for_what_others_are_told(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "UNSENT_BYTES_MAX", 4 << 20)
    large, other = street.greeted(), street.greeted()
    callers = list(street.door._callers.values())
    street.door.answer(callers[0], 1, bytes(16 << 20))
    for n in range(4):
        street.door.answer(callers[1], n, bytes(512 << 10))
    assert street.door.callers == 2
    heard: list[bytes] = []
    while not heard:
        heard = large.hear()
        street.door.receive()
    assert len(heard[0]) > 16 << 20
    while len(heard) < 5:
        heard += other.hear()
        street.door.receive()


def test_who_brings_most_of_what_is_not_whole_is_let_go(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "UNREAD_BYTES_MAX", 1 << 20)
    honest, greedy = street.greeted(), street.greeted()
    half = (8 << 20).to_bytes(4, "little")
    greedy._send(memoryview(half))
    for _ in range(6):
        greedy._send(memoryview(bytes(160 << 10)))
        street.door.receive()
    honest._send(memoryview(half))
    for _ in range(2):
        honest._send(memoryview(bytes(100 << 10)))
        street.door.receive()
    assert street.door.callers == 1
    with pytest.raises(Broken):
        greedy.hear()
    assert honest.hear() == []


@pytest.mark.parametrize("peers", [1, 100])
@pytest.mark.parametrize("limit", [24, 64, 1024, 4096, 1 << 20])
def test_callers_leave_descriptors_to_everything_else(
    monkeypatch: pytest.MonkeyPatch, limit: int, peers: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (min(limit, 1024), limit))
    raised: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda which, to: raised.append(to))
    fit = callers_that_fit(peers)
    assert raised == ([(limit, limit)] if limit > 1024 else [])
    assert 1 <= fit <= listener.CALLERS_MAX
    assert fit <= max(1, limit // 2, limit - KEPT_FILES - PEER_FILES * peers)


def test_who_knocks_while_no_descriptor_is_left_comes_in_when_somebody_leaves(
    street: Street, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = street.greeted()
    accept = socket.socket.accept

    def refuse(self: socket.socket) -> tuple[socket.socket, object]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket.socket, "accept", refuse)
    waits = street.comes()
    assert street.serves(first)
    monkeypatch.setattr(socket.socket, "accept", accept)
    first.close()
    street.door.receive()
    street.door.receive()
    assert street.proves(waits)
    assert street.serves(waits)
