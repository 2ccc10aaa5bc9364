"""The figures of hosts: a quick run with real hosts and real NATS servers, and how it is told."""

import re
import subprocess
import sys

import pytest

from benchmarks import hosts
from benchmarks.figures import ROOT
from benchmarks.hosts import Asks, Found, Rate
from skerry.errors import SkerryError
from skerry.runtime.cluster import server


def rate(turns: float, bare: float) -> Rate:
    """A round's rate, with appends that would allow so many turns."""
    return Rate(turns, 1.0, 1.0, 10.0, 1000.0, bare)


def test_ratios_are_of_one_round_and_the_median_of_all() -> None:
    alone = [rate(turns, 0.0) for turns in (100.0, 10.0, 80.0)]
    two = [rate(50.0, 100.0), rate(20.0, 10.0), rate(16.0, 80.0)]
    table = hosts.rates_table(Found({0: alone, 2: two}, [], []))
    cells = {str(column.header): list(column.cells) for column in table.columns}
    assert cells["turns/s"] == ["80", "20"]
    assert cells["beside no cluster"] == ["1.00", "0.50"]
    assert cells["part of that"] == ["", "0.50"]


def test_an_ask_is_told_beside_the_appends_of_its_round() -> None:
    took = [(2.0, 4.0, 1.0), (20.0, 40.0, 10.0), (3.0, 6.0, 10.0)]
    rounds = [Asks([here] * 9, [there] * 9, [bare] * 9) for here, there, bare in took]
    table = hosts.asks_table(Found({}, rounds, []))
    assert list(table.columns[3].cells) == ["1.00", "2.00", "4.00"]


def test_a_quick_run_measures_everything() -> None:
    try:
        server.binary()
    except SkerryError as error:
        pytest.skip(f"needs real NATS servers. {error}")
    command = [sys.executable, "-m", "benchmarks.hosts", "--quick"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"no cluster.*\n.*1 host .*\n.*2 hosts", ran.stdout), ran.stdout
    assert "an entity of another host" in ran.stdout
    assert re.search(r"from a kill to answers, .*: \d+\.\d\n", ran.stdout), ran.stdout
