"""Which worker is replaced next, step by step: one at a time, each once."""

from __future__ import annotations

from skerry.runtime.app.rolling import SETTLED_S, Rolling

OLD, SINCE, NEW, LATE = 9.0, 10.0, 11.0, 60.0


def test_workers_are_replaced_in_turn_until_all_have_the_new_program() -> None:
    rolling, serving = Rolling(SINCE), {0: OLD, 1: OLD, 5: OLD}
    for replaced, shard in enumerate((0, 1, 5)):
        assert rolling.replaced(serving) == replaced
        assert not rolling.over(serving, LATE)
        assert rolling.next(serving) == shard
        serving[shard] = NEW
    assert not rolling.over(serving, LATE)
    assert rolling.over(serving, LATE + SETTLED_S)
    assert rolling.next(serving) is None


def test_a_worker_is_named_until_it_has_ended() -> None:
    rolling = Rolling(SINCE)
    assert rolling.next({0: OLD, 1: OLD}) == rolling.next({0: OLD, 1: OLD}) == 0


def test_nobody_ends_while_another_worker_is_away() -> None:
    rolling = Rolling(SINCE)
    assert rolling.next({0: None, 1: OLD}) is None
    assert rolling.next({0: OLD, 1: None}) is None
    assert rolling.next({0: NEW, 1: OLD, 2: None}) is None


def test_a_worker_that_was_started_meanwhile_is_not_replaced() -> None:
    rolling = Rolling(SINCE)
    assert rolling.next({0: OLD, 1: SINCE}) == 0
    assert rolling.replaced({0: NEW, 1: SINCE}) == 2


def test_it_is_not_over_before_the_last_worker_serves() -> None:
    rolling = Rolling(SINCE)
    assert not rolling.over({0: NEW, 1: None}, LATE)
    assert rolling.replaced({0: NEW, 1: None}) == 1


def test_it_is_over_when_all_workers_have_served_for_a_while() -> None:
    rolling, whole = Rolling(SINCE), {0: NEW, 1: NEW}
    assert not rolling.over(whole, LATE)
    assert not rolling.over({0: NEW, 1: None}, LATE + SETTLED_S), "it was killed"
    assert not rolling.over(whole, LATE + SETTLED_S)
    assert rolling.over(whole, LATE + 2 * SETTLED_S)
