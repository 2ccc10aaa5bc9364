"""What a worker is asked that is no message: bounded for a caller and in all, in turns, in pages."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from skerry import App, Entity, Rejected
from skerry.runtime.core.events import (
    Durable,
    Operated,
    Requested,
    RequestRun,
    Table,
    Ticked,
    Told,
)
from skerry.runtime.core.ownership import balanced, slot_of
from skerry.runtime.core.settings import Limits, Settings
from skerry.runtime.core.shard import Shard
from skerry.runtime.gateway import inquiries, looks
from skerry.runtime.gateway.inquiries import Inquiries
from skerry.runtime.gateway.protocol import ALL_SLOTS, Control, as_bits, slots_in
from skerry.runtime.simulator.disk import MemoryStore


class Box(Entity):
    held: str = ""

    def hold(self, size: int) -> None:
        if size < 0:
            raise Rejected("too little" + "!" * 50)
        self.held = "x" * size


class Desk:
    """A shard on its disk, who asks it, and what they are answered."""

    def __init__(self, **limits: int) -> None:
        types = App("desk", entities=[Box]).types
        settings = Settings(
            me=0, incarnation=bytes(16), placement=balanced([0], version=1, next_id=1),
            types=types, pipelines={}, limits=Limits(**limits),
        )  # fmt: skip
        self.store = MemoryStore()
        self.shard = Shard(settings, self.store, self.store.last)
        self.now_ns = 10**18
        self.shard.accept(Ticked(self.now_ns, self.now_ns))
        self.commit(self.shard.open())
        self.inquiries = Inquiries(self.shard, self.store, self, self)
        self.answers: list[tuple[str, int, Any]] = []
        self.errors: list[tuple[str, int, Exception]] = []
        self.cuts: list[int] = []
        self.deaf: set[str] = set()
        """Who does not read."""
        self.gone: set[str] = set()

    # ── what inquiries need ──

    def answer(self, caller: str, n: int, value: Any) -> None:
        self.answers.append((caller, n, value))

    def error(self, caller: str, n: int, error: Exception) -> None:
        self.errors.append((caller, n, error))

    def welcome(self, caller: str, greeting: Any) -> None:
        raise AssertionError("nobody says hello")

    def has_read(self, caller: str) -> bool | None:
        return None if caller in self.gone else caller not in self.deaf

    def let_go(self, caller: str) -> None:
        self.gone.add(caller)

    def greeting(self) -> Any:
        raise AssertionError("nobody says hello")

    def status(self) -> dict[str, Any]:
        return {}

    def backup(self, caller: str, n: int, no: int, folder: str) -> None:
        self.cuts.append(no)

    def steer(self, word: str) -> dict[str, Any]:
        raise AssertionError("nobody steers")

    # ── what happens ──

    def commit(self, commit: Any, *, durable: bool = True) -> None:
        if commit is not None:
            self.store.append(commit)
        if durable:
            self.store.sync(self.shard.no)
            self.shard.accept(Durable(self.shard.no))

    def fill(self, keys: list[str], size: int = 1, *, durable: bool = True) -> None:
        """Send each of them a message; of a size below 0 it is a dead letter."""
        args = msgspec.Raw(msgspec.msgpack.encode([[size]] * len(keys)))
        numbers = list(range(1, len(keys) + 1))
        session = bytes([self.shard.no]).rjust(16, b"\0")
        run = RequestRun("Box", "hold", False, self.now_ns, numbers, [0] * len(keys), keys, args)
        self.shard.accept(Requested(session, session, [run]))
        self.run(durable=durable)

    def run(self, *, durable: bool = True) -> None:
        while self.shard.runnable:
            batch = self.shard.run()
            self.commit(None if batch is None else batch.commit, durable=durable)

    def ask(self, caller: str, n: int, kind: str, *args: Any) -> None:
        self.inquiries.serve(Control(caller, n, kind, args))

    def settle(self, steps: int = 10_000) -> None:
        """Go on until no look is under way."""
        self.inquiries.step()
        while self.inquiries.busy and steps:
            self.inquiries.step()
            steps -= 1

    def told(self, caller: str) -> dict[int, Any]:
        return {n: value for who, n, value in self.answers if who == caller}


@pytest.mark.parametrize("kind", ["get", "scan", "count", "dead"])
def test_one_caller_s_looks_are_bounded_and_what_is_beyond_is_busy(kind: str) -> None:
    args = {"get": ("Box", "a"), "scan": ("Box", "", "", 10), "count": ("Box",)}
    desk = Desk(looks_of_caller_max=5)
    desk.fill(["a"])
    desk.fill(["b"], durable=False)
    for n in range(100):
        desk.ask("greedy", n, kind, *args.get(kind, ("list", None, 10)))
    assert len(desk.errors) == 95
    assert {type(error) for _, _, error in desk.errors} == {inquiries.Busy}
    desk.ask("honest", 1, "get", "Box", "a")
    assert len(desk.errors) == 95, "another is served"
    desk.commit(None)
    desk.settle()
    assert len(desk.told("greedy")) == 5
    assert len(desk.told("honest")) == 1
    desk.ask("greedy", 200, "get", "Box", "a")
    assert len(desk.errors) == 95, "there is room again"


def test_looks_of_all_callers_are_bounded() -> None:
    desk = Desk(looks_max=50)
    desk.fill(["a"], durable=False)
    for n in range(200):
        desk.ask(f"caller-{n}", n, "scan", "Box", "", "", 10)
    assert len(desk.errors) == 150
    desk.commit(None)
    desk.settle()
    assert len(desk.answers) == 50
    assert desk.inquiries._count == 0


def test_answers_that_wait_are_bounded_in_bytes_and_who_does_not_read_is_let_go() -> None:
    desk = Desk(looks_bytes_max=80_000)
    desk.fill(["a"], 4000)
    desk.deaf |= {f"deaf-{n}" for n in range(40)}
    for n in range(10):
        for deaf in sorted(desk.deaf):
            desk.ask(deaf, n, "get", "Box", "a")
            desk.inquiries.step()
            assert desk.inquiries._bytes < 90_000
    assert desk.answers == []
    assert 0 < len(desk.gone) < 40, "as many as there is no room for"
    for n in range(10):
        desk.ask("honest", n, "get", "Box", "a")
        desk.inquiries.step()
    assert len(desk.told("honest")) == 10


@pytest.mark.parametrize("kind", ["get", "scan", "count", "dead"])
def test_an_answer_that_is_ready_leaves_before_its_worker_goes_to_sleep(kind: str) -> None:
    """Nobody comes by for a second then: each page of a scan took that long."""
    args = {"get": ("Box", "a"), "scan": ("Box", "", "", 10), "count": ("Box",)}
    desk = Desk()
    desk.fill(["a"])
    for n in range(3):
        desk.ask("caller", n, kind, *args.get(kind, ("list", None, 10)))
        desk.inquiries.step()
        while desk.inquiries.busy:
            desk.inquiries.step()
        assert n in desk.told("caller")


def test_looks_are_done_in_turns_by_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SLICE_ROWS", 5)
    desk = Desk()
    desk.fill([f"key-{n}" for n in range(100)])
    for n in range(50):
        desk.ask("greedy", n, "count", "Box")
    desk.ask("honest", 1, "scan", "Box", "", "", 3)
    for _ in range(4):
        desk.inquiries.step()
    assert len(desk.told("honest")) == 1
    assert desk.told("greedy") == {}
    desk.settle()
    assert [count for count, _ in desk.told("greedy").values()] == [100] * 50


@pytest.mark.parametrize("last_word", ["reads", "leaves"])
def test_who_does_not_read_is_not_worked_for(last_word: str) -> None:
    desk = Desk()
    desk.fill(["a", "b"])
    desk.deaf.add("deaf")
    for n in range(10):
        desk.ask("deaf", n, "scan", "Box", "", "", 10)
    assert not desk.inquiries.busy, "nobody spins for it"
    desk.settle()
    assert desk.answers == []
    if last_word == "reads":
        desk.deaf.clear()
        desk.settle()
        assert len(desk.told("deaf")) == 10
    else:
        desk.gone.add("deaf")
        desk.settle()
    assert (desk.inquiries._callers, desk.inquiries._count, desk.inquiries._bytes) == ({}, 0, 0)


def test_a_page_is_bounded_in_bytes_and_pages_show_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "PAGE_BYTES", 10_000)
    desk = Desk()
    keys = {f"key-{n}" for n in range(30)}
    desk.fill(sorted(keys), 3000)
    found, after, pages = list[str](), "", 0
    while True:
        desk.ask("c", pages, "scan", "Box", "", after, 1000)
        desk.settle()
        rows, schemas, _ = desk.told("c")[pages]
        if not rows:
            break
        assert sum(len(state) for _, state in rows) < 14_000
        assert len(schemas) == 1
        found += [key for key, _ in rows]
        after, pages = rows[-1][0], pages + 1
    assert pages == 8
    assert sorted(found) == sorted(keys)


def test_a_count_is_done_in_slices_beside_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "SLICE_ROWS", 10)
    desk = Desk()
    desk.fill([f"key-{n}" for n in range(101)])
    desk.ask("c", 1, "count", "Box")
    steps = 0
    while not desk.answers:
        desk.fill([f"key-{steps}"], 2)
        desk.inquiries.step()
        steps += 1
    assert desk.answers == [("c", 1, [101, ALL_SLOTS])]
    assert steps > 10


def letters_of(desk: Desk, *args: Any) -> list[Any]:
    desk.answers.clear()
    desk.ask("c", 1, "dead", *args)
    desk.settle()
    return desk.told("c")[1]


def test_dead_letters_come_in_pages_with_their_number_and_without_tracebacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looks, "SLICE_ROWS", 7)
    desk = Desk()
    for n in range(50):
        desk.now_ns += 1000
        desk.shard.accept(Ticked(desk.now_ns, desk.now_ns))
        desk.fill([f"key-{n}"], -1)
    assert desk.shard.dead == 50
    found, after = list[bytes](), None
    while letters := letters_of(desk, "list", after, 1000)[0]:
        assert len(letters) <= 7
        assert all(letter.traceback == "" for _, letter in letters)
        found += [id for id, _ in letters]
        after = found[-1]
    assert found == [key for key, _ in desk.store.scan(Table.DEAD)]
    oldest, total, _ = letters_of(desk, "oldest", None, 20)
    assert [letter.key for _, letter in oldest] == [f"key-{n}" for n in range(20)]
    assert total == 50
    monkeypatch.setattr(looks, "PAGE_BYTES", 500)
    oldest, _, _ = letters_of(desk, "oldest", None, 20)
    assert [letter.key for _, letter in oldest] == [f"key-{n}" for n in range(len(oldest))]
    assert 0 < len(oldest) < 10


def test_how_many_dead_letters_there_are_is_known_without_a_count() -> None:
    desk = Desk()
    desk.fill(["a", "b", "c"], -1)
    ids = [key for key, _ in desk.store.scan(Table.DEAD)]
    for n, (action, place) in enumerate((("drop", 0), ("drop", 0), ("retry", 1), ("drop", 1)), 1):
        desk.ask("c", n, "dead", action, ids[place], 1)
    desk.run()
    told = {e.number: e.outcome.kind for e in desk.shard.take_effects() if hasattr(e, "outcome")}
    assert told == {1: "done", 2: "invalid", 3: "done", 4: "invalid"}
    assert desk.shard.dead == len(list(desk.store.scan(Table.DEAD))) == 2
    again = Shard(desk.shard.settings, desk.store, desk.store.last)
    again.accept(Ticked(desk.now_ns, desk.now_ns))
    desk.store.append(again.open())
    assert again.dead == 2


def commanded(desk: Desk) -> list[str]:
    """What became of operators' commands since the last look."""
    return [e.outcome.kind for e in desk.shard.take_effects() if isinstance(e, Told)]


