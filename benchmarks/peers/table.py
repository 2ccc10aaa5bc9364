"""The rows of a comparison: how many times skerry's figure is the better one, and how they look.

A ratio is to what skerry did just before and just after, since a machine that others share is
not the same from minute to minute. Of a rate it is skerry's divided by the peer's, of a time
or a size the peer's divided by skerry's: so 3 always says that skerry is three times better,
and 0.5 that the peer is twice as good.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import msgspec
from msgspec import Struct
from rich.table import Table

FIGURES = (
    "keyed_counter",
    "transfers",
    "word_count",
    "ask_p50",
    "ask_p99",
    "first_result",
    "installed",
)
SMALLER_IS_BETTER = {"ms", "s", "MB"}
OWN = "skerry"


class Row(Struct):
    """A figure of somebody; without a value it says why there is none."""

    peer: str
    version: str
    variant: str
    name: str
    value: float | None
    unit: str
    ratio: float | None
    promise: str
    """What is promised while it is measured; or the reason."""


def beside(row: Row, own: Sequence[Row]) -> Row:
    """With its ratio to skerry's rows around it."""
    here = [one.value for one in own if one.name == row.name and one.value]
    if not row.value or not here:
        return row
    mean = statistics.mean(here)
    ratio = row.value / mean if row.unit in SMALLER_IS_BETTER else mean / row.value
    return msgspec.structs.replace(row, ratio=float(f"{ratio:.3g}"))


def medians(own: Sequence[Row]) -> list[Row]:
    """What skerry did in all, a row a figure; how far it moved says how quiet the machine was."""
    found = []
    for name in dict.fromkeys(row.name for row in own):
        rows = [row for row in own if row.name == name]
        values = [row.value for row in rows if row.value]
        if len(values) < 2 or len(values) < len(rows):
            found += [msgspec.structs.replace(row, ratio=row.value and 1.0) for row in rows]
            continue
        span = f"median of {len(values)}, {_number(min(values))} to {_number(max(values))}"
        variant = f"{rows[0].variant}; {span}"
        value = statistics.median(values)
        found.append(msgspec.structs.replace(rows[0], variant=variant, value=value, ratio=1.0))
    return found


def ordered(rows: Sequence[Row]) -> list[Row]:
    """By figure, the best first; reasons last."""
    return sorted(rows, key=_place)


def _place(row: Row) -> tuple[int, bool, float]:
    figure = FIGURES.index(row.name) if row.name in FIGURES else len(FIGURES)
    value = row.value or 0
    return figure, row.value is None, value if row.unit in SMALLER_IS_BETTER else -value


def as_json(rows: Sequence[Row]) -> bytes:
    """As they are kept in a file."""
    return msgspec.json.format(msgspec.json.encode(list(rows)), indent=1)


def as_table(rows: Sequence[Row]) -> Table:
    """For a terminal: a section a figure."""
    table = Table("figure", "peer", "how", "value", "unit", "ratio", "promise")
    for place, row in enumerate(rows):
        last = place + 1 == len(rows) or rows[place + 1].name != row.name
        style = "bold" if row.peer == OWN else None
        table.add_row(row.name, *_cells(row), style=style, end_section=last)
    return table


def as_markdown(rows: Sequence[Row]) -> str:
    """For a page: a table a figure."""
    text, names = "", [name for name in (*FIGURES, "") if any(row.name == name for row in rows)]
    for name in names:
        text += f"\n### {name or 'not measured'}\n\n"
        text += "| peer | how | value | unit | ratio | promise |\n|---|---|--:|---|--:|---|\n"
        for row in rows:
            if row.name == name:
                text += f"| {' | '.join(_cells(row))} |\n"
    versions = dict.fromkeys(f"{row.peer}: {row.version}" for row in rows if row.version)
    return f"{text}\nVersions: {'; '.join(versions)}.\n"


def _cells(row: Row) -> tuple[str, ...]:
    value = "-" if row.value is None else _number(row.value)
    ratio = "" if row.ratio is None else _number(row.ratio)
    return row.peer, row.variant, value, row.unit, ratio, row.promise


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
