"""`skerry scale`: another number of workers, while the app serves."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from skerry.runtime.app.control import Line
from skerry.runtime.app.directory import find_data, running_app
from skerry.runtime.cli.settings import Data, Json

LOOK_S = 0.1
"""How often to ask how far it is."""


def scale(
    workers: Annotated[int, typer.Argument(help="how many workers there will be")],
    data: Data = None,
    as_json_: Json = False,
) -> None:
    """Change the number of workers while the app serves; returns when the slots have moved.

    Entities move a few at a time, and only these wait. If this command is interrupted, or the app is
    stopped or killed, the change goes on with the app."""
    folder = find_data(data)
    with Line(folder, running_app(folder)) as line:
        found = line.ask("scale", workers)["scaling"]
        while not found["done"]:
            time.sleep(LOOK_S)
            found = line.ask("status")["scaling"]
            if sys.stderr.isatty():
                print(f"\r{_told(found)}\033[K", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    if as_json_:
        print(
            json.dumps(
                {name: found[name] for name in ("workers", "slots", "pause_s", "seconds")}
                | {"bytes": found["size"]}
            )
        )
    else:
        print(f"{_told(found)}, in {found['seconds']:.1f} s")


def _told(found: dict[str, Any]) -> str:
    return (
        f"{found['workers']} workers: {found['slots']:,} slots moved, {found['size']:,} bytes, "
        f"longest pause {found['pause_s'] * 1000:,.0f} ms{', waits for a backup' * found['held']}"
    )
