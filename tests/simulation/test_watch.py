"""What a supervisor decides, step by step: who is started again, what is buried, when all is over."""

from __future__ import annotations

from typing import Any

from skerry.runtime.app.watch import NOTHING, Beat, GiveUp, Restart, Rounds, Watch

POISON = (1, 7, 0)
HOW = "ended its process"


def slow(running: tuple[int, int, int]) -> Beat:
    """What a worker in slow mode left behind."""
    return Beat(9, 3, running, True)


FAST = Beat(9, 3, (0, 0, 0), False)


def test_a_message_is_buried_when_it_ends_its_worker_for_the_second_time_not_before() -> None:
    watch = Watch()
    watch.crashed(1.0, FAST, HOW)
    assert not watch.slow, "one crash is no pattern"
    watch.crashed(1.1, FAST, HOW)
    assert watch.slow
    watch.crashed(1.2, slow(POISON), HOW)
    assert watch.poison is None, "it may have had bad luck"
    watch.crashed(1.3, slow(POISON), HOW)
    assert (watch.poison, watch.verdict) == (POISON, "ended its process, twice")


def test_another_message_that_ends_a_worker_is_no_second_time() -> None:
    watch = Watch()
    for n in range(3):
        watch.crashed(1.0 + n, FAST, HOW)
    watch.crashed(5.0, slow(POISON), HOW)
    watch.crashed(6.0, slow((1, 8, 0)), HOW)
    assert watch.poison is None


def test_who_is_killed_from_outside_is_started_again_at_once_however_often() -> None:
    watch = Watch()
    for n in range(1000):
        # Somebody else hits another message each time, and mostly none.
        beat = slow((1, n, 0) if n % 3 else NOTHING) if watch.slow else FAST
        assert watch.killed(n / 100, beat, HOW) == Restart(n / 100)
        assert watch.poison is None
    assert watch.killed(11.0, None, HOW) == Restart(11.0), "it had written nothing yet"


def test_who_is_killed_again_and_again_in_one_message_is_killed_by_that() -> None:
    watch = Watch()
    while not watch.slow:
        watch.killed(1.0, FAST, HOW)
    watch.killed(2.0, slow((1, 6, 0)), HOW)
    for _ in range(2):
        watch.killed(2.0, slow(POISON), HOW)
        assert watch.poison is None, "somebody else may have hit it by chance"
    watch.killed(3.0, slow(POISON), HOW)
    assert (watch.poison, watch.verdict) == (POISON, "ended its process, again and again")


def test_who_is_killed_between_two_messages_is_fast_again() -> None:
    watch = Watch()
    while not watch.slow:
        watch.killed(1.0, FAST, HOW)
    watch.killed(2.0, slow(NOTHING), HOW)
    assert not watch.slow


def test_crashes_wait_longer_and_longer_and_many_in_a_row_end_the_app() -> None:
    watch = Watch()
    waits = []
    verdict: Restart | GiveUp = Restart(0)
    while isinstance(verdict, Restart):
        verdict = watch.crashed(10.0, FAST, HOW)
        waits.append(verdict.at_s - 10.0 if isinstance(verdict, Restart) else None)
    assert verdict == GiveUp(9)
    assert waits[:-1] == sorted(waits[:-1])  # type: ignore[type-var]
    assert waits[-2] == 2.0


def test_crashes_that_lie_far_apart_never_end_the_app() -> None:
    watch = Watch()
    assert all(isinstance(watch.crashed(n * 20.1, FAST, HOW), Restart) for n in range(100))


def test_rounds_that_stand_still_are_a_hang_unless_somebody_has_stopped_the_process() -> None:
    watch = Watch()
    watch.started(0.0)
    beat = Beat(5, 1, POISON, True)
    assert watch.look(1.0, beat, 10.0, lambda: False) == ""
    assert watch.look(10.9, beat, 10.0, lambda: False) == ""
    assert watch.look(11.1, beat, 10.0, lambda: True) == "stopped"
    assert watch.look(12.0, beat, 10.0, lambda: False) == "", "time began anew"
    assert watch.look(22.0, beat, 10.0, lambda: False) == "dump"
    assert watch.look(22.1, beat, 10.0, lambda: False) == ""
    assert watch.look(22.4, beat, 10.0, lambda: False) == "kill"
    watch.hung(beat, "did not return")
    assert (watch.slow, watch.poison) == (True, POISON)


def test_a_worker_that_moves_again_is_not_killed() -> None:
    watch = Watch()
    watch.started(0.0)
    assert watch.look(1.0, Beat(5, 1, POISON, False), 10.0, lambda: False) == ""
    assert watch.look(12.0, Beat(5, 1, POISON, False), 10.0, lambda: False) == "dump"
    assert watch.look(12.1, Beat(6, 1, POISON, False), 10.0, lambda: False) == ""
    assert watch.look(12.5, Beat(6, 1, POISON, False), 10.0, lambda: False) == ""


def quiet(*commits: int, but: int | None = None) -> dict[int, dict[str, Any]]:
    """All say that they are quiet, but for one."""
    return {
        shard: {"quiet": shard != but, "epoch": 1, "commit": commit, "version": 1}
        for shard, commit in enumerate(commits)
    }


def test_all_is_over_after_two_quiet_rounds_with_nothing_between() -> None:
    rounds = Rounds()
    assert not rounds.over(quiet(5, 7))
    assert rounds.over(quiet(5, 7))


def test_what_ran_between_two_quiet_rounds_means_another_round() -> None:
    rounds = Rounds()
    assert not rounds.over(quiet(5, 7))
    assert not rounds.over(quiet(5, 8)), "shard 1 has run something"
    assert not rounds.over(quiet(5, 8, but=0))
    assert not rounds.over(quiet(5, 8)), "shard 0 was not quiet in between"
    assert rounds.over(quiet(5, 8))


def test_a_worker_that_ended_between_means_another_round() -> None:
    rounds = Rounds()
    assert not rounds.over(quiet(5, 7))
    rounds.interrupted()
    assert not rounds.over(quiet(5, 7))
