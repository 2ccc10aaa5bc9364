"""Many shards in one process: it runs, and who is idle costs the others nothing."""

from __future__ import annotations

import pytest
from rich.console import Console

from benchmarks import many_shards
from benchmarks.many_shards import FEW, as_table, measured


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many_shards, "ITEMS", 64)
    monkeypatch.setattr(many_shards, "KEYS", 400)


@pytest.mark.parametrize("load", ["all", "few"])
def test_a_small_run_counts_every_message_and_ends_quiet(load: str) -> None:
    row = measured(load, 5)
    assert row.turns_per_commit > 0
    assert row.packets_per_k["FRAME"] > 0
    assert row.idle_packets_per_s == 0
    console = Console(width=200)
    with console.capture() as shown:
        console.print(as_table([row]))
    assert load in shown.get()


def test_shards_that_do_not_talk_do_not_know_of_each_other() -> None:
    rows = [measured("few", shards) for shards in (FEW + 2, 3 * FEW)]
    assert all(row.opening_packets == 0 for row in rows)
    # Each sends to few, and few send to it.
    assert rows[1].streams <= rows[1].shards * 2 * FEW
