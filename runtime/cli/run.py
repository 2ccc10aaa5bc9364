"""`skerry run`: run an app on all cores, show its progress, sum it up."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skerry.errors import BadApp
from skerry.runtime.cli.settings import option, size
from skerry.runtime.printable import one_line

if TYPE_CHECKING:
    from skerry.runtime.app.launch import Progress

PLAIN_EVERY_S = 5.0
SHOW_EVERY_S = 0.1


def _sync(text: str) -> str:
    if text not in {"commit", "10ms", "off"}:
        raise typer.BadParameter("it is commit, 10ms or off")
    return text


def run(
    target: Annotated[str, typer.Argument(help="MODULE:APP, or FILE.py[:APP]")],
    args: Annotated[
        list[str] | None, typer.Argument(help="after --: for the app, as skerry.args()")
    ] = None,
    workers: Annotated[int | None, option("workers", min=1, max=1024)] = None,
    data: Annotated[Path | None, option("data")] = None,
    sync: Annotated[str | None, option("sync", parser=_sync)] = None,
    cache: Annotated[int | None, option("cache", parser=size)] = None,
    quota: Annotated[int | None, option("quota", parser=size)] = None,
    hang: Annotated[float | None, option("hang", min=0.1)] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="keep running when all sources have ended")
    ] = False,
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="go on after a power cut with --sync off")
    ] = False,
) -> None:
    """Run an app until it ends or is stopped.

    Ctrl-C stops it when what runs is committed; a second one stops at once. Nothing is lost either
    way.

    \b
    Examples:
        skerry run examples.bank
        skerry run examples/word_count.py -- books/*.txt
        skerry run shop:app --workers 4 --data /var/lib/shop
    """
    from skerry.runtime.app.launch import supervise
    from skerry.runtime.app.load import check, hidden, load, path_for, resolved
    from skerry.runtime.config import Config, Program, Storage, Supervision
    from skerry.runtime.core.settings import Limits

    os.environ["SKERRY_ARGS"] = json.dumps(args or [])
    here = Path.cwd()
    if sys.stderr.isatty():
        importlib.import_module("rich.progress")  # Before the program's folder is on the path.
    try:
        # First, since the import of the program may change the directory.
        target, path = resolved(target), path_for(target)
        hidden_names = hidden(path[0])
        app = load(target, path)
        check(app, target)
    except BadApp as error:
        print(f"skerry: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    try:
        config = Config(
            program=Program(
                app=app.name,
                target=target,
                path=path,
                hidden=hidden_names,
                args=args or [],
                folder=str(here),
                renamed=app.renamed,
            ),
            data=str(here / (data or Path(".skerry") / app.name)),
            workers=workers,
            storage=Storage(**_given(sync=sync, quota_bytes=quota, accept_loss=accept_loss)),
            limits=Limits(**_given(cache_bytes=cache)),
            supervision=Supervision(**_given(hang_s=hang, serve=serve)),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    shown = _Bar(app.name) if sys.stderr.isatty() else _Lines(app.name)
    try:
        code, progress = supervise(config, shown.say, shown.show)
    finally:
        shown.end()
    rate = progress.turns / progress.seconds if progress.seconds else 0
    shown.say(
        f"{app.name}: {progress.turns:,} turns in {progress.seconds:.1f} s ({rate:,.0f}/s), "
        f"{progress.commits:,} commits; data in {config.data}"
    )
    if progress.dead:
        shown.say(
            f"{progress.dead:,} messages were refused or failed and became dead letters. "
            f"Look at them with `skerry dead list --data {config.data}`."
        )
    if progress.skipped:
        shown.say(f'{progress.skipped:,} rows were no items and were skipped, as bad="skip" says.')
    raise typer.Exit(code)


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that somebody gave; the others keep the defaults of their section."""
    return {name: value for name, value in settings.items() if value is not None}


class _Lines:
    """Shows progress in plain lines, now and then, for logs and pipes."""

    def __init__(self, name: str) -> None:
        self._name, self._last, self._turns = name, time.monotonic(), 0

    def say(self, line: str) -> None:
        print(one_line(line), file=sys.stderr, flush=True)

    def show(self, progress: Progress) -> None:
        moved = progress.turns != self._turns
        if moved and time.monotonic() - self._last >= PLAIN_EVERY_S:
            self._last, self._turns = time.monotonic(), progress.turns
            part = "" if progress.part is None else f", {progress.part:.0%}"
            self.say(f"{self._name}: {progress.turns:,} turns, {progress.items:,} items{part}")

    def end(self) -> None:
        return


class _Bar:
    """Shows progress on a terminal: a bar, or a counter when the end is not known."""

    def __init__(self, name: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar: Any = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[turns]:,} turns  {task.fields[rate]:,.0f}/s"),
            TimeElapsedColumn(),
            console=Console(file=sys.__stderr__),  # It moves the cursor.
            transient=True,
            auto_refresh=False,
        )
        self._bar.start()
        self._task = self._bar.add_task(name, total=None, turns=0, rate=0.0)
        self._before = (0.0, 0)
        self._shown_s = 0.0

    def say(self, line: str) -> None:
        self._bar.console.print(one_line(line), markup=False, highlight=False)

    def show(self, progress: Progress) -> None:
        seconds, turns = self._before
        rate = self._bar.tasks[0].fields["rate"]
        if progress.seconds - seconds > 0.5:
            rate = (progress.turns - turns) / (progress.seconds - seconds)
            self._before = (progress.seconds, progress.turns)
        total = None if progress.part is None else 1.0
        self._bar.update(
            self._task, total=total, completed=progress.part or 0, turns=progress.turns, rate=rate
        )
        if time.monotonic() - self._shown_s > SHOW_EVERY_S:
            self._shown_s = time.monotonic()
            self._bar.refresh()

    def end(self) -> None:
        self._bar.stop()
