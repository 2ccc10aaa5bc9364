"""`skerry status`, `stop` and `check`: look at an app, end it, verify its stores."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from skerry.errors import SkerryError, StoreLocked
from skerry.runtime.app.control import Line
from skerry.runtime.app.directory import find_data, is_running, load, running_app
from skerry.runtime.cli.hosts import table
from skerry.runtime.cli.settings import Data, Json
from skerry.runtime.cli.workers import reports
from skerry.runtime.printable import one_line

HOT, HOT_SHARE = 0.1, 0.2
"""An entity is named that takes this part of a core, and this part of its worker's time."""

ANSWER_S = 3.0
"""How long `status` waits for a worker or supervisor."""

OWN = ("nats_silent_s", "leased", "stuck")
"""What a host's own supervisor says, also when another one leads."""

STOP_S = 60.0
"""How long `stop` waits for the end."""


def status(data: Data = None, as_json_: Json = False) -> None:
    """Show what runs, shard by shard."""
    folder = find_data(data)
    app = load(folder)
    assert app is not None, "find_data has looked for the app"
    supervisor = _supervisor(folder) if is_running(folder) else {}
    stuck, moved = supervisor.get("stuck", []), supervisor.get("rebalancing")
    hosts, nats_silent_s = supervisor.get("hosts", []), supervisor.get("nats_silent_s", 0.0)
    for one in () if as_json_ else stuck:
        # At once: it has nobody's answer before.
        print(
            one_line(
                f"shard {one['shard']} answers nobody: {one['call']} has run for {one['seconds']} s"
            ),
            flush=True,
        )
    shards, silent = reports(folder, ANSWER_S) if is_running(folder) else ([], [])
    hot = _hot(shards)
    if as_json_:
        told = {
            "shards": shards,
            "hot": hot,
            "rebalancing": moved,
            "stuck": stuck,
            "silent": silent,
        }
        if hosts:
            told |= {"hosts": hosts, "nats_silent_s": nats_silent_s, "leased": supervisor["leased"]}
        print(json.dumps({"app": app.app, "running": bool(shards or silent)} | told))
        return
    if not shards and not silent:
        print(f"{app.app} is stopped; {len(app.placement.members)} shards in {folder}")
        return
    print(f"{app.app} runs, process {running_app(folder).pid}, {len(shards)} shards in {folder}")
    names = ("shard", "pid", "busy", "epoch", "commit", "turns", "items", "timers", "asks", "dead")
    print("  ".join(f"{name:>9}" for name in names))
    for shard in shards:
        shown = {**shard, "busy": f"{shard['busy']:.0%}"}
        print("  ".join(f"{shown[name]:>9{',' * (name != 'busy')}}" for name in names))
    if silent:
        print(
            f"shards that have not answered within {ANSWER_S:g} s: {', '.join(map(str, silent))}; see "
            f"{folder / 'logs'}"
        )
    if hosts:
        print("\n".join(map(one_line, table(hosts))))
    if nats_silent_s:
        print(
            f"NATS has not answered this host for {nats_silent_s:g} s. What clients ask waits until it "
            f"does; look at its servers"
        )
    for one in hot:
        print(
            one_line(
                f"{one['entity']} takes {one['of_shard']:.0%} of the time of shard {one['shard']} and "
                f"{one['of_app']:.0%} of the app's. An entity runs on one core: only another model "
                f"of the app makes it faster"
            )
        )
    if moved and (last := moved["last"]):
        print(
            f"shard {last['giver']} was {last['giver_busy']:.0%} busy and shard {last['taker']} "
            f"{last['taker_busy']:.0%}: {last['slots']} slots {'have moved' * last['done'] or 'move'} "
            f"to shard {last['taker']}, {last['bytes']:,} bytes"
        )
    for shard in shards:
        moves = shard["moves"]
        if moves["leaving"] or moves["arriving"]:
            print(
                f"shard {shard['shard']} gives {moves['leaving']} slots to other shards, and "
                f"{moves['arriving']} come to it"
            )
        if moves["copying"]:
            rate = moves["copied_bytes"] * 1000 // max(1, moves["copied_ms"])
            print(
                f"shard {shard['shard']} copies {moves['copying']} slots that it will give: "
                f"{moves['copied_bytes']:,} bytes so far, {rate:,} a second"
            )
        if shard["waits"]:
            print(one_line(f"commits of shard {shard['shard']} wait: {shard['waits']}"))
        if shard["turned_away"]:
            print(f"shard {shard['shard']} has turned {shard['turned_away']:,} callers away")
        for reason, count in shard["refused"].items():
            print(one_line(f"shard {shard['shard']} refused {count:,} packets: {reason}"))


def _supervisor(folder: Path) -> dict[str, Any]:
    """Return what the supervisors say: what moves, who is stuck, and whether this host's hears NATS.
    Empty: they do not say."""
    found: dict[str, Any] = {}
    running = running_app(folder)
    for leader in (False, True) if running.host and not running.leads else (False,):
        with (
            contextlib.suppress(SkerryError),
            Line(folder, running, leader=leader, answer_s=ANSWER_S) as line,
        ):
            own = {name: found[name] for name in OWN if name in found}
            found |= line.ask("status") | own
    return found


def _hot(shards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the entities that take much of their worker's time, the heaviest first."""
    whole = sum(shard["busy"] for shard in shards)
    found = [
        {
            "entity": f"{type}/{key}",
            "shard": shard["shard"],
            "busy": busy,
            "of_shard": min(1.0, busy / shard["busy"]),
            "of_app": min(1.0, busy / whole),
        }
        for shard in shards
        for type, key, busy in shard["hot"]
        if busy >= max(HOT, HOT_SHARE * shard["busy"])
    ]
    return sorted(found, key=lambda one: -one["busy"])


def stop(
    data: Data = None,
    now: Annotated[bool, typer.Option("--now", help="kill; nothing acknowledged is lost")] = False,
) -> None:
    """Stop a running app; returns when it has ended."""
    folder = find_data(data)
    pid = running_app(folder).pid
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        os.kill(pid, signal.SIGKILL if now else signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while is_running(folder):
        if time.monotonic() > deadline:
            print(f"skerry: process {pid} has not ended; try --now.", file=sys.stderr)
            raise typer.Exit(1)
        time.sleep(0.02)


def check(
    directory: Annotated[
        Path | None, typer.Argument(help="a data directory or a backup; default: --data")
    ] = None,
    data: Data = None,
    as_json_: Json = False,
) -> None:
    """Verify every checksum of a stopped app's stores, and that they fit its description.

    Each record, each link between records, each row and the owner of its slot are checked. Exit code
    3: there is damage."""
    from skerry.runtime.app import membership

    folder = find_data(directory or data)
    if is_running(folder):
        raise StoreLocked(folder, running_app(folder).pid)
    app, wrong = membership.compared(folder)
    wrong += [
        sentence
        for shard in app.placement.members
        for sentence in membership.damages(folder, app, shard)
        if sentence not in wrong
    ]
    unknown = membership.unknown(folder, app)
    if as_json_:
        print(json.dumps({"clean": not wrong, "damage": wrong, "unknown": unknown}))
    else:
        all_clean = [f"{folder}: {len(app.placement.members)} shards, all clean"]
        print("\n".join([*unknown, *(wrong or all_clean)]))
    raise typer.Exit(3 if wrong else 0)
