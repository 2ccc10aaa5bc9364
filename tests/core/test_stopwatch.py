"""What counts as a batch's own time."""

from __future__ import annotations

from unittest import mock

from skerry.runtime.worker.stopwatch import Stopwatch


def test_what_the_thread_waited_for_a_core_is_not_its_own_time() -> None:
    with (
        mock.patch(
            "skerry.runtime.worker.stopwatch.time.perf_counter", side_effect=[0, 10, 13, 13]
        ),
        mock.patch.object(Stopwatch, "_waited_ns", side_effect=[0, 5_000_000_000, 7_000_000_000]),
    ):
        watch = Stopwatch()
        watch.start()
        assert watch.clock_s == 3
        assert watch.own_s == 1


def test_where_nobody_tells_own_time_is_the_clock_s() -> None:
    with mock.patch("skerry.runtime.worker.stopwatch.os.open", side_effect=FileNotFoundError):
        watch = Stopwatch()
    with mock.patch("skerry.runtime.worker.stopwatch.time.perf_counter", return_value=1e9):
        assert watch.own_s == watch.clock_s
