"""`skerry scale`: another number of workers, while the app serves."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from skerry.runtime.app.control import Line
from skerry.runtime.app.directory import find_data, running_app
from skerry.runtime.cli.hosts import on_host
from skerry.runtime.cli.progress import followed
from skerry.runtime.cli.settings import Data, Json, counted


def scale(
    workers: Annotated[
        int, typer.Argument(help="how many workers there will be", callback=counted)
    ],
    data: Data = None,
    as_json_: Json = False,
) -> None:
    """Change the number of workers while the app serves; returns when the slots have moved.

    Entities move a few at a time, and only these wait. If this command is interrupted, or the app is
    stopped or killed, the change goes on with the app. In a cluster, the number is this host's."""
    folder = find_data(data)
    running = running_app(folder)
    with Line(folder, running) as line:
        if running.host:
            line.ask("scale", workers)
            found = on_host(folder, running, workers)
        else:
            found = followed(line, "scale", workers, told=told, of="scaling")
    if as_json_:
        print(
            json.dumps(
                {name: found[name] for name in ("workers", "slots", "pause_s", "seconds")}
                | {"bytes": found["size"]}
            )
        )
    else:
        print(f"{told(found)}, in {found['seconds']:.1f} s")


def told(found: dict[str, Any]) -> str:
    left = f" of {found['slots'] + found['left']:,}" if found["left"] else ""
    waits = f", waiting {found['waits']}" if found["waits"] else ""
    return (
        f"{found['workers']} workers: {found['slots']:,}{left} slots moved, {found['size']:,} bytes, "
        f"longest pause {found['pause_s'] * 1000:,.0f} ms{waits}"
    )
