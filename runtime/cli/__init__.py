"""The launcher: `skerry run`, and a look at what runs.

One file per group of commands; each imports what it needs when it is used, since a command
line must answer at once. Exit codes: 0 done, 1 the app failed, 2 usage, 3 a damaged store,
4 already running.
"""

from __future__ import annotations

import sys

import typer

from skerry.errors import SkerryError, StoreDamaged, StoreLocked
from skerry.runtime.cli import message, operate, read, run

app = typer.Typer(
    name="skerry",
    help="Run stateful Python applications made of durable entities.\n\n"
    "Start with: skerry run examples.bank",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command(name="run", context_settings={"allow_interspersed_args": True})(run.run)
app.command(name="ask")(message.ask)
app.command(name="send")(message.send)
app.command(name="get")(read.get)
app.command(name="export")(read.export)
app.command(name="count")(read.count)
app.command(name="status")(operate.status)
app.command(name="stop")(operate.stop)
app.add_typer(operate.dead, name="dead")
app.command(name="check")(operate.check)


def main() -> None:
    """The console script: errors of ours are a sentence and an exit code, never a traceback."""
    try:
        app()
    except StoreLocked as error:
        _end(error, 4)
    except StoreDamaged as error:
        _end(error, 3)
    except SkerryError as error:
        _end(error, 1)
    except BrokenPipeError:
        sys.stderr.close()  # Who read our output has seen enough.
        sys.exit(0)


def _end(error: SkerryError, code: int) -> None:
    print(f"skerry: {error}", file=sys.stderr)
    sys.exit(code)
