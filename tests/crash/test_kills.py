"""Workers and the supervisor are killed for real, and nothing that was acknowledged is lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(400)
def test_fifty_kills_lose_double_and_reorder_nothing() -> None:
    """SIGKILL at random moments under load: money, counted requests and sequences all hold."""
    loop = [sys.executable, "-m", "tests.crash.kill_loop", "--kills", "50", "--pause", "0.4"]
    done = subprocess.run(loop, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled, 0 out of order" in done.stdout


@pytest.mark.timeout(400)
def test_kills_while_slots_move_lose_double_and_reorder_nothing() -> None:
    """The number of workers changes all the while; a change that was cut short goes on."""
    loop = [sys.executable, "-m", "tests.crash.kill_loop", "--kills", "12", "--moves", "200"]
    done = subprocess.run(
        [*loop, "--pause", "1"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 lost, 0 doubled, 0 out of order" in done.stdout
