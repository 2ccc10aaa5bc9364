"""A worker whose host has lost the lease answers nobody."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from skerry.runtime.core.streams.links import Fenced
from skerry.runtime.gateway.listener import Listener
from skerry.runtime.worker import process
from skerry.runtime.worker.assignment import AGAIN, DAMAGED
from skerry.runtime.worker.leased import LeasedListener, LeasePage


def test_a_lease_ends_at_its_moment_and_is_none_before_it_was_told(tmp_path: Path) -> None:
    told, read = LeasePage(tmp_path), LeasePage(tmp_path)
    assert not read.holds
    told.put(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**12)
    assert read.holds
    told.put(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 1)
    assert not read.holds


@pytest.mark.parametrize("call", [("answer", 7), ("error", ValueError("no"))])
def test_a_question_that_is_not_answered_is_asked_anew_since_its_line_is_closed(
    tmp_path: Path, call: tuple[str, Any]
) -> None:
    """The host may have its lease again, and never close the line."""
    word, value = call
    lease, caller = LeasePage(tmp_path), mock.Mock()
    listener = LeasedListener(tmp_path / "door", "secret", lease=lease, callers_max=1)
    try:
        with mock.patch.object(Listener, word) as told, mock.patch.object(Listener, "let_go") as go:
            getattr(listener, word)(caller, 1, value)
            assert go.mock_calls == [mock.call(caller)] and not told.called
            lease.put(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**12)
            getattr(listener, word)(caller, 1, value)
            assert told.called and go.call_count == 1
    finally:
        listener.close()


@pytest.mark.parametrize(("cluster", "code"), [(None, DAMAGED), (mock.Mock(), AGAIN)])
def test_a_worker_that_hears_of_its_successor_ends_the_app_only_where_there_can_be_none(
    cluster: Any, code: int
) -> None:
    """On one machine, a newer epoch means that the store went back in time."""
    worker = mock.Mock(run=mock.Mock(side_effect=Fenced("runs elsewhere")))
    assignment = mock.Mock(config=mock.Mock(cluster=cluster))
    with mock.patch.object(process, "_start", return_value=worker):
        assert process._run(assignment, 0) == code