def test_an_operator_s_words_are_bounded() -> None:
    desk = Desk(operations_max=3)
    for n in range(10):
        desk.shard.accept(Operated(("c", n), n, "drop", bytes(26)))
    assert commanded(desk) == ["busy"] * 7
    desk.run()
    desk.shard.accept(Operated(("c", 11), 11, "drop", bytes(26)))
    desk.run()
    assert commanded(desk) == ["invalid"] * 4


@pytest.mark.parametrize("no", [2**63 - 1, 2 * 10**18])
def test_a_cut_that_no_other_could_follow_is_refused_and_the_next_one_is_taken(no: int) -> None:
    desk = Desk()
    desk.ask("c", 1, "backup", no, "folder")
    assert desk.cuts == []
    [(_, _, error)] = desk.errors
    assert str(no) in str(error)
    desk.ask("c", 2, "backup", desk.now_ns + 10, "folder")
    assert desk.cuts == [desk.now_ns + 10]


# ── slots that move ──


def slot(key: str) -> int:
    return slot_of("Box", key)


KEYS = sorted((f"key-{n}" for n in range(60)), key=lambda key: (slot(key), key))


def leave(desk: Desk, *slots: int) -> None:
    """Other shards have these slots from now on."""
    desk.inquiries._rows._ownership.served -= set(slots)


