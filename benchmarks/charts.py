"""Charts of what was measured, as SVG.

    python -m benchmarks.charts FILE.json DIR      # from rows that were kept

Draws from rows and measures nothing. A chart whose rows are missing is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import command_line
from benchmarks.figures import Row, from_json

PERCENTILES = ("p50", "p90", "p99", "p999", "max")
Points = list[tuple[int, Row]]


def points(rows: Sequence[Row], pattern: str) -> Points:
    """(the number in its name, row) of the rows whose whole names match, in order."""
    found = [(re.fullmatch(pattern, row.name), row) for row in rows]
    return sorted(((int(match[1]), row) for match, row in found if match), key=lambda at: at[0])


def draw(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Draw what can be drawn. Raises SystemExit when matplotlib is missing."""
    try:
        import matplotlib as mpl

        mpl.use("svg")
        from matplotlib import pyplot
    except ModuleNotFoundError:
        raise SystemExit(
            "Charts need matplotlib: install the extra, `pip install -e .[bench]`."
        ) from None
    # The same rows give the same file: no dates, no random ids.
    mpl.rcParams.update({"svg.hashsalt": "skerry", "svg.fonttype": "none", "axes.grid": True})
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    for name, into in _charts(rows).items():
        figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
        if into(axes):
            path = folder / f"{name}.svg"
            figure.savefig(path, metadata={"Date": None})
            drawn.append(path)
        pyplot.close(figure)
    return drawn


def _charts(rows: Sequence[Row]) -> dict[str, Callable[[Any], bool]]:
    """What draws each chart into its axes; False: there is nothing to draw."""
    return {
        "throughput_keys": lambda axes: _rate(
            axes, points(rows, r"keys_(\d+)"), "keyed counter: turns/s against keys", "keys"
        ),
        "throughput_shards": lambda axes: _rate(
            axes, points(rows, r"shards_(\d+)"), "keyed counter: turns/s against shards", "shards"
        ),
        "throughput_batch": lambda axes: _rate(
            axes,
            points(rows, r"batch_(\d+)"),
            "ask_many: requests/s against messages in a call",
            "messages in a call",
            linear=False,
        ),
        "cost_shards": lambda axes: _rate(
            axes,
            points(rows, r"cost_per_turn_us_(\d+)"),
            "keyed counter: CPU-µs per turn against shards",
            "shards",
        ),
        "latency_ask": lambda axes: _latency(axes, rows, "ask", "ask: latency against load"),
        "latency_request": lambda axes: _latency(
            axes, rows, "request", "bare request: latency against load"
        ),
        "latency_hop": lambda axes: _latency(
            axes, rows, "hop", "round through two entities: latency against load"
        ),
        "overload": lambda axes: _overload(axes, rows),
    }


def _rate(axes: Any, found: Points, title: str, x: str, *, linear: bool = True) -> bool:
    """Medians, the least and the most as bars, and the ceiling."""
    if not found:
        return False
    xs = [at for at, _ in found]
    medians = [row.value for _, row in found]
    # The median is rounded, and may lie beyond the runs by that.
    below = [max(0, row.value - min(run.value for run in row.runs)) for _, row in found]
    above = [max(0, max(run.value for run in row.runs) - row.value) for _, row in found]
    axes.errorbar(xs, medians, yerr=[below, above], marker="o", capsize=3, label="skerry")
    if all(row.ceiling is not None for _, row in found):
        axes.plot(xs, [row.ceiling for _, row in found], "k--", label="this machine's ceiling")
    axes.set(title=title, xlabel=x, ylabel=found[0][1].unit, xscale="log")
    axes.set_xticks(xs, [f"{at:,}" for at in xs])
    axes.minorticks_off()
    if linear:
        axes.set_ylim(bottom=0)
    else:
        axes.set_yscale("log")
    axes.legend()
    return True


def _latency(axes: Any, rows: Sequence[Row], kind: str, title: str) -> bool:
    """A line for each percentile; load in percent of the most that a closed loop gets."""
    drawn = False
    for part in PERCENTILES:
        found = points(rows, rf"load_{kind}_(\d+)_{part}_ms")
        if found:
            label = part.replace("p999", "p99.9")
            axes.plot([at for at, _ in found], [row.value for _, row in found], "o-", label=label)
            drawn = True
    axes.set(title=title, xlabel="load, % of the most", ylabel="ms", yscale="log")
    if drawn:
        axes.legend()
    return drawn


def _overload(axes: Any, rows: Sequence[Row]) -> bool:
    """Answers against load, both in parts of the most: flat on the right is what one wants."""
    drawn = False
    for kind in ("ask", "request", "hop"):
        found = points(rows, rf"load_{kind}_(\d+)_answered")
        full = [row.value for at, row in found if at <= 100]
        if full:
            answered = [100 * row.value / max(full) for _, row in found]
            axes.plot([at for at, _ in found], answered, "o-", label=kind)
            drawn = True
    axes.set(title="answers against load", xlabel="load, % of the most")
    axes.set_ylabel("answers/s, % of the most up to full load")
    axes.set_ylim(bottom=0)
    if drawn:
        axes.legend()
    return drawn


def main() -> None:
    """Draw rows that were kept."""
    parser = command_line.parser(__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    for path in draw(from_json(given.file.read_bytes()), given.folder):
        print(path)


if __name__ == "__main__":
    main()
