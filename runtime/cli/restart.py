"""`skerry restart`: the workers run the program as it is now, while the app serves."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer

from skerry.runtime.app.control import Line
from skerry.runtime.app.directory import find_data, running_app
from skerry.runtime.cli.progress import followed
from skerry.runtime.cli.settings import Data, Json


def restart(data: Data = None, as_json_: Json = False) -> None:
    """Replace the workers one by one with the program as it is now, while the app serves.

    First the program is tried: it is imported, and reads stored states. If it can't, or lacks a class
    that has stored states, the command says why, no worker is replaced, and the exit code is 1. Then
    one worker after the other commits what runs, ends, and is started again from the same files with
    the same options; only its entities wait. Returns when all are replaced. If this command is
    interrupted, the restart goes on.

    \b
    Example:
        git pull && skerry restart
    """
    folder = find_data(data)
    with Line(folder, running_app(folder)) as line:
        found = followed(line, "restart", told=_told, of="restart")
    if as_json_:
        names = ("workers", "replaced", "pause_s", "seconds", "refused", "failed")
        print(json.dumps({name: found[name] for name in names}))
    elif not (found["refused"] or found["failed"]):
        print(f"{_told(found)}, in {found['seconds']:.1f} s")
    if found["refused"]:
        print(f"skerry: {found['refused']}", file=sys.stderr)
        print("skerry: No worker was replaced. The app serves on as before.", file=sys.stderr)
    if found["failed"]:
        print(f"skerry: {found['failed']}", file=sys.stderr)
    if found["refused"] or found["failed"]:
        raise typer.Exit(1)


def _told(found: dict[str, Any]) -> str:
    waits = f", waiting {found['waits']}" if found["waits"] else ""
    return (
        f"{found['replaced']} of {found['workers']} workers replaced, each away for at most "
        f"{found['pause_s'] * 1000:,.0f} ms{waits}"
    )
