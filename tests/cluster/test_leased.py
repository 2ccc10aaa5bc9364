"""A worker whose host has lost the lease answers nobody."""

from __future__ import annotations

import time
from pathlib import Path

from skerry.runtime.worker.leased import LeasePage


def test_a_lease_ends_at_its_moment_and_is_none_before_it_was_told(tmp_path: Path) -> None:
    told, read = LeasePage(tmp_path), LeasePage(tmp_path)
    assert not read.holds
    told.put(time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 10**12)
    assert read.holds
    told.put(time.clock_gettime_ns(time.CLOCK_BOOTTIME) - 1)
    assert not read.holds
