"""`skerry run`: run an app on all cores, show its progress, sum it up."""

from __future__ import annotations

import importlib
import json
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skerry.errors import BadApp
from skerry.runtime.cli.progress import Bar, Lines
from skerry.runtime.cli.settings import counted, option, size

if TYPE_CHECKING:
    from skerry.app import App
    from skerry.runtime.app.launch import Progress
    from skerry.runtime.config import Cluster, Config, Program


def _sync(text: str) -> str:
    if text not in {"commit", "10ms", "off"}:
        raise typer.BadParameter("it is commit, 10ms or off")
    return text


def run(
    target: Annotated[str, typer.Argument(help="MODULE:APP, or FILE.py[:APP]")],
    args: Annotated[
        list[str] | None, typer.Argument(help="after --: for the app, as skerry.args()")
    ] = None,
    workers: Annotated[int | None, option("workers", callback=counted)] = None,
    data: Annotated[Path | None, option("data")] = None,
    sync: Annotated[str | None, option("sync", parser=_sync)] = None,
    cache: Annotated[int | None, option("cache", parser=size)] = None,
    quota: Annotated[int | None, option("quota", parser=size)] = None,
    hang: Annotated[float | None, option("hang", min=0.1)] = None,
    cluster: Annotated[str | None, option("cluster")] = None,
    host: Annotated[str | None, option("host")] = None,
    address: Annotated[str | None, option("address")] = None,
    lease: Annotated[float | None, option("lease", min=1)] = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="keep running when all sources have ended")
    ] = False,
    no_rebalance: Annotated[
        bool, typer.Option("--no-rebalance", help="move no slots to other workers by their load")
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
        skerry run shop:app --cluster nats://h1:4222,nats://h2:4222
    """
    from skerry.runtime.app.launch import supervise
    from skerry.runtime.config import Config, Storage, Supervision
    from skerry.runtime.core.settings import Limits

    here = Path.cwd()  # The import of the program may change it.
    app, program = _load(target, args or [])
    try:
        config = Config(
            program=program,
            data=str(here / (data or Path(".skerry") / app.name)),
            workers=workers,
            storage=Storage(**_given(sync=sync, quota_bytes=quota, accept_loss=accept_loss)),
            limits=Limits(**_given(cache_bytes=cache)),
            supervision=Supervision(**_given(hang_s=hang, serve=serve, rebalance=not no_rebalance)),
            cluster=_cluster(cluster, host, address, lease),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    shown = Bar(app.name) if sys.stderr.isatty() else Lines(app.name)
    try:
        code, progress = supervise(config, shown.say, shown.show)
    finally:
        shown.end()
    for line in _summary(config, progress):
        shown.say(line)
    raise typer.Exit(code)


def _cluster(
    servers: str | None, host: str | None, address: str | None, lease_s: float | None
) -> Cluster | None:
    """Return the cluster to run in. Raises ValueError."""
    from skerry.runtime.config import Cluster, urls_of

    if servers is None:
        if host is not None or address is not None or lease_s is not None:
            raise ValueError(
                "--host, --address and --lease are for a host of a cluster: give --cluster, too"
            )
        return None
    return Cluster(
        servers=urls_of(servers),
        host=host or socket.gethostname(),
        **_given(address=address, lease_s=lease_s),
    )


def _load(target: str, args: list[str]) -> tuple[App, Program]:
    """Import a program, and see to it that workers can import the same. Ends the command when the
    program is at fault, with the user's own lines of the traceback."""
    from skerry.runtime.app.load import absolute, check, current_folder, hidden, load, path_for
    from skerry.runtime.config import Program

    os.environ["SKERRY_ARGS"] = json.dumps(args)
    folder = str(current_folder())
    if sys.stderr.isatty():
        importlib.import_module("rich.progress")  # Before the program's folder is on the path.
    try:
        target, path = absolute(target), path_for(target)
        names = hidden(path[0])
        app = load(target, path)
        check(app, target)
    except BadApp as error:
        print(f"skerry: {error}", file=sys.stderr)
        raise typer.Exit(1) from None
    return app, Program(
        app=app.name,
        target=target,
        path=path,
        hidden=names,
        args=args,
        folder=folder,
        renamed=app.renamed,
    )


def _summary(config: Config, progress: Progress) -> Iterator[str]:
    """Lines that sum a run up."""
    rate = progress.turns / progress.seconds if progress.seconds else 0
    yield (
        f"{config.program.app}: {progress.turns:,} turns in {progress.seconds:.1f} s "
        f"({rate:,.0f}/s), {progress.commits:,} commits; data in {config.data}"
    )
    if progress.dead:
        yield (
            f"{progress.dead:,} messages were refused or failed and became dead letters. "
            f"Look at them with `skerry dead list --data {config.data}`."
        )
    if progress.skipped:
        yield f'{progress.skipped:,} rows were no items and were skipped, as bad="skip" says.'


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that somebody gave; the others keep the defaults of their section."""
    return {name: value for name, value in settings.items() if value is not None}
