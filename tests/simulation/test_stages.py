"""Chains of stages: what an entity replies flows on, exactly once and in order, under every fault."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from skerry import App, BadApp, Entity, Generate, send
from skerry.testing import Faults, Harness, Simulation

TONES, PARTITIONS = 40, 3
SEEDS = 12


class Tone(msgspec.Struct, frozen=True):
    player: str
    number: int


class Player(Entity):
    last: int = -1
    listeners: list[str] = []

    def play(self, tone: Tone) -> Tone | None:
        """Every seventh tone is kept to oneself."""
        assert tone.number == self.last + 1, "I2: a source's items come in their order"
        self.last = tone.number
        send(Player.at("conductor").heard, self.key)
        return None if tone.number % 7 == 6 else tone

    def heard(self, player: str) -> None:
        self.listeners.append(player)

    def names(self) -> list[str]:
        return self.listeners


class Kept:
    """A sink that a simulation stands in for."""

    def write(self, partition: str, sequence: int, items: Sequence[object], /) -> None:
        raise AssertionError("a simulation does not call an app's own sinks")


def tone(partition: str, position: int) -> Tone:
    return Tone(f"p{partition}", position)


def no_fifteenth(tone: Tone) -> Tone:
    if tone.number == 15:
        raise ValueError("unlucky")
    return tone


def heard(listened: list[str], tone: Tone) -> list[str]:
    listened.append(f"{tone.player} {tone.number}")
    return listened


def rest(listened: list[str]) -> int:
    return int(listened[-1].split()[1]) % 3


def same(before: int, rest: int) -> int:
    assert before in (-1, rest), "a reply keeps its key"
    return rest


def length(listened: list[str]) -> int:
    return len(listened)


def orchestra(tones: int = TONES) -> tuple[App, Kept, Kept, Kept]:
    """Players in two keyed stages, one behind the other, with sinks behind each."""
    played, lengths, totals = Kept(), Kept(), Kept()
    app = App("orchestra", entities=[Player])
    source = app.source(Generate(tone, partitions=PARTITIONS, count=tones))
    replies = source.key_by(lambda tone: tone.player).to(Player.play)
    replies.sink(played)
    low, high = replies.map(no_fifteenth).branch(lambda tone: tone.number < 20)
    by_rest = low.merge(high).key_by(lambda tone: f"{tone.number % 3}")
    listened = by_rest.reduce([], heard, name="heard")
    listened.map(length).sink(lengths)
    listened.map(rest).reduce(-1, same, name="rest")
    counted = source.key_by(lambda tone: tone.player)
    counted.reduce(0, lambda n, tone: n + 1, combine=int.__add__, name="counted").sink(totals)
    return app, played, lengths, totals


FLOWING = [n for n in range(TONES) if n % 7 != 6 and n != 15]
"""A stage raises at the fifteenth: its reply is a dead letter, whatever else is behind."""


def check(sim: Harness | Simulation, ends: tuple[App, Kept, Kept, Kept]) -> None:
    _, played, lengths, totals = ends
    came = [Tone(**each) for each in sim.emitted(played)]
    for player in ("p0", "p1", "p2"):
        assert sim[Player.at(player)].last == TONES - 1
        assert [tone.number for tone in came if tone.player == player] == FLOWING, (
            f"I1, I2: {player}"
        )
    assert sorted(sim[Player.at("conductor")].listeners) == sorted(["p0", "p1", "p2"] * TONES)
    wanted = [n for rest in range(3) for n in range(1, 1 + 3 * sum(x % 3 == rest for x in FLOWING))]
    assert sorted(sim.emitted(lengths)) == sorted(wanted), "I1: each tone is heard once"
    errors = [letter.error for letter in sim.dead]
    assert len(errors) == PARTITIONS and all("unlucky" in error for error in errors)
    assert max(sim.emitted(totals)) == TONES


def test_replies_flow_on_through_keyed_stages_exactly_once_and_in_order() -> None:
    ends = orchestra()
    harness = Harness(ends[0])
    harness.run()
    check(harness, ends)
    assert {letter.entity for letter in harness.dead} == {"Player/p0", "Player/p1", "Player/p2"}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_replies_flow_on_exactly_once_whatever_crashes(seed: int) -> None:
    ends = orchestra()
    simulation = Simulation(ends[0], seed=seed, faults=Faults(crash=0.004, lose=0.1))
    simulation.run()
    check(simulation, ends)


def test_what_a_client_asks_of_a_handler_flows_nowhere() -> None:
    ends = orchestra(0)
    harness = Harness(ends[0])
    assert harness.ask(Player.at("p0").play, Tone("p0", 0)) == Tone("p0", 0)
    harness.run()
    assert harness.emitted(ends[1]) == []


class Word(Entity):
    count: int = 0

    def seen(self) -> int:
        self.count += 1
        return self.count

    def listed(self) -> list[int]:
        """Its reply is changed by the next turn."""
        self.count += 1
        Word.told.append(self.count)
        return Word.told

    def told_type(self) -> Any:
        return object()


Word.told = []  # type: ignore[attr-defined]


def counts(handler: Any, items: int = 5) -> tuple[Harness, Kept]:
    kept = Kept()
    app = App("words", entities=[Word])
    source = app.source(Generate(lambda partition, position: "a", partitions=1, count=items))
    source.key_by(str).to(handler).sink(kept)
    harness = Harness(app)
    harness.run()
    return harness, kept


def test_a_reply_flows_on_as_it_was_when_its_turn_ended() -> None:
    Word.told.clear()  # type: ignore[attr-defined]
    harness, kept = counts(Word.listed)
    assert harness.emitted(kept) == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4, 5]]


def test_a_reply_that_can_not_be_sent_is_a_dead_letter_and_its_turn_leaves_no_trace() -> None:
    harness, kept = counts(Word.told_type, items=1)
    assert harness.emitted(kept) == []
    (letter,) = harness.dead
    assert letter.entity == "Word/a" and "its reply" in letter.error


def reduced(start: Any, function: Any, *, combine: Any = None, items: Any = None) -> list[Any]:
    kept = Kept()
    app = App("reduced")
    source = app.source(Generate(items or (lambda partition, n: n), partitions=1, count=6))
    source.key_by(lambda n: "k").reduce(start, function, combine=combine).sink(kept)
    harness = Harness(app)
    harness.run()
    assert harness.dead == []
    return harness.emitted(kept)


def test_reduce_gives_the_running_value_after_each_item() -> None:
    assert reduced(0, lambda total, n: total + n) == [0, 1, 3, 6, 10, 15]
    assert reduced(0, lambda total, n: total + n / 2) == [0, 0.5, 1.5, 3, 5, 7.5]
    assert reduced({}, lambda seen, n: {**seen, str(n % 2): n})[-1] == {"0": 4, "1": 5}
    assert reduced(Tone("x", 0), lambda tone, n: Tone("x", n))[-1] == {"player": "x", "number": 5}


@pytest.mark.parametrize("start", [0, 100])
def test_the_start_of_a_reduce_counts_once_also_when_parts_are_combined(start: int) -> None:
    found = reduced(start, lambda total, n: total + n, combine=lambda a, b: a + b)
    assert found[-1] == start + 15


def test_an_item_for_which_a_reduce_raises_is_a_dead_letter_and_changes_no_value() -> None:
    def add(total: int, n: int) -> int:
        if n == 3:
            raise ValueError("three")
        return total + n

    kept, app = Kept(), App("reduced")
    source = app.source(Generate(lambda partition, n: n, partitions=1, count=6))
    source.key_by(lambda n: "k").reduce(0, add, name="sums").sink(kept)
    harness = Harness(app)
    harness.run()
    assert harness.emitted(kept) == [0, 1, 3, 7, 12]
    (letter,) = harness.dead
    assert letter.entity == "sums/k" and "three" in letter.error


def test_items_reach_a_reduce_as_what_the_stage_before_is_annotated_to_return() -> None:
    def player(seen: str, tone: Tone) -> str:
        return tone.player

    assert reduced("", player, items=tone) == ["p0"] * 6


def test_a_start_that_can_not_be_stored_is_refused() -> None:
    app = App("reduced")
    source = app.source(Generate(lambda partition, n: n, count=1)).key_by(str)
    source.reduce(object(), lambda value, n: value, name="odd")
    with pytest.raises(BadApp, match="The start of the stage 'odd'"):
        Harness(app)


def test_a_reduce_that_is_called_as_an_entity_type_is_refused() -> None:
    app = App("reduced", entities=[Word])
    source = app.source(Generate(lambda partition, n: n, count=1)).key_by(str)
    source.reduce(0, lambda value, n: value, name="Word")
    with pytest.raises(BadApp, match="'Word' and a stage have one name"):
        Harness(app)


def test_streams_that_can_not_be_merged_are_refused() -> None:
    app, other = App("a"), App("b")
    mine = app.source(Generate(lambda partition, n: n, count=1))
    theirs = other.source(Generate(lambda partition, n: n, count=1))
    with pytest.raises(BadApp, match="a stream of the same app"):
        mine.merge(theirs)
    with pytest.raises(TypeError, match="of this kind, a Stream"):
        mine.merge(mine.key_by(str))  # type: ignore[arg-type]
