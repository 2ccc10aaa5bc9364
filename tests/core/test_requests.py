"""What clients may make a shard keep: bounded, and what is refused has not happened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from skerry import App, Entity, query
from skerry.runtime.core.events import (
    Confirmed,
    Durable,
    Reply,
    Requested,
    RequestRun,
    Table,
    Ticked,
)
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.settings import Limits, Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.core.tables import sessions
from skerry.runtime.core.tables.requests import SETTLED_MAX
from skerry.runtime.core.tables.retention import LIFETIME_NS
from skerry.runtime.core.tables.table import Stamp
from skerry.runtime.simulator.disk import MemoryStore

SESSION = bytes(16)


class Tally(Entity):
    """Counts; its list tells whether a reply is encoded in its turn."""

    count: int = 0
    seen: list[int] = []

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    @query
    def worth(self, amount: int) -> int:
        return self.count

    def see(self, amount: int) -> list[int]:
        self.seen.append(amount)
        return self.seen

    @query
    def look(self) -> int:
        return self.count

    def claim(self, amount: int) -> int:
        self.seen.append(amount)
        return self.seen  # type: ignore[return-value]


class Alone:
    """The only shard of an app, on its disk."""

    def __init__(self, **limits: int) -> None:
        self.limits, self.store = Limits(**limits), MemoryStore()  # type: ignore[arg-type]
        self.now_ns = 10**18
        self.open()

    def open(self) -> None:
        """Take over from what is on the disk."""
        placement = balanced([0], version=1, next_id=1)
        types = App("requests", entities=[Tally]).types
        settings = Settings(
            me=0, incarnation=bytes(16), placement=placement, types=types, pipelines={},
            limits=self.limits,
        )  # fmt: skip
        self.shard = Shard(settings, self.store, self.store.last)
        self.shard.accept(Ticked(self.now_ns, self.now_ns))
        self._commit(self.shard.open())

    def ask(
        self,
        numbers: Sequence[int],
        *,
        keys: Sequence[str] = (),
        previous: Sequence[int] = (),
        handler: str = "add",
        size: int = 100,
        amounts: Sequence[object] = (),
        age_ns: int = 0,
        session: bytes = SESSION,
        named: bool = False,
    ) -> None:
        """A message of requests that add 1, to `a` unless told otherwise."""
        count = len(numbers)
        rows = [[amount] for amount in amounts or [1] * count]
        args = msgspec.Raw(msgspec.msgpack.encode(rows))
        run = RequestRun(
            "Tally", handler, True, self.now_ns - age_ns, list(numbers),
            list(previous) or [0] * count, list(keys) or ["a"] * count, args,
        )  # fmt: skip
        self.shard.accept(Requested("caller", session, [run], named, size))

    def wait(self, seconds: float) -> None:
        """Time passes, and the house is looked through."""
        self.now_ns += int(seconds * 1e9)
        self.shard.accept(Ticked(self.now_ns, self.now_ns))
        self.run()

    def confirm(self, upto: int, below: dict[int, int] | None = None) -> None:
        """The session holds its outcomes."""
        self.shard.accept(Confirmed(SESSION, upto, below or {}))

    def _commit(self, commit: object) -> None:
        if commit is not None:
            self.store.append(commit)  # type: ignore[arg-type]
            self.store.sync(self.shard.no)
            self.shard.accept(Durable(self.shard.no))

    def run(self, batches: int = 1000) -> None:
        """So many batches, as long as there is anything to do."""
        while batches and self.shard.runnable:
            batch = self.shard.run()
            self._commit(None if batch is None else batch.commit)
            batches -= 1

    def told(self) -> dict[int, tuple[str, object]]:
        """What callers were told since: kind and value by number."""
        found: dict[int, tuple[str, object]] = {}
        for effect in self.shard.take_effects():
            if isinstance(effect, Reply):
                bodies = msgspec.msgpack.decode(effect.bodies) or [None] * len(effect.numbers)
                for number, body in zip(effect.numbers, bodies, strict=True):
                    assert number not in found, f"{number} was answered twice"
                    found[number] = (effect.kind, body)
        return found

    def rows(self, table: Table) -> int:
        """How many rows the store has."""
        return len(list(self.store.scan(table)))


def done(numbers: Sequence[int], first: int = 1) -> dict[int, tuple[str, object]]:
    """Each is told a count that is larger by one."""
    return {number: ("done", value) for value, number in enumerate(numbers, first)}


@pytest.mark.parametrize(
    "limits", [{"waiting_requests_max": 30}, {"waiting_bytes_max": 300}], ids=["count", "bytes"]
)
def test_above_its_room_a_shard_is_busy_and_what_it_refused_did_not_happen(
    limits: dict[str, int],
) -> None:
    alone = Alone(**limits)
    for start in range(1, 1001, 10):
        alone.ask(range(start, start + 10))
    assert alone.told() == dict.fromkeys(range(31, 1001), ("busy", None))
    alone.run()
    assert alone.told() == done(range(1, 31))
    # There is room again, for what was refused too: it runs, and it is the first time.
    alone.ask(range(31, 41))
    alone.run()
    assert alone.told() == done(range(31, 41), first=31)


def test_however_much_comes_a_shard_in_overload_does_as_much_as_it_takes_in() -> None:
    """Nothing of what is refused takes the place of what runs."""
    alone, number, ran = Alone(waiting_requests_max=60, requests_per_batch_max=20), 0, 0
    for _ in range(50):
        for _ in range(10):
            alone.ask(range(number + 1, number + 11), keys=[f"k{n}" for n in range(10)])
            number += 10
        alone.run(1)
        kinds = [kind for kind, _ in alone.told().values()]
        ran += kinds.count("done")
    assert ran == 50 * 20


def test_a_message_that_is_larger_than_a_batch_is_cut_and_runs_as_a_whole() -> None:
    alone = Alone(requests_per_batch_max=7)
    alone.ask(range(1, 31))
    alone.ask(range(31, 34))
    alone.run()
    assert alone.told() == done(range(1, 34))


def test_a_batch_leaves_one_row_per_slot_and_a_copy_is_answered_from_it() -> None:
    alone = Alone()
    alone.ask(range(1, 101))
    alone.ask(range(101, 201), keys=["b"] * 100)
    alone.run()
    first = alone.told()
    assert (alone.rows(Table.REQUEST), len(first)) == (2, 200)
    for _ in range(2):
        alone.ask([3, 50, 100])
        alone.run()
        assert alone.told() == {number: first[number] for number in (3, 50, 100)}
        alone.open()


def test_a_row_goes_when_all_its_requests_are_over_and_the_floor_drops_their_copies() -> None:
    alone = Alone()
    alone.ask(range(1, 11))
    alone.run()
    first = alone.told()
    alone.confirm(10, {slot_of("Tally", "a"): 6})
    alone.run()
    assert (alone.rows(Table.REQUEST), alone.rows(Table.FLOOR)) == (1, 1)
    for _ in range(2):
        alone.ask([6, 7])
        alone.run()
        assert alone.told() == {7: first[7]}, "6 is over, 7 was not confirmed"
        alone.open()
    alone.confirm(10)
    alone.run()
    assert alone.rows(Table.REQUEST) == 0
    alone.ask(range(1, 12))
    alone.run()
    assert alone.told() == done([11], first=11)


def test_who_is_silent_for_long_leaves_the_memory_and_is_known_when_it_comes_again() -> None:
    alone = Alone()
    alone.ask(range(1, 11))
    alone.run()
    first = alone.told()
    for _ in range(3):
        alone.wait(100)
    assert alone.shard.stats()["requests"] == 0
    alone.ask(range(5, 12))
    alone.run()
    assert alone.told() == {n: first[n] for n in range(5, 11)} | done([11], first=11)
    alone.confirm(11)
    alone.run()
    assert alone.rows(Table.REQUEST) == 0


def test_a_session_that_does_not_confirm_is_refused_and_keeps_what_it_has() -> None:
    alone = Alone(session_outcomes_max=20)
    alone.ask(range(1, 31))
    alone.run()
    told = alone.told()
    assert {n: told[n] for n in range(1, 21)} == done(range(1, 21))
    assert {told[n] for n in range(21, 31)} == {("busy", told[21][1])}
    alone.confirm(20)
    alone.run()
    alone.ask(range(21, 31))
    alone.run()
    assert alone.told() == done(range(21, 31), first=21)


def test_what_waits_for_a_lost_request_is_bounded_and_runs_behind_it() -> None:
    alone = Alone(held_requests_max=3)
    alone.ask(range(2, 8), previous=range(1, 7))
    alone.run()
    assert {n: kind for n, (kind, _) in alone.told().items()} == dict.fromkeys((5, 6, 7), "busy")
    alone.ask([1])
    alone.run()
    assert alone.told() == done([1, 2, 3, 4])


def test_a_reply_that_later_turns_change_is_told_as_it_was() -> None:
    alone = Alone()
    for start in (1, 4):
        alone.ask(range(start, start + 3), handler="see")
        alone.run()
        assert alone.told() == {n: ("done", [1] * n) for n in range(start, start + 3)}


def test_a_reply_that_is_not_what_the_handler_promises_fails_its_turn_alone() -> None:
    alone = Alone()
    alone.ask([1], handler="claim")
    alone.ask([2], handler="see")
    alone.run()
    told = alone.told()
    assert told[2] == ("done", [1])
    kind, (error, _) = told[1]
    assert kind == "failed"
    assert "Tally.claim: its reply = [1]: a list where int is declared" in error


NO_ROW: dict[str, dict[str, Any]] = {
    "arguments that this release does not take": {"amounts": [1.5]},
    "a handler that this release does not have": {"handler": "subtract"},
    "a handler that is a query in this release": {"handler": "worth"},
    "an age at which its outcome may be forgotten": {"age_ns": LIFETIME_NS},
}


@pytest.mark.parametrize("unlike", NO_ROW.values(), ids=NO_ROW.keys())
@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "in two batches"])
def test_what_follows_an_answer_that_left_no_row_does_not_wait_for_one(
    unlike: dict[str, Any], together: bool
) -> None:
    alone = Alone()
    alone.ask([1])
    alone.run()
    alone.ask([2], **unlike)
    if not together:
        alone.run()
    alone.ask([3, 4], previous=[2, 3])
    alone.run()
    told = alone.told()
    assert (rows := alone.rows(Table.REQUEST)) == 2, f"{rows} rows, of 1 and of 3 and 4 only"
    assert {n: told[n] for n in (1, 3, 4)} == done([1, 3, 4])


def test_what_was_held_for_a_confirmed_request_gives_its_place_to_others() -> None:
    alone, other = Alone(held_requests_max=1), b"other session..."
    alone.ask([3], previous=[2])
    alone.ask([3])  # Said again, and its caller knows by now what became of 2.
    alone.run()
    assert alone.told() == done([3])
    alone.ask([2], previous=[1], session=other)
    alone.run()
    assert alone.told()[2][0] == "busy", "the copy of 3 is kept until it is confirmed"
    alone.confirm(3)
    alone.run()
    alone.ask([2], previous=[1], session=other)
    alone.run()
    assert alone.told() == {}, "there is room for it to wait"
    alone.ask([1], session=other)
    alone.run()
    assert alone.told() == done([1, 2], first=2)


def test_a_session_that_confirms_nothing_has_few_of_its_rowless_answers_remembered() -> None:
    alone = Alone()
    for start in range(1, 4 * SETTLED_MAX, 1000):
        alone.ask(range(start, start + 1000), handler="subtract")
        alone.run()
    remembered = alone.shard.requests.session(SESSION).settled
    assert max(remembered) == len(alone.told()), "the newest"
    assert len(remembered) == SETTLED_MAX
    alone.confirm(max(remembered))
    alone.run()
    assert not remembered


def test_a_row_of_many_outcomes_is_read_once_when_all_are_said_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone, reads, row = Alone(), 0, sessions._row

    class Counted:
        def decode(self, value: bytes) -> sessions.RequestRow:
            nonlocal reads
            reads += 1
            return row.decode(value)

    alone.ask(range(1, 501))
    alone.run()
    first = alone.told()
    monkeypatch.setattr(sessions, "_row", Counted())
    for _ in range(3):
        alone.ask(range(1, 501))
        alone.run()
        assert alone.told() == first
    assert reads == alone.rows(Table.REQUEST) == 1


@pytest.mark.parametrize("named", [False, True], ids=["unconfirmed", "named"])
def test_what_nobody_confirms_and_what_has_a_name_is_answered_as_at_first_for_a_day(
    named: bool,
) -> None:
    alone, numbers = Alone(), range(1, 6) if not named else range(1, 2)
    alone.ask(numbers, named=named)
    alone.run()
    first, all_slots = alone.told(), 1100
    for hours in (18, 37):
        for _ in range(all_slots):
            alone.wait(61)
        if hours < 24:
            alone.ask(numbers, named=named, age_ns=hours * 3600 * 10**9)
            alone.run()
            assert alone.told() == first, "it ran once, and is told so"
    assert alone.rows(Table.REQUEST) == alone.rows(Table.NAME) == 0
    alone.ask(numbers, named=named, age_ns=37 * 3600 * 10**9)
    alone.run()
    assert {kind for kind, _ in alone.told().values()} == {"late"}, "and never a second time"


def test_a_look_for_old_outcomes_in_a_batch_that_is_thrown_away_is_made_again() -> None:
    alone, found = Alone(), 0
    alone.ask(range(1, 11), keys=[f"k{number}" for number in range(10)])
    alone.run()
    shard, requests = alone.shard, alone.shard.requests
    shard.now_ns += 2 * LIFETIME_NS
    stamp = Stamp(1, shard.now_ns)
    for _ in range(1024):
        shard._expire()
        rows = list(requests.rows(stamp))
        requests.undo()
        shard._expire()
        assert list(requests.rows(stamp)) == rows
        requests.sealed(stamp)
        shard._looks += 1
        found += len(rows)
    assert found == 10


def test_a_shard_that_is_restarted_all_the_time_looks_through_every_slot() -> None:
    alone = Alone()
    alone.ask(range(1, 11), keys=[f"k{number}" for number in range(10)])
    alone.run()
    alone.now_ns += 2 * LIFETIME_NS
    for _ in range(1100):
        alone.wait(61)
        alone.store.crash()
        alone.open()
    assert alone.rows(Table.REQUEST) == 0


def flood(alone: Alone, caller: str, sessions: range, *, handler: str = "add") -> list[str]:
    """A request by each of so many sessions, all from one caller; the kinds of their outcomes."""
    args = msgspec.Raw(msgspec.msgpack.encode([[1]] if handler != "look" else [[]]))
    kinds: list[str] = []
    for number in sessions:
        run = RequestRun("Tally", handler, True, alone.now_ns, [1], [0], [f"k{number % 50}"], args)
        session = number.to_bytes(16, "big")
        alone.shard.accept(Requested(caller, session, [run], False, 100))
        if number % 100 == 99:
            alone.run()
            kinds += [e.kind for e in alone.shard.take_effects() if isinstance(e, Reply)]
    alone.run()
    kinds += [effect.kind for effect in alone.shard.take_effects() if isinstance(effect, Reply)]
    return kinds


def test_queries_leave_no_session() -> None:
    alone = Alone()
    assert flood(alone, "flood", range(1000), handler="look") == ["done"] * 1000
    assert alone.shard.stats()["sessions"] == 0


def test_the_sessions_that_one_caller_begins_are_bounded_and_others_are_served() -> None:
    alone = Alone(sessions_of_caller_max=5)
    told = flood(alone, "flood", range(1000))
    assert (told.count("done"), told.count("busy")) == (5, 995)
    assert flood(alone, "honest", range(2000, 2001)) == ["done"]
    assert flood(alone, "flood", range(3)) == ["done"] * 3, "a copy is answered as before"
    for _ in range(3):
        alone.wait(100)
    assert flood(alone, "flood", range(5000, 5001)) == ["done"], "those were silent and have left"


def test_above_so_many_sessions_the_most_silent_leave_the_memory_and_are_still_known() -> None:
    alone = Alone(sessions_max=20)
    for number in range(100):
        assert flood(alone, f"caller-{number}", range(number, number + 1)) == ["done"]
        flood(alone, "busy", range(1000, 1001))
    assert alone.shard.stats()["sessions"] <= 20
    rows = alone.rows(Table.REQUEST)
    assert flood(alone, "again", range(100)) == ["done"] * 100
    assert alone.rows(Table.REQUEST) == rows == 101, "nothing ran twice"


def test_sessions_that_only_the_store_knows_are_bounded() -> None:
    alone = Alone(sessions_max=1, sessions_away_max=10)
    kinds = [flood(alone, f"c{n}", range(n, n + 1))[0] for n in range(30)]
    assert kinds == ["done"] * 11 + ["busy"] * 19
    assert flood(alone, "c", range(11)) == ["done"] * 11


def test_confirmations_do_not_pile_up() -> None:
    alone = Alone()
    alone.ask(range(1, 11))
    alone.run()
    for upto in range(1, 1001):
        alone.shard.accept(Confirmed(upto.to_bytes(16, "big"), upto))
        alone.confirm(upto)
    assert len(alone.shard.schedule._confirmed) == 1
    alone.run()
    assert alone.rows(Table.REQUEST) == 0
