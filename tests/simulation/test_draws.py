"""Random numbers of turns: the same when a turn is tried again, others in every other turn."""

from __future__ import annotations

import pytest

from skerry import App, Entity, Failed, message, query, rng, send
from skerry.runtime.simulator.cluster import Cluster
from skerry.testing import NO_FAULTS, Harness

drawn: dict[str, list[int]] = {}
"""What each turn drew in each of its runs: outside of all state, on purpose."""


class Lot(Entity):
    numbers: list[int] = []

    def draw(self, name: str, raises: int = 0) -> int:
        """Raises in so many of its runs."""
        runs = drawn.setdefault(name, [])
        runs.append(rng().getrandbits(60))
        if len(runs) <= raises:
            raise OSError("not yet")
        self.numbers.append(runs[-1])
        return runs[-1]

    def draw_twice(self, name: str) -> None:
        drawn.setdefault(name, []).extend(rng().getrandbits(60) for _ in range(2))

    def skip(self) -> None: ...

    def deal(self, turns: int) -> None:
        for turn in range(turns):
            send(Lot.at(f"dealt {turn % 3}").draw, f"dealt {turn}")

    @query
    def look(self, name: str) -> int:
        drawn.setdefault(name, []).append(rng().getrandbits(60))
        return drawn[name][-1]


@pytest.fixture
def harness() -> Harness:
    drawn.clear()
    return Harness(App("lots", entities=[Lot], retries=3))


@pytest.mark.parametrize("raises", [1, 2, 3, 4])
def test_a_turn_that_is_tried_again_draws_the_same(harness: Harness, raises: int) -> None:
    told = harness.ask(Lot.at("a").draw, "a", raises)
    assert drawn["a"] == [told] * (raises + 1)
    assert harness[Lot.at("a")].numbers == [told]


def test_a_turn_before_one_that_raises_draws_the_same_when_its_batch_runs_again() -> None:
    drawn.clear()
    cluster = Cluster(App("lots", entities=[Lot]), seed=1, shards=1, faults=NO_FAULTS)
    for name, raises in [("first", 0), ("second", 0), ("raises", 2), ("last", 0)]:
        cluster.ask(message(Lot.at("a").draw, name, raises))
        cluster.ask(message(Lot.at("b").skip))
    cluster.settle()
    assert [len(drawn[name]) for name in ("first", "second", "raises", "last")] == [2, 2, 3, 1]
    assert len({number for runs in drawn.values() for number in runs}) == 4


def test_no_two_turns_draw_the_same_whatever_became_of_them(harness: Harness) -> None:
    at = Lot.at("a")
    harness.send(at.deal, 50)
    with pytest.raises(Failed):
        harness.ask(at.draw, "fails for good", 99)
    harness.send(at.draw, "behind it")
    harness.ask(at.look, "looked")
    harness.send(at.draw, "behind the look")
    harness.send(at.draw_twice, "twice")
    once = [set(runs) for name, runs in drawn.items() if name != "twice"]
    assert all(len(numbers) == 1 for numbers in once)
    assert len(set().union(*once, drawn["twice"])) == len(once) + 2


@pytest.mark.parametrize("before", ["look", "fail"])
def test_within_a_batch_what_reads_or_fails_leaves_no_draw_to_the_turn_behind_it(
    before: str,
) -> None:
    drawn.clear()
    cluster = Cluster(App("lots", entities=[Lot]), seed=1, shards=1, faults=NO_FAULTS)
    if before == "look":
        cluster.ask(message(Lot.at("a").look, "before"))
    else:
        cluster.ask(message(Lot.at("a").draw, "before", 99))
    cluster.ask(message(Lot.at("a").draw, "behind"))
    cluster.ask(message(Lot.at("a").draw, "last"))
    cluster.settle()
    assert len({drawn["before"][-1], drawn["behind"][-1], drawn["last"][-1]}) == 3
