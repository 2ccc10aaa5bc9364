"""What a change does to speed: base and change run alternately, row by row.

    python -m benchmarks.compare [--base REF] [--pairs 8] [--scale 0.25] [--only NAME ...]

    base, change | change, base | base, change ...     each | a pair, on the same minute's machine

Two figures from two hours cannot be compared on a machine that is shared; two that stand side
by side can, and only their ratio is used. What is told of each row is that ratio, an interval
for it, and a verdict (see `verdict`). Nothing here passes or fails.

Base and change are each copied into a folder of their own, so that nobody's editing meanwhile
counts, and run in an environment of their own: a bare venv that sees the copy first, and then
the libraries of the environment that runs this. Nothing is downloaded. Each side brings its own
loads, which know where its modules are; a row that the base cannot run is said so.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks import command_line, verdict
from benchmarks.figures import ROOT, Row, from_json, number
from benchmarks.run import chosen
from benchmarks.running import TooShort
from benchmarks.verdict import PAIRS_MIN, Verdict

ROWS = (
    "keyed_counter_10k",
    "keyed_counter_1m",
    "transfers_10k",
    "payments_10k",
    "word_count",
    "ask_p50_ms",
    "ask_many",
    "cost_per_turn_us_2",
)
PROGRAM = ("api", "runtime")
LOAD = ("benchmarks", "examples")
PACKAGES = {"skerry": "api", "skerry.runtime": "runtime"}
"""Folders by the package that they are, outer ones first."""
MORE_IS_BETTER = "/s"
"""How the unit of a rate ends; of times and costs less is better."""

SCALE_MAX = 16
"""Of the work per run: where so much of it is over at once, something else is wrong."""


class Side(Struct, frozen=True):
    """A tree that is measured."""

    name: str
    python: Path
    load: Path
    """Where the loads and apps are run from."""


# ── what is compared ──


def git(*words: str) -> str:
    """What git says. Raises SystemExit with its complaint."""
    told = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
    if told.returncode:
        sys.exit(f"git {' '.join(words)}: {told.stderr.strip()}")
    return told.stdout.strip()


def landed() -> str:
    """The newest commit that is surely another program: what the change is compared with.

    With a remote, where this branch left its main. Where that is this very commit, or there is
    no remote: the last commit when the program was edited since, else the one before it.
    """
    edited = git("status", "--porcelain", "--", *PROGRAM)
    head = git("rev-parse", "HEAD")
    for remote in git("remote").splitlines():
        main = subprocess.run(
            ["git", "merge-base", "HEAD", f"{remote}/main"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        base = main.stdout.strip()
        if main.returncode == 0 and (base != head or edited):
            return base
    return head if edited else git("rev-parse", "HEAD~1")


@contextlib.contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """A commit's files, while this is open."""
    with tempfile.TemporaryDirectory(prefix="skerry-base-") as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--detach", "--quiet", str(tree), ref)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def installed(name: str, tree: Path, folder: Path) -> Side:
    """A copy of the tree's package in an environment of its own.

    A copy is what an install does with a package of Python alone. A path file gives the
    environment this one's libraries: paths in it are only searched, so this one's editable install
    of skerry stays out of it.
    """
    site, ignored = folder / "site", shutil.ignore_patterns("__pycache__")
    for package, place in PACKAGES.items():
        if not (tree / place).is_dir():
            sys.exit(f"The {name} has no folder {place}/: choose another --base.")
        shutil.copytree(tree / place, site / package.replace(".", "/"), ignore=ignored)
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    told = [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"]
    purelib = subprocess.run(told, check=True, capture_output=True, text=True).stdout.strip()
    libraries = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    lines = "\n".join([str(site), *sorted(libraries)])
    (Path(purelib) / "measured.pth").write_text(f"{lines}\n")
    load = folder / "load"
    for part in LOAD:
        shutil.copytree(tree / part, load / part, ignore=ignored)
    subprocess.run([str(python), "-m", "compileall", "-q", str(site), str(load)], check=False)
    return Side(name, python, load)


# ── runs ──


def sample(side: Side, name: str, scale: float) -> tuple[list[Row], str]:
    """The rows of one run, and why there are none. Raises TooShort."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [str(side.python), "-m", "benchmarks.run", "--only", name, "--runs", "1"]
        command += ["--scale", str(scale), "--no-ceiling", "--json", file.name]
        told = subprocess.run(command, cwd=side.load, capture_output=True, text=True)
        if told.returncode:
            lines = (told.stderr.strip() or f"it ended with {told.returncode}").splitlines()
            if told.returncode == TooShort.exit_status:
                raise TooShort(lines[-1])
            return [], lines[-1]
        return from_json(Path(file.name).read_bytes()), ""


def pairs(
    base: Side, change: Side, name: str, count: int, scale: float
) -> tuple[list[tuple[Row, Row]], str]:
    """(base, change) of each row in each pair; and who could not run it. When a run is too short for
    this machine, all begin again with twice the work."""
    while True:
        try:
            return _pairs(base, change, name, count, scale)
        except TooShort as error:
            if scale >= SCALE_MAX:
                return [], str(error)
        print(f"{name}: runs of scale {scale:g} are too short here; {2 * scale:g} now", flush=True)
        scale *= 2


def _pairs(
    base: Side, change: Side, name: str, count: int, scale: float
) -> tuple[list[tuple[Row, Row]], str]:
    """The same, each side first in turn. Raises TooShort."""
    found: list[tuple[Row, Row]] = []
    for place in range(count):
        order = (base, change) if place % 2 == 0 else (change, base)
        rows: dict[str, list[Row]] = {}
        for side in order:
            rows[side.name], why = sample(side, name, scale)
            if why:
                return [], f"the {side.name} cannot run it: {why}"
        others = {row.name: row for row in rows[change.name]}
        found += [(row, others[row.name]) for row in rows[base.name] if row.name in others]
    return found, ""


def verdicts(found: Sequence[tuple[Row, Row]]) -> dict[str, tuple[str, Verdict]]:
    """(unit, verdict) of each row."""
    judged = {}
    for name in dict.fromkeys(row.name for row, _ in found):
        both = [(a, b) for a, b in found if a.name == name]
        unit = both[0][0].unit
        judged[name] = (
            unit,
            verdict.judge(
                [a.value for a, _ in both],
                [b.value for _, b in both],
                more_is_better=unit.endswith(MORE_IS_BETTER),
            ),
        )
    return judged


def as_line(name: str, unit: str, told: Verdict) -> list[str]:
    """A row of the table."""
    return [
        name,
        number(told.base),
        number(told.change),
        unit,
        f"{told.ratio:.3f}",
        f"{told.low:.3f} to {told.high:.3f}",
        told.words,
    ]


def main() -> None:
    """Compare, and print what moved."""
    parser = command_line.parser(__doc__)
    parser.add_argument("--base", metavar="REF", help="a commit; None: the newest that landed")
    parser.add_argument(
        "--pairs", type=command_line.count, default=PAIRS_MIN, help="runs of each side, per row"
    )
    parser.add_argument(
        "--scale", type=command_line.amount, default=0.25, help="of the work per run"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(ROWS),
        metavar="NAME",
        help="rows, as `benchmarks.run` has",
    )
    given = parser.parse_args()
    names = [job.rows[0] for job in chosen(given.only, given.scale)]
    ref = given.base or landed()
    print(f"base: {git('log', '-1', '--format=%h %s', ref)}")
    print(f"change: the working tree at {git('log', '-1', '--format=%h', 'HEAD')}")
    if given.pairs < PAIRS_MIN:
        print(f"With fewer than {PAIRS_MIN} pairs there is no verdict.")
    table = Table("figure", "base", "change", "unit", "ratio", "99 % interval", "verdict")
    # Stores lie below it, so it is on the clone's disk: /tmp may be memory.
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as folder:
        with checked_out(ref) as tree:
            base = installed("base", tree, Path(folder) / "base")
        change = installed("change", ROOT, Path(folder) / "change")
        for name in names:
            found, why = pairs(base, change, name, given.pairs, given.scale)
            if why:
                table.add_row(name, *[""] * 5, why)
                print(f"{name}: {why}", flush=True)
            for row, (unit, told) in verdicts(found).items():
                table.add_row(*as_line(row, unit, told))
                print(f"{row}: {told.ratio:.3f}, {told.words}", flush=True)
    Console(width=None if sys.stdout.isatty() else 160).print(table)


if __name__ == "__main__":
    main()
