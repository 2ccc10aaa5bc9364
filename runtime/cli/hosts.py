"""`skerry leave`, and what other commands do on a host of a cluster."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app.control import Line
from skerry.runtime.app.directory import find_data, is_running, running_app
from skerry.runtime.cli.progress import Shown
from skerry.runtime.cli.settings import Data
from skerry.runtime.description import Running

LOOK_S = 0.2
"""How often to look how far a change is."""


def leave(data: Data = None) -> None:
    """Give all slots of this host to the others, and end it; returns when it has ended.

    The app serves meanwhile. If this command is interrupted, the host leaves all the same; `skerry run`
    brings it back. The last host of an app can't leave."""
    folder = find_data(data)
    running = running_app(folder)
    with Line(folder, running) as line:
        line.ask("leave")
    shown = Shown()
    while is_running(folder):
        with contextlib.suppress(SkerryError):
            host = _host(folder, running.host)
            shown.show(f"{host['name']} leaves: {len(host['shards'])} shards are to go")
        time.sleep(LOOK_S)
    shown.end()
    print(f"{running.host} has left")


def on_host(folder: Path, running: Running, workers: int) -> dict[str, Any]:
    """Wait until a host has so many workers; return what the change was."""
    shown = Shown()
    try:
        while True:
            with contextlib.suppress(Unavailable):
                told = _status(folder)
                host = _named(told, running.host)
                scaling: dict[str, Any] = told["scaling"]
                if len(host["shards"]) == workers and scaling["done"]:
                    return scaling | {"workers": workers}
                shown.show(f"{running.host}: {len(host['shards'])} of {workers} workers")
            time.sleep(LOOK_S)
            running_app(folder)  # Raises when the app has ended.
    except KeyboardInterrupt:
        print("\nskerry: It goes on with the app, without this command.", file=sys.stderr)
        raise
    finally:
        shown.end()


def table(hosts: list[dict[str, Any]]) -> list[str]:
    """Return lines that tell of hosts."""
    lines = [f"{'host':16}  {'address':21}  {'state':8}  shards"]
    for host in hosts:
        state = "leads" if host["leads"] else "leaves" if host["leaves"] else "up"
        lines.append(
            f"{host['name']:16}  {host['address'] or '-':21}  {state if host['alive'] else 'gone':8}  "
            f"{', '.join(map(str, host['shards'])) or '-'}"
        )
    for host in hosts:
        if host["detours"]:
            others = ", ".join(host["detours"])
            lines.append(f"{host['name']} reaches {others} by way of NATS, and not directly")
        if host["silent"]:
            lines.append(f"{host['name']} does not reach {', '.join(host['silent'])}")
        if host["refusing"]:
            lines.append(f"the key of {host['name']} is refused by {', '.join(host['refusing'])}")
    return lines


def _status(folder: Path) -> dict[str, Any]:
    with Line(folder, running_app(folder), leader=True) as line:
        found: dict[str, Any] = line.ask("status")
        return found


def _named(told: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(host for host in told["hosts"] if host["name"] == name)
    return found


def _host(folder: Path, name: str) -> dict[str, Any]:
    return _named(_status(folder), name)
