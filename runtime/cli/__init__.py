"""The command line: `skerry run` and the commands that look at an app or act on it.

One file per group of commands. Each imports what it needs when it is used, since a command line
must answer at once. Exit codes: 0 done, 1 the app failed, 2 usage, 3 a damaged store, 4 already
running.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from skerry.errors import SkerryError
from skerry.runtime.causes import exit_code, explained
from skerry.runtime.cli import (
    cluster,
    dead,
    hosts,
    keep,
    message,
    operate,
    read,
    restart,
    run,
    scale,
)
from skerry.runtime.cli.settings import defaults, from_pyproject
from skerry.runtime.printable import make_output_printable, one_line


def _version(wanted: bool) -> None:
    if wanted:
        print(f"skerry {version('skerry')}")
        raise typer.Exit


app = typer.Typer(
    name="skerry",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def skerry(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="print it and exit")
    ] = False,
) -> None:
    """Run stateful Python applications made of durable entities.

    \b
    Start with:
        skerry run hello.py               an app, until it ends or Ctrl-C
        skerry ask Account/alice deposit 10
        skerry get Account/alice

    Options have defaults in [tool.skerry] of pyproject.toml, then in SKERRY_WORKERS and so on.
    """


app.command(name="run", context_settings={"allow_interspersed_args": True})(run.run)
app.command(name="ask")(message.ask)
app.command(name="send")(message.send)
app.command(name="get")(read.get)
app.command(name="export")(read.export)
app.command(name="count")(read.count)
app.command(name="status")(operate.status)
app.command(name="stop")(operate.stop)
# So that -1 is a number, which is refused as such.
app.command(name="scale", context_settings={"ignore_unknown_options": True})(scale.scale)
app.command(name="restart")(restart.restart)
app.command(name="leave")(hosts.leave)
app.add_typer(dead.dead, name="dead")
app.add_typer(cluster.cluster, name="cluster")
app.command(name="check")(operate.check)
app.command(name="backup")(keep.backup)
app.command(name="restore")(keep.restore)


def main() -> None:
    """Run the console script. Errors that skerry raises end it with a sentence, never a traceback."""
    make_output_printable()
    try:
        app(default_map=defaults(typer.main.get_command(app), from_pyproject(Path.cwd())))
    except SkerryError as error:
        _end(error)
    except BrokenPipeError:
        sys.stderr.close()  # The reader of our output has seen enough.
        sys.exit(0)
    except (OSError, UnicodeError) as error:
        _end(SkerryError(explained(error)))


def _end(error: SkerryError) -> None:
    print(one_line(f"skerry: {error}"), file=sys.stderr)
    sys.exit(exit_code(error))
