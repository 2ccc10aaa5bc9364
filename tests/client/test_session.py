"""The caller's end, driven by hand: what is said when, and never more than a door can use."""

from __future__ import annotations

import math
from itertools import chain
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from skerry.runtime.client.pending import UNKNOWN, UNSAID, WAITED
from skerry.runtime.client.session import Session
from skerry.runtime.client.window import (
    AGAIN_MAX,
    HELD_MAX_S,
    HELD_S,
    OVERDUE_S,
    PAUSE_MAX_S,
    PAUSE_S,
    WINDOW_BYTES,
    WINDOW_MAX,
    WINDOW_MIN,
)
from skerry.runtime.core.events import Outcome
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.gateway import protocol


class Doors:
    """A session's lines to the doors of an app, and a clock. Notes what is said."""

    def __init__(self, shards: int = 1) -> None:
        self.now_s, self.begun = 0.0, False
        self.down: set[int] = set()
        self.said: list[tuple[int, Any]] = []
        self.session = Session(bytes(16), self)
        self.placement = balanced(list(range(shards)), version=1, next_id=shards)
        self.outcomes: dict[Any, Outcome] = {}
        for shard in range(shards):
            self.session.connected(shard)
            self.welcome(shard)
        self.said.clear()

    def say(self, shard: int, raw: bytes) -> bool:
        """See `Lines`."""
        if shard not in self.down:
            self.said.append((shard, protocol.decode_call(raw)))
        return shard not in self.down

    def up(self, shard: int) -> bool:
        """See `Lines`."""
        return shard not in self.down

    def begin(self) -> None:
        """See `Lines`."""
        self.begun = True

    def clock_ns(self) -> int:
        """See `Lines`."""
        return int(self.now_s * 1e9)

    def welcome(self, shard: int, epoch: int = 1, incarnation: bytes = bytes(16)) -> None:
        """A door says who it is."""
        greeting = protocol.Greeting(
            incarnation,
            shard,
            epoch,
            self.placement,
            self.clock_ns(),
            "app",
            {"Box": ["put", "take"]},
        )
        self.session.heard(shard, protocol.Welcome(greeting), self.now_s)

    def ask(self, count: int, *, until_s: float = math.inf) -> None:
        """So many requests, told as 0, 1, 2..., to boxes of their own."""
        start = len(self.session._windows[0].waiting) + len(self.outcomes)
        for of in range(start, start + count):
            self.ask_one(of, key=f"box-{of}", until_s=until_s)

    def ask_one(
        self,
        of: Any,
        *,
        key: str,
        until_s: float = math.inf,
        named: bytes = b"",
        handler: str = "put",
        args: bytes = b"\x90",
    ) -> Any:
        """One request."""
        return self.session.request(
            "Box", key, handler, args, self._told, of=of, until_s=until_s, named=named
        )

    def _told(self, of: Any, outcome: Outcome) -> None:
        assert of not in self.outcomes, f"{of} was told twice"
        self.outcomes[of] = outcome

    def heard(self, shard: int = 0) -> list[int]:
        """The requests that a door has heard since, by number."""
        if self.begun:
            self.begun = False
            self.session.flush(self.now_s)
        said, self.said = self.said, [one for one in self.said if one[0] != shard]
        asks = [word for to, word in said if to == shard and isinstance(word, protocol.Asks)]
        return [number for word in asks for run in word.runs for number in run.numbers]

    def owner(self, box: int) -> int:
        """The door of a box."""
        return self.placement.slots[slot_of("Box", f"box-{box}")]

    def confirmed(self) -> list[tuple[int, dict[int, int]]]:
        """What was confirmed since."""
        said, self.said = self.said, []
        return [(w.upto, w.below) for _, w in said if isinstance(w, protocol.Confirm)]

    def answer(self, numbers: list[int], kind: str = "done", *, shard: int = 0) -> None:
        """A door tells of requests."""
        bodies = [] if kind == "busy" else [msgspec.Raw(b"\xc0")] * len(numbers)
        self.session.heard(shard, protocol.Outcomes([(kind, numbers, bodies)]), self.now_s)

    def wait(self, seconds: float) -> None:
        """Time passes, tick by tick."""
        for _ in range(round(seconds / 0.25)):
            self.now_s += 0.25
            self.session.tick(self.now_s)


def test_no_more_is_on_its_way_than_the_window_and_the_rest_follows_the_answers() -> None:
    doors = Doors()
    doors.ask(WINDOW_MAX + 100)
    assert doors.heard() == list(range(1, WINDOW_MAX + 1))
    doors.wait(1)
    assert doors.heard() == []
    doors.answer(list(range(1, 41)))
    assert doors.heard() == list(range(WINDOW_MAX + 1, WINDOW_MAX + 41))


