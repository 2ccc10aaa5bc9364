"""Clients of another release: what the app does not take of theirs harms nothing behind it."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from skerry import App, Entity, message, query
from skerry.runtime.client.window import OVERDUE_S
from skerry.runtime.simulator.callers import SECONDS_PER_STEP
from skerry.runtime.simulator.cluster import Cluster
from skerry.testing import NO_FAULTS, Faults


class Counter(Entity):
    """As the app has it."""

    count: int = 0

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    @query
    def look(self) -> int:
        return self.count


def _as_clients_have_it() -> Any:
    class Counter(Entity):
        count: int = 0

        def add(self, amount: int | float | str) -> Any: ...

        def look(self) -> Any: ...

    return Counter


Theirs = _as_clients_have_it()


def cluster(seed: int, faults: Faults) -> Cluster:
    """Some shards, and callers that do not say from which release they are."""
    return Cluster(
        App("releases", entities=[Counter]), seed=seed, shards=2, faults=faults, callers=3
    )


def told(cluster: Cluster, number: int) -> Any:
    """The reply; the kind of any other outcome."""
    outcome = cluster.outcomes[number]
    return msgspec.msgpack.decode(outcome.body) if outcome.kind == "done" else outcome.kind


@pytest.mark.parametrize("odd", [("add", 1.5), ("add", "two"), ("look",)])
def test_who_follows_what_the_app_does_not_take_is_answered_before_it_is_said_again(
    odd: tuple[Any, ...],
) -> None:
    quiet, at = cluster(0, NO_FAULTS), Theirs.at("c")
    asked = [
        quiet.ask(message(getattr(at, name), *args))
        for name, *args in [("add", 1), odd, ("add", 2), odd, ("add", 3)]
    ]
    quiet.settle()
    assert [told(quiet, asked[place]) for place in (0, 2, 4)] == [1, 3, 6]
    waited_s = max((quiet.answered_at[n] - quiet.asked_at[n]) * SECONDS_PER_STEP for n in asked)
    assert waited_s < OVERDUE_S


@pytest.mark.parametrize("seed", range(12))
def test_of_a_client_of_another_release_all_that_fits_counts_once_and_in_order(seed: int) -> None:
    harsh, rng = cluster(seed, Faults(crash=0.005, lose=0.1)), random.Random(seed)
    fits: dict[tuple[int, str], list[int]] = {}
    for _ in range(60):
        for caller in range(3):
            key, odd = f"c{rng.randrange(2)}", rng.random()
            if odd < 0.3:
                harsh.ask(message(Theirs.at(key).add, rng.choice([0.5, "x"])), caller=caller)
            elif odd < 0.5:
                harsh.ask(message(Theirs.at(key).look), caller=caller)
            else:
                number = harsh.ask(message(Theirs.at(key).add, 1), caller=caller)
                fits.setdefault((caller, key), []).append(number)
        harsh.run(5)
    harsh.settle()
    for key in ("c0", "c1"):
        of_key = [(caller, n) for (caller, k), numbers in fits.items() if k == key for n in numbers]
        places = {n: told(harsh, n) for _, n in of_key}
        assert sorted(places.values()) == list(range(1, len(places) + 1))
        for caller in range(3):
            inorder = [
                places[n] for n in fits[caller, key] if n not in harsh.callers[caller].refused
            ]
            assert inorder == sorted(inorder)
