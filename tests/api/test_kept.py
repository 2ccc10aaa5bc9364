"""What a turn leaves is what a later reader gets: the same class, the same value; else it fails."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest

from skerry import (
    App,
    Entity,
    Failed,
    IncompatibleState,
    Output,
    Rejected,
    ask,
    emit,
    message,
    query,
    send,
    send_later,
    set_timer,
    testing,
)
from skerry.entity_type import STATE_BYTES_MAX
from skerry.roundtrip import NESTING_MAX


class Point(msgspec.Struct):
    x: int = 0


class Named(Point):
    name: str = ""


@dataclasses.dataclass
class Line:
    start: Point


points: Output[Point] = Output[Point]("points")


class Box(Entity):
    """Keeps what it is told to, in the field for it."""

    n: int = 0
    point: Point = msgspec.field(default_factory=Point)
    counts: dict[str, int] = {}
    at_time: datetime | None = None
    what: Any = None
    lines: list[Line] = []
    data: bytes = b""

    def keep(self, name: str) -> int:
        setattr(self, *WRONG[name]())
        return 1

    def add(self) -> int:
        self.n += 1
        return self.n

    def tell(self, name: str) -> int:
        found: int = WRONG[name]()[1]
        return found

    def refuse(self, name: str) -> None:
        raise Rejected("no", why=WRONG[name]()[1])

    def put(self, name: str) -> None:
        emit(points, WRONG[name]()[1])

    def take(self, what: Any) -> None:
        self.what = what

    def take_point(self, point: Point) -> None:
        self.point = point

    def take_number(self, number: int) -> None:
        self.n = number & 1

    def take_text(self, text: str) -> None:
        self.n = len(text)

    def spread(self, name: str) -> None:
        for n in range(3000):
            box = Box.at(f"k{n}")
            send(box.keep, name) if n % 100 == 0 else send(box.add)

    def leave(self, verb: str) -> None:
        LEFT[verb](self)

    def _late(self, what: Any) -> None:
        self.what = what

    def grow(self, size: int) -> int:
        self.data += bytes(size)
        return len(self.data)

    def repeat(self, size: int) -> bytes:
        return bytes(size)

    @query
    def look(self) -> int:
        return self.n


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


WRONG: dict[str, Callable[[], tuple[str, Any]]] = {
    "a float for an int": lambda: ("n", 0.5),
    "a bool for an int": lambda: ("n", True),
    "a text for an int": lambda: ("n", "7"),
    "a subclass of its Struct": lambda: ("point", Named(name="a")),
    "a subclass in a dataclass": lambda: ("lines", [Line(Named())]),
    "a defaultdict": lambda: ("counts", defaultdict(int, a=1)),
    "a wrong value in a dict": lambda: ("counts", {"a": 0.5}),
    "a time zone": lambda: ("at_time", datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin"))),
    "a tuple for anything": lambda: ("what", {"deep": [(1, 2)]}),
    "a date for anything": lambda: ("what", date(2026, 7, 1)),
    "a Struct for anything": lambda: ("what", Point()),
    "too deep": lambda: ("what", nested(NESTING_MAX + 1)),
    "itself": lambda: ("what", endless()),
    "itself, twice": lambda: ("what", endless(2)),
    "half a character": lambda: ("what", "\ud800"),
    "too large a number": lambda: ("n", 1 << 64),
    "what nothing encodes": lambda: ("what", object()),
}
LEFT: dict[str, Callable[[Box], object]] = {
    "send": lambda box: send(Box.at("other").take, (1, 2)),
    "send_later": lambda box: send_later(1, Box.at("other").take, (1, 2)),
    "set_timer": lambda box: set_timer("t", 1, box._late, (1, 2)),
    "ask": lambda box: ask(Box.at("other").take, (1, 2)),
    "then": lambda box: ask(Box.at("other").take, 1).then(box._late, (1, 2)),
    "timeout": lambda box: ask(Box.at("other").take, 1).timeout(1, box._late, (1, 2)),
}


def endless(times: int = 1) -> list[Any]:
    found: list[Any] = []
    found += [found] * times
    return found


def app() -> App:
    return App("kept", entities=[Box], outputs=[points], retries=0)


@pytest.mark.parametrize("name", WRONG)
def test_a_state_that_would_come_back_as_another_fails_its_turn_and_names_the_field(
    name: str,
) -> None:
    h = testing.Harness(app())
    h.ask(Box.at("a").add)
    field, _ = WRONG[name]()
    with pytest.raises(Failed, match=rf"Box/a can't be kept: its field {field}\b"):
        h.ask(Box.at("a").keep, name)
    assert h.ask(Box.at("a").add) == 2


@pytest.mark.parametrize(
    "name", ["a float for an int", "a defaultdict", "a subclass of its Struct"]
)
def test_one_such_turn_among_thousands_fails_alone(name: str) -> None:
    h = testing.Harness(app())
    h.ask(Box.at("all").spread, name)
    h.run()
    assert sorted(d.entity for d in h.dead) == sorted(f"Box/k{n}" for n in range(0, 3000, 100))
    assert sum(h[Box.at(f"k{n}")].n for n in range(3000)) == 3000 - 30


@pytest.mark.parametrize("seed", range(3))
def test_a_simulation_refuses_it_too(seed: int) -> None:
    sim = testing.Simulation(app(), seed=seed, shards=2, faults=testing.Faults())
    replies = [sim.ask(Box.at(f"k{n}").keep, "a defaultdict") for n in range(5)]
    fine = [sim.ask(Box.at(f"k{n}").add) for n in range(5)]
    sim.run()
    for reply in replies:
        with pytest.raises(Failed, match="its field counts"):
            reply.result()
    assert [reply.result() for reply in fine] == [1] * 5


def test_one_entity_alone_in_a_turn_is_looked_at_too() -> None:
    box = Box()
    said = "Box/test can't be kept: its field counts"
    with pytest.raises(TypeError, match=said), testing.turn(box):
        box.keep("a defaultdict")


@pytest.mark.parametrize("name", [n for n in WRONG if n != "a wrong value in a dict"])
def test_a_reply_that_is_not_what_its_handler_promises_fails_its_turn(name: str) -> None:
    h = testing.Harness(app())
    with pytest.raises(Failed, match=r"Box\.tell: its reply"):
        h.ask(Box.at("a").tell, name)


@pytest.mark.parametrize("name", ["a tuple for anything", "a date for anything", "too deep"])
def test_details_of_a_refusal_come_as_they_are_or_the_turn_fails(name: str) -> None:
    h = testing.Harness(app())
    with pytest.raises(Failed, match="Rejected: its details"):
        h.ask(Box.at("a").refuse, name)
    with pytest.raises(Rejected) as refused:
        h.ask(Box.at("a").refuse, "a text for an int")
    assert refused.value.details == {"why": "7"}


class Odd(Rejected):
    def __init__(self) -> None:
        super().__init__("odd")
        self.details = {1: 2}  # type: ignore[dict-item]


class Asker(Entity):
    told: list[str] = []

    def refuse(self) -> None:
        raise Odd

    def begin(self) -> None:
        ask(Asker.at("b").refuse).rejected(self._no).failed(self._broken)

    def _no(self, error: Rejected) -> None:
        self.told.append("refused")

    def _broken(self, error: Failed) -> None:
        self.told.append(str(error))


def test_a_refusal_of_ones_own_making_that_no_asker_could_be_told_is_a_failure() -> None:
    h = testing.Harness(App("odd", entities=[Asker], retries=0))
    h.ask(Asker.at("a").begin)
    h.run()
    (said,) = h[Asker.at("a")].told
    assert "its details: its key 1" in said


@pytest.mark.parametrize("name", ["a subclass of its Struct", "a text for an int", "too deep"])
def test_an_item_that_would_come_out_as_another_is_refused_by_emit(name: str) -> None:
    h = testing.Harness(app())
    with pytest.raises(Failed, match=r"Output\('points'\)"):
        h.ask(Box.at("a").put, name)
    assert h.emitted(points) == []


@pytest.mark.parametrize("verb", LEFT)
def test_what_a_verb_is_given_arrives_as_it_is_or_is_refused_there(verb: str) -> None:
    h = testing.Harness(app())
    with pytest.raises(Failed, match="would come back as a list"):
        h.ask(Box.at("a").leave, verb)


@pytest.mark.parametrize(
    ("handler", "argument"),
    [
        (Box.at("a").take, (1, 2)),
        (Box.at("a").take, nested(NESTING_MAX + 1)),
        (Box.at("a").take_point, Named()),
        (Box.at("a").take_number, 1 << 64),
        (Box.at("a").take_number, -(1 << 63) - 1),
        (Box.at("a").take_text, "\ud800"),
    ],
)
def test_an_argument_that_no_message_carries_is_refused_where_it_is_given(
    handler: Any, argument: Any
) -> None:
    with pytest.raises(TypeError, match=r"Box\.take"):
        message(handler, argument)


def test_numbers_and_texts_at_the_edge_of_what_messages_carry_are_taken() -> None:
    h = testing.Harness(app())
    for number in ((1 << 64) - 1, -(1 << 63)):
        h.ask(Box.at("a").take_number, number)
    h.ask(Box.at("a").take_text, "grün 🦀")
    assert h.ask(Box.at("a").look) == 6


@pytest.mark.parametrize(
    ("default", "said"),
    [
        (object(), "can't be stored"),
        (2**70, "can't be stored"),
        ((1, 2), "would come back as a list"),
    ],
)
def test_a_default_that_could_not_be_kept_is_refused_when_the_class_is_made(
    default: Any, said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        type(Entity)("Bad", (Entity,), {"__annotations__": {"conn": Any}, "conn": default})


def test_an_upgrade_that_leaves_what_could_not_be_kept_is_named() -> None:
    class Old(Entity, was="Upgraded"):
        n: str = ""

    class Upgraded(Entity):
        n: int = 0
        what: Any = None

        @classmethod
        def _upgrade(cls, old: dict[str, Any]) -> dict[str, Any]:
            return {"n": 1, "what": (1, 2)}

    state = Old.__skerry__.encode(Old(n="a"))
    schemas = {Old.__skerry__.schema_id: Old.__skerry__.schema}
    with pytest.raises(IncompatibleState, match=r"Upgraded/k .* field what"):
        Upgraded.__skerry__.decode(state, "k", schemas.get)


def test_what_may_look_odd_and_comes_back_as_it_is_is_kept() -> None:
    class Kept(Entity):
        share: float = 0
        at_time: datetime | None = None
        span: timedelta = timedelta()
        what: Any = None

        def fill(self) -> None:
            self.share = 3
            self.at_time = datetime(2026, 7, 1, tzinfo=ZoneInfo("UTC"))
            self.what = {"a": [1, None, {(1, 2): b"x"}], 5: nested(100)}

    h = testing.Harness(App("fine", entities=[Kept]))
    h.ask(Kept.at("a").fill)
    kept = h[Kept.at("a")]
    assert (kept.share, kept.at_time) == (3.0, datetime(2026, 7, 1, tzinfo=UTC))
    assert kept.what["a"][2] == {(1, 2): b"x"}


def test_a_state_larger_than_any_reader_takes_fails_its_turn_and_names_the_field() -> None:
    h = testing.Harness(app())
    h.ask(Box.at("a").grow, STATE_BYTES_MAX - 1000)
    with pytest.raises(Failed, match=r"more than the 134,217,728 .* of them are its field data"):
        h.ask(Box.at("a").grow, 1000)
    assert len(h[Box.at("a")].data) == STATE_BYTES_MAX - 1000


def test_a_reply_larger_than_a_message_fails_its_turn_the_very_first_one_too() -> None:
    h = testing.Harness(app())
    with pytest.raises(Failed, match=r"Box\.repeat: its reply has 9,437,1.. bytes"):
        h.ask(Box.at("a").repeat, 9 << 20)
    assert len(h.ask(Box.at("b").repeat, 7 << 20)) == 7 << 20