def test_a_door_is_full_when_more_waits_than_it_has_room_for() -> None:
    doors = Doors()
    doors.ask(WINDOW_MAX)
    doors.heard()
    assert doors.session.full_shards() == []
    doors.ask(1)
    assert doors.session.full_shards() == [0]
    doors.answer([1])
    assert doors.session.full_shards() == []


def test_a_door_that_was_busy_is_full_sooner() -> None:
    doors = Doors()
    doors.ask(100)
    doors.answer(doors.heard()[50:], "busy")
    assert doors.session.full_shards() == [0]


def test_a_door_is_full_of_large_requests_sooner() -> None:
    doors = Doors()
    large = msgspec.msgpack.encode([bytes(WINDOW_BYTES // 2)])
    for of in range(3):
        doors.ask_one(of, key=f"box-{of}", args=large)
    assert len(doors.heard()) == 2
    assert doors.session.full_shards() == [0]
    doors.answer([1])
    assert doors.heard() == [3]
    assert doors.session.full_shards() == []


def test_a_door_is_greeted_again_when_something_is_overdue() -> None:
    """It may be another's by now, and would never answer."""
    doors = Doors()
    doors.ask(1)
    doors.heard()
    doors.wait(OVERDUE_S)
    assert any(isinstance(word, protocol.Hello) for _, word in doors.said)


def test_who_is_slow_is_not_asked_again_but_for_the_few_oldest_requests() -> None:
    doors = Doors()
    doors.ask(1000)
    assert len(doors.heard()) == 1000
    doors.wait(60)
    # After 2 s, and then after 4, 8, 16 and 32 more.
    assert doors.heard() == list(range(1, 4 * AGAIN_MAX + 1))
    doors.wait(2)
    assert len(doors.heard()) == AGAIN_MAX


def test_a_busy_door_is_left_alone_for_a_while_and_then_asked_for_less() -> None:
    doors = Doors()
    doors.ask(1000)
    doors.answer(doors.heard(), "busy")
    assert doors.heard() == []
    doors.wait(PAUSE_S)
    first = doors.heard()
    assert first == list(range(1, WINDOW_MIN + 1)), "the same numbers: it is the same requests"
    pauses = []
    for _ in range(20):
        doors.answer(doors.heard() or first, "busy")
        before_s = doors.now_s
        while not (first := doors.heard()):
            doors.wait(0.25)
        pauses.append(doors.now_s - before_s)
    # Drawn: from half of what it is up to, which doubles. Seen tick by tick.
    assert pauses[0] <= 2 * PAUSE_S + 0.25
    assert PAUSE_MAX_S / 2 <= pauses[-1] <= PAUSE_MAX_S + 0.25
    # As it takes more, it is asked for more, up to all that there is.
    while first:
        doors.answer(first)
        first = doors.heard()
    assert len(doors.outcomes) == 1000


def test_what_waits_for_a_refused_request_leaves_it_room() -> None:
    """All to one box: the first half was refused, the door holds the other until it comes."""
    doors = Doors()
    for of in range(200):
        doors.ask_one(of, key="box")
    numbers = doors.heard()
    doors.answer(numbers[:100], "busy")
    doors.wait(PAUSE_S)
    assert doors.heard() == numbers[:WINDOW_MIN]


def test_runs_of_one_handler_keep_the_order_of_each_box() -> None:
    doors = Doors()
    for of, handler in enumerate(("put", "take", "put")):
        doors.ask_one(of, key="box", handler=handler)
    doors.ask_one("other", key="another box")
    assert doors.heard() == [1, 2, 3, 4]


def test_a_broken_line_s_requests_are_said_again_with_their_numbers() -> None:
    doors = Doors()
    doors.ask(50)
    doors.answer(doors.heard()[:20])
    doors.session.connected(0)
    assert doors.heard() == list(range(21, 51))
    doors.welcome(0, epoch=2)
    assert doors.heard() == [], "the line is newer than this epoch"
    doors.welcome(0, epoch=3)
    assert doors.heard() == list(range(21, 51))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("other_doors", [True, False])
def test_what_is_under_way_at_a_change_of_workers_is_said_to_the_new_owners_in_order(
    workers: int, other_doors: bool
) -> None:
    """`other_doors`: the app was started anew; if not, a door that stays says who owns what."""
    doors = Doors(shards=2)
    said: dict[int, list[int]] = {0: [], 1: []}
    for of in range(40):
        doors.ask_one(of, key=f"box-{of % 8}")
        if of % 10 == 9:  # So that neither door's numbers all come before the other's.
            for shard, numbers in said.items():
                numbers += doors.heard(shard)
    assert all(said.values()), "both doors have some"
    doors.answer(said[1][:2], shard=1)
    for of in range(40, 50):
        doors.ask_one(of, key=f"box-{of % 8}")
    new = range(2, 2 + workers) if other_doors else range(workers)
    doors.placement = balanced(list(new), version=2, next_id=2 + workers)
    if other_doors:
        doors.session.reroute()
        for shard in new:
            doors.session.connected(shard)
    for shard in new:
        doors.welcome(shard)
    found = {shard: doors.heard(shard) for shard in new}
    assert all(numbers == sorted(numbers) for numbers in found.values()), "as a door wants them"
    open_calls = set(range(1, 51)) - set(said[1][:2])
    again = list(chain.from_iterable(found.values()))
    stays = {  # Their doors have them, and still own their slots.
        shard: [n for n in numbers if n in open_calls.difference(again)]
        for shard, numbers in said.items()
        if shard in new
    }
    assert sorted(chain(again, *stays.values())) == sorted(open_calls)
    assert any(stays.values()) is not other_doors
    for shard, numbers in chain(found.items(), stays.items()):
        doors.answer(numbers, shard=shard)
    assert len(doors.outcomes) == 50


def test_a_slot_that_is_on_its_way_holds_up_no_request_but_its_own() -> None:
    doors = Doors()
    for of in range(6):
        doors.ask_one(of, key=f"box-{of % 2}")
    assert doors.heard() == [1, 2, 3, 4, 5, 6]
    doors.answer([1, 3], "moved")
    doors.answer([5], "moved")
    doors.ask_one(6, key="box-0")
    doors.ask_one(7, key="box-1")
    assert doors.heard() == [7], "of the other box"
    assert doors.session.wake_s == pytest.approx(2 * HELD_S)
    doors.now_s += 2 * HELD_S
    doors.session.tick(doors.now_s)
    assert doors.heard() == [1, 3, 5, 8], "in their order"


def test_requests_to_a_slot_that_stays_on_its_way_are_said_ever_less_often() -> None:
    doors = Doors()
    doors.ask_one(0, key="box-0")
    waited = []
    for _ in range(12):
        assert doors.heard() == [1]
        doors.answer([1], "moved")
        assert doors.heard() == []
        waited.append(doors.session.wake_s - doors.now_s)
        doors.now_s = doors.session.wake_s
        doors.session.tick(doors.now_s)
    assert waited[:3] == pytest.approx([HELD_S, 2 * HELD_S, 4 * HELD_S])
    assert waited[-1] == pytest.approx(HELD_MAX_S)


def test_a_door_that_goes_down_while_requests_are_held_keeps_nobody_awake() -> None:
    doors = Doors()
    doors.ask_one(0, key="box-0")
    doors.answer(doors.heard(), "moved")
    doors.down.add(0)
    doors.now_s = doors.session.wake_s
    doors.session.tick(doors.now_s)
    assert doors.session.wake_s > doors.now_s
    doors.down.clear()
    doors.session.tick(doors.now_s)
    assert doors.heard() == [1]


def test_a_door_that_tells_who_owns_a_slot_ends_the_waiting() -> None:
    doors = Doors(shards=2)
    of = next(of for of in range(99) if doors.owner(of) == 0)
    doors.ask_one("a", key=f"box-{of}")
    assert doors.heard() == [1]
    doors.answer([1], "moved")
    slots = [1] * len(doors.placement.slots)
    doors.placement = replace(doors.placement, version=2, slots=slots)
    doors.welcome(0)
    assert doors.heard(1) == [1]
    doors.answer([1], shard=1)
    assert doors.outcomes["a"].kind == "done"


@pytest.mark.parametrize("refused", [0, 3])
def test_the_outcome_of_what_was_under_way_at_a_restore_is_unknown_and_it_is_not_said_again(
    refused: int,
) -> None:
    """What the backup has of it counts already. What was never said is said, in another session."""
    doors = Doors(shards=2)
    for of in range(20):
        doors.ask_one(of, key=f"box-{of}")
    under_way = {shard: doors.heard(shard) for shard in (0, 1)}
    # What waits to be said again is as unknown as the rest.
    doors.answer(under_way[0][:refused], "busy")
    before = doors.session.id
    doors.ask_one("new", key="box-0")
    for shard in (0, 1):
        doors.session.connected(shard)
        doors.welcome(shard, incarnation=bytes(15) + b"r")
    doors.wait(10)
    assert [doors.outcomes[of] for of in range(20)] == [UNKNOWN] * 20
    said = [word for _, word in doors.said if isinstance(word, protocol.Asks)]
    assert {word.session for word in said} == {doors.session.id} != {before}
    assert {number for word in said for run in word.runs for number in run.numbers} == {21}


def test_a_restored_app_is_believed_who_owns_what_though_its_placement_is_older() -> None:
    """The backup was taken before a change of workers."""
    doors = Doors(shards=2)
    old = doors.placement
    doors.placement = balanced([2, 3, 4], version=2, next_id=5)
    doors.session.reroute()
    for shard in (2, 3, 4):
        doors.session.connected(shard)
        doors.welcome(shard)
    doors.down = {2, 3, 4}
    for of in range(20):
        doors.ask_one(of, key=f"box-{of}")
    doors.placement = old
    doors.session.reroute()
    for shard in (0, 1):
        doors.session.connected(shard)
        doors.welcome(shard, incarnation=bytes(15) + b"r")
    assert sorted(doors.heard(0) + doors.heard(1)) == list(range(1, 21))


def test_what_nobody_waits_for_any_more_when_it_could_be_said_is_never_said() -> None:
    """A loop that starts 50,000 tasks comes to what they ask when the first have given up."""
    doors = Doors()
    doors.ask(3, until_s=5.0)
    doors.ask_one("patient", key="p")
    doors.ask_one("named", key="n", named=bytes(16), until_s=5.0)
    doors.now_s = 5.0
    patient, named = sorted(doors.heard())
    assert (patient, named >= 1 << 62) == (1, True), "a named one is another's, too"
    assert [doors.outcomes[of] for of in range(3)] == [UNSAID] * 3


def test_what_was_given_up_is_not_kept_while_nobody_is_there_to_hear_it() -> None:
    doors = Doors()
    doors.down.add(0)
    doors.ask(10, until_s=1.0)
    doors.wait(2)
    assert set(doors.outcomes.values()) == {UNSAID}
    assert not doors.session.waits


def test_what_was_never_said_is_taken_back_and_what_was_said_is_unknown() -> None:
    doors = Doors()
    doors.ask(WINDOW_MAX + 10, until_s=5.0)
    assert len(doors.heard()) == WINDOW_MAX
    doors.wait(6)
    told = [doors.outcomes[of] for of in range(WINDOW_MAX + 10)]
    assert told == [WAITED] * WINDOW_MAX + [UNSAID] * 10
    assert max(doors.heard()) <= WINDOW_MAX
    doors.answer(list(range(1, WINDOW_MAX + 1)))
    assert doors.heard() == [], "nothing is said that nobody asks for any more"


def test_what_was_given_up_can_be_waited_for_again() -> None:
    doors = Doors()
    late, early = (doors.ask_one(of, key=of, until_s=1.0) for of in ("late", "early"))
    numbers = doors.heard()
    doors.wait(2)
    assert doors.outcomes == {"late": WAITED, "early": WAITED}
    doors.answer(numbers[1:])
    assert early.outcome == Outcome("done", b"\xc0"), "it came when nobody listened"
    doors.outcomes.clear()
    doors.session.listen(late, doors._told, "again", 10.0)
    doors.answer(numbers[:1])
    assert doors.outcomes == {"again": Outcome("done", b"\xc0")}


def test_nothing_is_confirmed_of_a_slot_that_an_open_request_may_still_reach() -> None:
    doors = Doors()
    doors.ask(10)
    numbers = doors.heard()
    doors.answer([n for n in numbers if n != 4])
    doors.wait(0.25)
    ((upto, below),) = doors.confirmed()
    assert (upto, list(below.values())) == (10, [3])
    doors.answer([4], "busy")
    doors.answer([4])  # Too late: it was taken back, and is said again.
    doors.session._windows[0].unconfirmed = True
    doors.session.tick(doors.now_s)
    ((upto, below),) = doors.confirmed()
    assert (upto, list(below.values())) == (10, [3])


def test_who_waits_when_a_client_closes_is_told() -> None:
    doors = Doors()
    doors.ask(WINDOW_MAX + 1)
    given_up = doors.ask_one("given up", key="x", named=bytes(15) + b"x", until_s=0.1)
    twice = [doors.ask_one(of, key="y", named=bytes(15) + b"y") for of in ("one", "two")]
    doors.heard()
    doors.wait(0.25)
    doors.session.close()
    assert doors.outcomes[0] == UNKNOWN
    assert doors.outcomes["one"] == doors.outcomes["two"] == doors.outcomes[WINDOW_MAX]
    assert doors.outcomes[WINDOW_MAX] == UNSAID
    assert doors.outcomes["given up"] == WAITED
    assert given_up.outcome is not None
    assert len(twice) == 2
