"""A figure beside the ceiling: repeated, its median taken, shown as a table and as JSON.

    ceiling  run  ceiling  run  ceiling ...

A machine that others share is not the same from minute to minute. So the ceiling is measured
before and after each run, and a run's ratio is to the mean of its two neighbours: what slows
both down slows neither ratio. What is told is the median; the least and the most stand beside
it, since a median alone hides how much it moves.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.table import Table

ROOT = Path(__file__).parents[1]
PROMISE = "synced commits, exactly once, checksums"


Allowed = dict[str, float]
"""What the machine allows, by unit."""


class Sample(Struct, frozen=True):
    """One figure of one run."""

    name: str
    value: float
    unit: str
    promise: str = PROMISE
    """What was promised while it was measured, or what exactly it is."""


class Run(Struct, frozen=True):
    """One run of a row."""

    value: float
    before: float | None = None
    """The ceiling just before it, in the row's unit."""
    after: float | None = None

    @property
    def ceiling(self) -> float | None:
        """What the machine allowed while it ran."""
        if self.before is None or self.after is None:
            return None
        return (self.before + self.after) / 2

    @property
    def ratio(self) -> float | None:
        """The part of the ceiling that it reached; of a time: how many times the ceiling."""
        return None if not self.ceiling else self.value / self.ceiling


class Row(Struct):
    """A figure over all its runs: medians, with the runs behind them."""

    name: str
    value: float
    unit: str
    ceiling: float | None
    ratio: float | None
    promise: str
    runs: list[Run]


class Job(Struct, frozen=True):
    """What is run to get some rows."""

    rows: tuple[str, ...]
    """The names of the rows that it gives."""
    once: Callable[[str], list[Sample]]
    """One run, in an empty folder."""
    ceiling: Callable[[str], Allowed] | None
    """What the machine allows."""
    about: str
    """How much is run, in words."""
    runs_max: int = 100
    """Fewer runs for what takes long."""


def row_of(sample: Sample, runs: Sequence[Run]) -> Row:
    """The medians of some runs."""
    ceilings = [run.ceiling for run in runs if run.ceiling is not None]
    ratios = [run.ratio for run in runs if run.ratio is not None]
    return Row(
        sample.name,
        rounded(statistics.median(run.value for run in runs)),
        sample.unit,
        rounded(statistics.median(ceilings)) if ceilings else None,
        rounded(statistics.median(ratios)) if ratios else None,
        sample.promise,
        list(runs),
    )


def repeated(job: Job, runs: int, *, bare: bool = True) -> list[Row]:
    """Run a job so often, the ceiling before and after each run. `bare`: with the ceiling."""
    found: dict[str, tuple[Sample, list[Run]]] = {}
    measure = job.ceiling if bare else None
    before: Allowed = in_folder(measure) if measure else {}
    for _ in range(min(runs, job.runs_max)):
        samples: list[Sample] = in_folder(job.once)
        after: Allowed = in_folder(measure) if measure else {}
        for sample in samples:
            _, kept = found.setdefault(sample.name, (sample, []))
            kept.append(Run(sample.value, before.get(sample.unit), after.get(sample.unit)))
        before = after
    return [row_of(sample, kept) for sample, kept in found.values()]


def in_folder(measure: Callable[[str], Any]) -> Any:
    """Measure in an empty folder on the disk that holds this clone: /tmp may be memory."""
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        return measure(folder)


def rounded(value: float) -> float:
    """Four digits that count, and all before the point; more would be noise."""
    if value == 0:
        return 0.0
    return round(value, max(0, 3 - math.floor(math.log10(abs(value)))))


def as_json(rows: Sequence[Row]) -> bytes:
    """Rows as they are kept in a file."""
    return msgspec.json.format(msgspec.json.encode(rows), indent=1)


def from_json(raw: bytes) -> list[Row]:
    """Rows that were kept."""
    return msgspec.json.decode(raw, type=list[Row])


def as_table(rows: Sequence[Row]) -> Table:
    """Rows for a reader: the median, the least and the most, the ceiling, the ratio."""
    table = Table("figure", "median", "least to most", "unit", "ceiling", "ratio", "promise")
    for row in rows:
        values = [run.value for run in row.runs]
        table.add_row(
            row.name,
            number(row.value),
            f"{number(min(values))} to {number(max(values))}",
            row.unit,
            "" if row.ceiling is None else number(row.ceiling),
            "" if row.ratio is None else f"{row.ratio:.3g}",
            row.promise,
        )
    return table


def number(value: float) -> str:
    """A number for a reader."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
