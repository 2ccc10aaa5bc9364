"""`forget` ends a life: what came before it in its turn is of the old one, what comes after of the new."""

from __future__ import annotations

from typing import Any

import pytest

from skerry import (
    App,
    Entity,
    Failed,
    ask,
    cancel_timer,
    forget,
    send,
    send_later,
    set_timer,
    testing,
)
from skerry.testing import Faults, Harness, Simulation


class Room(Entity):
    guests: list[str] = []
    heard: list[str] = []

    def enter(self, guest: str) -> int:
        self.guests.append(guest)
        return len(self.guests)

    def wait(self, note: str, seconds: float) -> None:
        set_timer(note, seconds, self._rings, note)

    def ask_slow(self, note: str) -> None:
        ask(Desk.at("d").later, self.key, note).then(self._hears).timeout(50, self._rings, note)

    def close(self) -> int:
        forget()
        return len(self.guests)

    def close_and(self, what: str) -> object:
        """`what`, after or around `forget`."""
        result: object = None
        match what:
            case "set before":
                set_timer("t", 10, self._rings, "before")
                forget()
            case "set after":
                forget()
                set_timer("t", 10, self._rings, "after")
            case "set before and after":
                set_timer("t", 5, self._rings, "before")
                set_timer("u", 5, self._rings, "before")
                forget()
                set_timer("t", 10, self._rings, "after")
            case "cancel after":
                set_timer("t", 10, self._rings, "before")
                forget()
                result = [cancel_timer("t"), cancel_timer("standing")]
            case "set, cancel after":
                forget()
                set_timer("t", 10, self._rings, "after")
                result = cancel_timer("t")
            case "ask before":
                ask(Desk.at("d").answer, "before").then(self._hears)
                forget()
            case "ask after":
                forget()
                ask(Desk.at("d").answer, "after").then(self._hears)
            case "ask around":
                ask(Desk.at("d").answer, "before").then(self._hears)
                forget()
                ask(Desk.at("d").answer, "after").then(self._hears).timeout(9, self._rings, "late")
                send(Desk.at("d").note, "sent after")
            case "forget twice":
                forget()
                set_timer("t", 10, self._rings, "between")
                ask(Desk.at("d").answer, "between").then(self._hears)
                forget()
                set_timer("u", 10, self._rings, "after")
            case "send later":
                send_later(5, self._rings, "sent before")
                forget()
                send_later(10, self._rings, "sent after")
        return result

    def close_and_change(self, guest: str) -> None:
        forget()
        self.guests.append(guest)

    def _rings(self, note: str) -> None:
        self.heard.append(f"rings {note}")

    def _hears(self, note: str) -> None:
        self.heard.append(f"hears {note}")


class Desk(Entity):
    notes: list[str] = []

    def answer(self, note: str) -> str:
        self.notes.append(note)
        return note

    def note(self, note: str) -> None:
        self.notes.append(note)

    def later(self, room: str, note: str) -> str:
        self.notes.append("closes the room before its reply")
        send(Room.at(room).close)
        return note


app = App("rooms", entities=[Room, Desk], retries=0)
ROOM, DESK = Room.at("r"), Desk.at("d")

HEARD: dict[str, list[str]] = {
    "set before": [],
    "set after": ["rings after"],
    "set before and after": ["rings after"],
    "cancel after": [],
    "set, cancel after": [],
    "ask before": [],
    "ask after": ["hears after"],
    "ask around": ["hears after"],
    "forget twice": ["rings after"],
    "send later": ["rings sent before", "rings sent after"],
}
RESULTS: dict[str, object] = {"cancel after": [False, False], "set, cancel after": True}


def earlier_life(does: Any) -> None:
    """A guest, and a timer that stands."""
    does(ROOM.enter, "old")
    does(ROOM.wait, "standing", 20.0)


@pytest.mark.parametrize("what", HEARD)
@pytest.mark.parametrize("careful", [False, True], ids=["together", "one by one"])
def test_what_a_turn_does_after_forget_is_of_the_new_life_and_nothing_before(
    what: str, careful: bool
) -> None:
    harness = Harness(app)
    if careful:  # What fails makes the turns of its type run one by one for a while.
        harness.send(Room.at("other").close_and_change, "nobody")
    earlier_life(harness.ask)
    assert harness.ask(ROOM.close_and, what) == RESULTS.get(what)
    harness.advance(100)
    assert harness[ROOM].guests == []
    assert harness[ROOM].heard == HEARD[what]


@pytest.mark.parametrize("what", HEARD)
@pytest.mark.parametrize("seed", range(2))
def test_the_same_on_shards_that_crash(what: str, seed: int) -> None:
    sim = Simulation(app, seed=seed, shards=3, faults=Faults(crash=0.02))
    earlier_life(sim.ask)
    sim.run(50)
    closed = sim.ask(ROOM.close_and, what)
    sim.run()
    assert closed.result() == RESULTS.get(what)
    assert sim[ROOM].guests == []
    assert sorted(sim[ROOM].heard) == sorted(HEARD[what])


@pytest.mark.parametrize("careful", [False, True], ids=["together", "one by one"])
def test_a_turn_that_changes_its_state_after_forget_fails_and_names_the_field(
    careful: bool,
) -> None:
    harness = Harness(app)
    harness.ask(ROOM.enter, "old")
    for _ in range(1 + careful):
        with pytest.raises(Failed, match="Room changed `guests` after `forget"):
            harness.ask(ROOM.close_and_change, "new")
    assert harness[ROOM].guests == ["old"]


def test_an_entity_can_be_read_until_its_turn_ends_and_the_next_message_meets_a_new_one() -> None:
    harness = Harness(app)
    assert [harness.ask(ROOM.enter, "a"), harness.ask(ROOM.enter, "b")] == [1, 2]
    assert harness.ask(ROOM.close) == 2
    assert harness.ask(ROOM.enter, "c") == 1


def test_forget_ends_the_asks_of_earlier_turns() -> None:
    """Their outcome, or their time-out, would run on an entity that has asked for nothing."""
    harness = Harness(app)
    harness.ask(ROOM.ask_slow, "asked by the old one")
    harness.advance(100)
    assert harness[DESK].notes == ["closes the room before its reply"]
    assert harness[ROOM].heard == []
    assert harness.dead == []


def test_what_a_turn_leaves_is_seen_as_it_was_written() -> None:
    room = Room(guests=["old"])
    with testing.turn(room, key="r") as turn:
        room.close_and("set before and after")
    assert turn.forgotten
    assert {name: timer and timer[0] for name, timer in turn.timers.items()} == {"t": 10, "u": None}
    assert room.guests == ["old"]
