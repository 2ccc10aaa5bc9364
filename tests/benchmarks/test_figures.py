"""Medians and ratios, and the shape in which they are kept."""

import json
from collections.abc import Callable
from functools import partial

import pytest

from benchmarks import figures, run
from benchmarks.figures import Job, Run, Sample
from benchmarks.running import TooShort

PROMISED = {
    "keyed_counter_10k",
    "keyed_counter_1m",
    "transfers_10k",
    "word_count",
    "ask_p50_ms",
    "ask_p99_ms",
    "ask_many",
    "recovery_s",
    "start_s",
    "cost_per_turn_us_1",
    "cost_per_turn_us_2",
    "cost_per_turn_us_4",
    "cost_per_turn_us_8",
    "cost_per_turn_us_16",
    "bytes_per_idle_entity_store",
    "bytes_per_idle_entity_cache",
}


def job(values: list[float], ceilings: list[float], log: list[str] | None = None) -> Job:
    """A job that has these values, one a run."""
    runs, bare = iter(values), iter(ceilings)
    said = [] if log is None else log

    def once(folder: str) -> list[Sample]:
        said.append("run")
        return [Sample("speed", next(runs), "turns/s"), Sample("wait", 5.0, "ms")]

    def ceiling(folder: str) -> dict[str, float]:
        said.append("ceiling")
        return {"turns/s": next(bare)}

    return Job(("speed", "wait"), once, ceiling, "nothing")


def test_a_ratio_is_to_the_ceilings_on_both_sides() -> None:
    assert Run(30.0, 50.0, 70.0).ceiling == 60.0
    assert Run(30.0, 50.0, 70.0).ratio == 0.5
    assert Run(30.0).ratio is None


def test_the_ceiling_is_measured_before_and_after_each_run() -> None:
    log: list[str] = []
    figures.repeated(job([1, 2], [4, 4, 4], log), 2)
    assert log == ["ceiling", "run", "ceiling", "run", "ceiling"]


def test_a_row_is_the_median_of_its_runs_and_its_ratio_the_median_of_their_ratios() -> None:
    """A machine that slows down halfway slows the runs, and hardly the ratios."""
    speed, wait = figures.repeated(job([100, 98, 50], [200, 200, 200, 100]), 3)
    assert (speed.value, speed.ceiling) == (98.0, 200.0)
    assert [run.ratio for run in speed.runs] == [0.5, 0.49, pytest.approx(1 / 3)]
    assert speed.ratio == 0.49
    # The ceiling has nothing to say in another unit.
    assert (wait.value, wait.ceiling, wait.ratio) == (5.0, None, None)


def test_without_the_ceiling_it_is_not_measured() -> None:
    log: list[str] = []
    speed, _ = figures.repeated(job([1], [], log), 1, bare=False)
    assert (log, speed.ratio) == (["run"], None)


def test_a_job_may_bound_its_runs() -> None:
    once = partial(lambda folder: [Sample("speed", 1.0, "turns/s")])
    (row,) = figures.repeated(Job(("speed",), once, None, "nothing", runs_max=2), 5)
    assert len(row.runs) == 2


def test_rows_are_kept_as_json_of_one_shape_and_come_back() -> None:
    rows = figures.repeated(job([100, 98], [200, 200, 200]), 2)
    kept = json.loads(figures.as_json(rows))
    assert [set(row) for row in kept] == 2 * [
        {"name", "value", "unit", "ceiling", "ratio", "promise", "runs"}
    ]
    assert kept[0]["runs"] == [
        {"value": 100.0, "before": 200.0, "after": 200.0},
        {"value": 98.0, "before": 200.0, "after": 200.0},
    ]
    assert kept[1]["ratio"] is None
    assert figures.from_json(figures.as_json(rows)) == rows


@pytest.mark.parametrize(
    ("value", "kept"), [(0, 0), (1234567.8, 1234568), (12.3456, 12.35), (0.0123456, 0.01235)]
)
def test_four_digits_are_kept(value: float, kept: float) -> None:
    assert figures.rounded(value) == kept


def test_the_table_has_every_row_that_is_promised() -> None:
    names = {name for job in run.chosen([], 1.0) for name in job.rows}
    assert names >= PROMISED


def test_no_row_has_two_jobs() -> None:
    names = [name for job in [*run.table(1.0), *run.further(1.0)] for name in job.rows]
    assert len(names) == len(set(names))


def test_what_takes_minutes_is_run_by_name_only() -> None:
    rows = {row for job in run.chosen([], 1.0) for row in job.rows}
    assert not any(row.startswith(("entities_10m", "load_", "written_", "apart_")) for row in rows)
    assert len(run.chosen(["entities_10m", "load_hop"], 1.0)) == 2


def test_a_job_that_fails_costs_no_other_its_rows(capfd: pytest.CaptureFixture[str]) -> None:
    def short(folder: str) -> list[Sample]:
        raise TooShort("over at once")

    def wrong(folder: str) -> list[Sample]:
        raise AssertionError("a wrong sum")

    def fine(folder: str) -> list[Sample]:
        return [Sample("fine", 1.0, "s")]

    def jobs(*all: Callable[[str], list[Sample]]) -> list[Job]:
        return [Job((once.__name__,), once, None, "a job of this test") for once in all]

    rows, status = run.measure(jobs(short, fine), 1, bare=True)
    assert [row.name for row in rows] == ["fine"] and status == TooShort.exit_status
    rows, status = run.measure(jobs(short, wrong, fine), 1, bare=True)
    assert [row.name for row in rows] == ["fine"] and status == 1
    told = capfd.readouterr().err
    assert "short: over at once" in told and "a wrong sum" in told
    assert told.splitlines()[-1] == "wrong: AssertionError: a wrong sum", "what `compare` repeats"


def test_a_name_stands_for_the_rows_that_begin_so() -> None:
    asks = [job.rows[0] for job in run.chosen(["ask"], 1.0)]
    assert asks == ["ask_many", "ask_p50_ms", "ask_busy_p50_ms"]
    assert [job.rows[0] for job in run.chosen(["keyed_counter_1m"], 1.0)] == ["keyed_counter_1m"]


def test_an_unknown_name_is_said_with_those_that_are_known() -> None:
    with pytest.raises(SystemExit, match=r"no figure 'keyd'.*keyed_counter_10k"):
        run.chosen(["keyd"], 1.0)
