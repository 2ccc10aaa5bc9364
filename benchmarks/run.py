"""Whole runs, beside the machine's bare ceiling in the same run.

    python -m benchmarks.run [--only NAME ...] [--runs 5] [--scale 1.0] [--json FILE]

Every figure is with the full promise on: synced commits, exactly-once, checksums. After each
run what is stored is compared with what was sent; a wrong sum fails. Load generation runs
inside the time and the cores that are measured; the start of the processes does not.

Here is only the command. What is measured stands in `throughput`, `latency`, `starting`,
`shards`, `memory`, `load` and `disk`; how an app is run and watched in `running`; medians,
ratios and the table in `figures`.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks import (
    command_line,
    disk,
    figures,
    latency,
    load,
    memory,
    shards,
    starting,
    throughput,
)
from benchmarks.figures import Job, Row
from benchmarks.running import CORES, TooShort


def table(scale: float) -> list[Job]:
    """Every row that takes no more than a minute or two."""
    return [
        *throughput.jobs(scale),
        *latency.jobs(scale),
        *starting.jobs(scale),
        *shards.jobs(scale),
        *memory.jobs(scale),
    ]


def further(scale: float) -> list[Job]:
    """Jobs that run only when they are named."""
    return [
        *throughput.curves(scale),
        *load.jobs(scale),
        *disk.jobs(scale),
        *shards.further(scale),
    ]


def chosen(only: Sequence[str], scale: float) -> list[Job]:
    """The jobs of these names, or of rows whose names begin so; without names the table.

    Raises SystemExit: a name is unknown.
    """
    jobs = [*table(scale), *further(scale)]
    if not only:
        return table(scale)
    for name in only:
        if not any(_gives(job, name) for job in jobs):
            known = ", ".join(job.rows[0] for job in jobs)
            sys.exit(f"There is no figure {name!r}. The first row of each job: {known}.")
    return [job for job in jobs if any(_gives(job, name) for name in only)]


def _gives(job: Job, name: str) -> bool:
    return any(row == name or row.startswith(f"{name}_") for row in job.rows)


def measure(jobs: Sequence[Job], runs: int, *, bare: bool) -> tuple[list[Row], int]:
    """Run them one after the other: their rows, and the exit status, since one that fails costs no
    other its rows."""
    rows: list[Row] = []
    status = 0
    for job in jobs:
        print(f"── {job.rows[0]}: {min(runs, job.runs_max)} x {job.about}", flush=True)
        try:
            rows += figures.repeated(job, runs, bare=bare)
        except TooShort as error:
            print(f"{job.rows[0]}: {error}", file=sys.stderr, flush=True)
            status = status or error.exit_status
        except Exception as error:  # A wrong sum, an app that ended: said, and no figure.
            traceback.print_exc()
            words = f"{job.rows[0]}: {type(error).__name__}: {error}"
            print(words, file=sys.stderr, flush=True)
            status = 1
    return rows, status


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--all", action="store_true", help="the whole table; so without --only")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these rows")
    parser.add_argument(
        "--runs", type=command_line.count, default=5, help="of each; the median is told"
    )
    parser.add_argument(
        "--scale", type=command_line.amount, default=1.0, help="of the work per run"
    )
    parser.add_argument("--no-ceiling", action="store_true", help="leave the ceiling out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    given = parser.parse_args()
    jobs = chosen([] if given.all else given.only, given.scale)
    print(f"{CORES} cores; {given.runs} runs of each figure, the ceiling before and after each")
    rows, status = measure(jobs, given.runs, bare=not given.no_ceiling)
    Console(width=None if sys.stdout.isatty() else 160).print(figures.as_table(rows))
    if given.json:
        given.json.write_bytes(figures.as_json(rows))
    sys.exit(status)


if __name__ == "__main__":
    main()
