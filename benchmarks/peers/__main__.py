"""Measures skerry and its peers, one after another, each by its own file.

    python -m benchmarks.peers [--only PEER ...] [--seconds N] [--json FILE] [--page FILE]

Makes what is missing (an environment a peer, servers), starts and stops servers, leaves
nothing behind but the environments. Ends with 1 when a figure failed or had a wrong sum; a
peer that cannot be had here is a row that says so.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers import environments, table
from benchmarks.peers.catalog import PEERS, Peer
from benchmarks.peers.servers import ROOT, Missing
from benchmarks.peers.table import Row
from examples.word_count import standard_library

PEER_S_MAX = 600
"""A peer that takes longer for all its figures is stopped."""
TABLE_WIDTH_MIN = 150
DISK = "on the disk"
BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


class Run:
    """One run of the comparison: skerry, a peer, skerry, the next peer, and so on."""

    def __init__(self, seconds: float, texts: Path, lock: Path | None) -> None:
        self.seconds, self.texts, self.lock = seconds, texts, lock
        self.went_wrong = False

    def everybody(self, own: Peer, peers: Sequence[Peer]) -> list[Row]:
        """All rows, each beside what skerry did before and after."""
        mine, rows = self.all(own), []
        once = [row for row in mine if row.unit in {"s", "MB"}]
        before = [row for row in mine if row not in once]
        for peer in peers:
            found = self.all(peer)
            after = self.figures(own, Path(sys.executable))
            rows += [table.beside(row, [*once, *before, *after]) for row in found]
            mine, before = mine + after, after
        return table.ordered([*rows, *table.medians(mine)])

    def all(self, peer: Peer) -> list[Row]:
        """Everything that is told of a peer, or the reason why there is nothing."""
        try:
            python = environments.made(peer)
            rows = self.figures(peer, python)
            version = rows[0].version if rows else ""
            rows.append(self.first(peer, python, version))
        except Missing as error:
            return [self.row(peer, "", promise=f"not measured: {error}")]
        size = environments.size_mb(peer)
        size_row = self.row(peer, version, name="installed", value=size, unit="MB", promise=DISK)
        return [*rows, size_row, *self.left_out(peer, version)]

    def left_out(self, peer: Peer, version: str) -> list[Row]:
        """A row for each work that makes no sense for it."""
        named = [("ask_p50" if work == "ask" else work, why) for work, why in peer.left_out]
        return [
            self.row(peer, version, name=name, promise=f"left out: {why}") for name, why in named
        ]

    def figures(self, peer: Peer, python: Path) -> list[Row]:
        """What it measures."""
        beside = f", {peer.server.version()}" if peer.server else ""
        with self.alone():
            return [
                self.row(peer, told.get("package", "") + beside, **told)
                for told in self.told(peer, python)
            ]

    def first(self, peer: Peer, python: Path, version: str) -> Row:
        """From nothing running, its server neither, to the first result."""
        with self.alone():
            start = time.perf_counter()
            needed = None if peer.first_without_server else peer.server
            told = self.told(peer._replace(server=needed), python, "--first")
            line = next(told, {"wrong": "no result"})
            seconds = round(time.perf_counter() - start, 2)
            for _ in told:
                pass
        shown = {"wrong": line["wrong"]} if "wrong" in line else {"value": seconds, "unit": "s"}
        return self.row(peer, version, name="first_result", promise="a message, counted", **shown)

    def told(self, peer: Peer, python: Path, *more: str) -> Iterator[dict[str, Any]]:
        """The lines of a peer's own program, run beside its server in an empty folder."""
        if peer.name == table.OWN:
            python = Path(sys.executable)
        with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as place:
            folder, work = Path(place), Path(place, "work")
            folder.chmod(0o755)  # a server may be somebody else
            work.mkdir()
            serving = peer.server.start(folder) if peer.server else nullcontext("")
            with serving as server, (folder / "said.log").open("w+b") as said:
                command = [str(python), "-m", f"benchmarks.peers.{peer.name}", *more]
                command += ["--folder", str(work), "--texts", str(self.texts)]
                command += ["--server", server, "--seconds", str(self.seconds)]
                failed = False
                for line in lines(command, said):
                    failed = failed or "wrong" in line
                    yield line
                if failed:
                    said.seek(0)
                    print(said.read().decode(errors="replace")[-4000:], file=sys.stderr)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else who locks this file measures meanwhile."""
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def row(self, peer: Peer, version: str, **told: Any) -> Row:
        """As it is kept; one that went wrong has no value."""
        if "wrong" in told:
            self.went_wrong = True
            told["promise"] = f"WRONG: {told['wrong']}"
        row = Row(
            peer=peer.title,
            version=version,
            variant=told.get("variant", ""),
            name=told.get("name", ""),
            value=told.get("value"),
            unit=told.get("unit", ""),
            ratio=None,
            promise=told["promise"],
        )
        value = row.promise if row.value is None else f"{row.value:,} {row.unit}"
        print(f"{row.peer:<20} {row.name:<14} {value:<24} {row.variant}", file=sys.stderr)
        return row


def lines(command: Sequence[str], said: Any) -> Iterator[dict[str, Any]]:
    """What a program tells; its last words when it fails. Nothing that it started is left."""
    hidden = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
    env = {name: value for name, value in os.environ.items() if name not in hidden}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**env, "DO_NOT_TRACK": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=said,
        start_new_session=True,
    )
    assert process.stdout is not None, "it was asked for"
    timer = threading.Timer(PEER_S_MAX, os.killpg, [process.pid, signal.SIGKILL])
    timer.start()
    try:
        for line in process.stdout:
            if line.startswith(b'{"package":'):
                yield json.loads(line)
        if process.wait():
            said.seek(0)
            last = b"".join(said.read().strip().splitlines()[-1:]).decode(errors="replace")[:200]
            yield {"wrong": f"its program ended with {process.returncode}: {last}"}
    finally:
        timer.cancel()
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.wait()
        process.stdout.close()


def copied(folder: Path, copies: int) -> Path:
    """The files whose words are counted: the standard library's source, several times over."""
    texts = folder / "texts"
    texts.mkdir()
    for place, path in enumerate(standard_library()):
        for copy in range(copies):
            (texts / f"{copy}-{place:04}.txt").write_bytes(Path(path).read_bytes())
    return texts


def put(page: Path, text: str) -> None:
    """The tables of a page are replaced."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{page} lacks the marks {BEGIN} and {END}"
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> int:
    """Measure, print a table, write files."""
    names = [peer.name for peer in PEERS]
    parser = argparse.ArgumentParser(description="skerry beside its peers, in one run")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="PEER")
    parser.add_argument("--seconds", type=float, default=4, help="of work, about, for each figure")
    parser.add_argument("--json", type=Path, help="the rows, into this file")
    parser.add_argument("--page", type=Path, help="the tables, between the marks of this page")
    parser.add_argument("--lock", type=Path, help="held while something is measured")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    others = [peer for peer in PEERS[1:] if peer.name in asked.only]
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".bench-") as place:
        texts = copied(Path(place), copies=max(1, round(asked.seconds * 1.25)))
        run = Run(asked.seconds, texts, asked.lock)
        rows = run.everybody(PEERS[0], others)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH_MIN)
    console.print(table.as_table(rows))
    if asked.json:
        asked.json.write_bytes(table.as_json(rows))
    if asked.page:
        put(asked.page, table.as_markdown(rows))
    return int(run.went_wrong)


if __name__ == "__main__":
    sys.exit(main())