def answer(desk: Desk, kind: str, *args: Any) -> Any:
    desk.answers.clear()
    desk.ask("c", 1, kind, *args)
    desk.settle()
    return desk.told("c")[1]


def test_slots_as_bits_come_back_as_they_were() -> None:
    for slots in (set[int](), {0}, {1023}, {7, 8, 9, 500}, set(range(1024))):
        assert slots_in(as_bits(slots)) == slots
    assert as_bits(range(1024)) == ALL_SLOTS


def test_a_page_has_the_asked_slots_that_are_served_and_says_which_it_has_read() -> None:
    desk = Desk()
    desk.fill(KEYS)
    desk.fill(KEYS, -1)
    away = {slot(KEYS[3]), slot(KEYS[20])}
    leave(desk, *away)
    asked = {slot(key) for key in KEYS[:40]}
    here = [key for key in KEYS if slot(key) in asked - away]
    rows, _, read = answer(desk, "scan", "Box", "", "", 100, as_bits(asked))
    assert [key for key, _ in rows] == here
    assert slots_in(read) == asked - away
    assert answer(desk, "count", "Box", as_bits(asked)) == [len(here), as_bits(asked - away)]
    letters, read = answer(desk, "dead", "list", None, 100, as_bits(asked))
    assert [letter.key for _, letter in letters] == here
    assert slots_in(read) == asked - away
    letters, total, read = answer(desk, "dead", "oldest", None, 100, as_bits(asked))
    assert sorted(letter.key for _, letter in letters) == sorted(here)
    assert (total, slots_in(read)) == (len(here), asked - away)


