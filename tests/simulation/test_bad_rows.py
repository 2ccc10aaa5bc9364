"""Rows that a source can't read: each a dead letter once, whatever crashes, and no good one with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from skerry import App, Entity
from skerry.stream.ends import BadRow
from skerry.testing import Simulation

ROWS = 60


class Rows:
    """Numbers, of which those that three divides can't be read."""

    def partitions(self) -> list[str]:
        """Two of them."""
        return ["0", "1"]

    def read(self, partition: str, after: int | None) -> Iterator[tuple[int, Any]]:
        """Row by row."""
        for n in range(0 if after is None else after + 1, ROWS):
            yield n, n if n % 3 else BadRow(b"row %d" % n, f"row {n}: divided by three")


class Seen(Entity):
    numbers: list[int] = []

    def see(self, n: int) -> None:
        self.numbers.append(n)
        if n % 10 == 7:
            raise ValueError("seven")


@pytest.mark.parametrize("seed", range(8))
def test_each_row_is_an_item_or_a_dead_letter_once_whatever_crashes(seed: int) -> None:
    app = App("rows", entities=[Seen], retries=0)
    app.source(Rows(), name="rows").key_by(lambda n: str(n % 5)).to(Seen.see)
    s = Simulation(app, seed=seed, shards=2)
    s.run()
    good = [n for n in range(ROWS) if n % 3 and n % 10 != 7]
    for key in range(5):
        expected = [n for n in good if n % 5 == key for _ in range(2)]
        assert sorted(s[Seen.at(str(key))].numbers) == expected
    buried = sorted(letter.error for letter in s.dead if "three" in letter.error)
    bad = [f"row {n}: divided by three" for n in range(0, ROWS, 3)]
    assert buried == sorted(bad * 2)