def test_what_is_asked_about_slots_that_others_have_is_answered_by_nothing() -> None:
    desk = Desk()
    desk.fill(["a"])
    desk.fill(["a"], -1)
    ((id, _),) = desk.store.scan(Table.DEAD)
    page = answer(desk, "scan", "Box", "", "a", 10)
    leave(desk, slot("a"))
    bits = as_bits([slot("a")])
    assert answer(desk, "get", "Box", "a") is None
    assert answer(desk, "scan", "Box", "", "", 10, bits) is None
    assert answer(desk, "count", "Box", bits) is None
    assert answer(desk, "dead", "list", None, 10, bits) is None
    assert answer(desk, "dead", "oldest", None, 10, bits) is None
    assert answer(desk, "dead", "show", id, 10) is None
    assert page is not None
    assert answer(desk, "scan", "Box", "", "a", 10) is None, "a page has ended in that slot"
    assert answer(desk, "dead", "list", id, 10) is None
    for n, action in enumerate(("retry", "drop")):
        desk.shard.accept(Operated(("c", n), n, action, id))
    desk.run()
    assert commanded(desk) == ["moved"] * 2


@pytest.mark.parametrize("kind", ["count", "oldest"])
def test_of_a_slot_that_leaves_in_the_middle_nothing_is_counted(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """It is counted at its new owner, from its beginning."""
    monkeypatch.setattr(looks, "SLICE_ROWS", 3)
    same = [key for key in (f"k{n}" for n in range(20_000)) if slot(key) == 500][:10]
    others = [key for key in KEYS if slot(key) != 500]
    desk = Desk()
    desk.fill(same + others, -1 if kind == "oldest" else 1)
    desk.ask("c", 1, *(("count", "Box") if kind == "count" else ("dead", "oldest", None, 100)))
    under_way = desk.inquiries._callers["c"].under_way
    before = len([key for key in others if slot(key) < 500])
    for _ in range(before // 3 + 2):
        assert under_way, "it is in the middle"
        desk.inquiries.step()
    leave(desk, 500)
    desk.settle()
    *found, read = desk.told("c")[1]
    assert found[-1] == len(others)
    assert slots_in(read) == set(range(1024)) - {500}
