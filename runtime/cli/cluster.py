"""`skerry cluster up`, `down` and `status`: NATS servers on this machine, for trying things out."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer
from msgspec.structs import asdict

from skerry.runtime.cli.settings import Json
from skerry.runtime.cluster.addresses import FIRST, PORT_MAX
from skerry.runtime.printable import one_line, say

DEFAULT = Path(".skerry-cluster")
SIZES = (1, 3, 5)

Dir = Annotated[
    Path,
    typer.Option("--dir", metavar="<path>", help="what the cluster keeps, a folder of its own"),
]

cluster = typer.Typer(
    help="A NATS cluster on this machine, for trying out an app on several hosts.",
    no_args_is_help=True,
)


@cluster.command()
def up(
    dir: Dir = DEFAULT,
    nodes: Annotated[
        int | None,
        typer.Option(
            metavar="<1|3|5>",
            show_default="3",
            help="how many servers; a majority has to run, so one of 3 or two of 5 may be down",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            metavar="<port>",
            show_default=str(FIRST),
            help="of the first server; the others take the next ones, each also the ports 2000 and "
            "4000 higher",
        ),
    ] = None,
) -> None:
    """Start NATS servers on this machine, and print their URL.

    Returns when they keep a stream together. The URL is for `skerry run --cluster`. It holds the
    cluster's password: keep it in a variable and off command lines, which every user of the machine
    can read. The servers listen on loopback only, and go on when this command has ended. Those that
    are down start again, on their data; where all run already, the command prints the URL again.

    \b
    Examples:
        export SKERRY_CLUSTER="$(skerry cluster up)"
        skerry cluster status
        skerry cluster down
    """
    if nodes not in (None, *SIZES):
        more = "more than half of them have to run, so " if nodes % 2 == 0 and nodes > 0 else ""
        raise typer.BadParameter(
            f"{more}a cluster has 1, 3 or 5 nodes, not {nodes}", param_hint="--nodes"
        )
    last = PORT_MAX - (nodes or 3) + 1
    if port is not None and not 1 <= port <= last:
        raise typer.BadParameter(
            f"{port} is out of range: it may be 1 to {last}, since the servers also take ports that "
            f"are 4000 higher",
            param_hint="--port",
        )
    from skerry.runtime.cluster import nodes as local

    made = local.up(dir.resolve(), say, nodes=nodes, port=port)
    say(f"{made.name} is ready; its data are in {made.folder}")
    say(f'next, in a terminal for each host: export SKERRY_CLUSTER="$({_command("up", dir)})"')
    say("and there: skerry run shop.py --host h1 --data .skerry/h1, then h2 and so on")
    print(made.url)


@cluster.command()
def down(dir: Dir = DEFAULT) -> None:
    """End the servers, and keep their data.

    Returns when they have ended. One that does not end within 10 seconds is killed: what it has
    acknowledged is on the disk."""
    from skerry.runtime.cluster import nodes as local

    folder = dir.resolve()
    ended = local.down(folder, say)
    say(f"{'no node runs' if not ended else 'all nodes have ended'}; their data stay in {folder}")
    say(f"`{_command('up', dir)}` goes on with them; delete the folder to be rid of them")


@cluster.command()
def status(dir: Dir = DEFAULT, as_json_: Json = False) -> None:
    """Show how each server does, and which one leads."""
    from skerry.runtime.cluster import nodes as local

    found = local.found(dir.resolve())
    states = found.states()
    leader = next((state.name for state in states if state.role == "leader"), None)
    if as_json_:
        told = {"name": found.name, "dir": str(found.folder), "leader": leader}
        print(json.dumps(told | {"nodes": [asdict(state) for state in states]}))
        return
    running = sum(state.pid is not None for state in states)
    print(one_line(f"{found.name}: {running} of {len(states)} nodes run, in {found.folder}"))
    names = ("node", "port", "state", "pid", "role", "streams", "leads", "bytes")
    print("  ".join(f"{name:>9}" for name in names))
    for state in states:
        shown = [state.name, state.port, state.state, state.pid or "", state.role]
        counts = [f"{count:,}" for count in (state.streams, state.leads, state.bytes)]
        print("  ".join(f"{each:>9}" for each in shown + counts * (state.state == "up")).rstrip())
    for state in states:
        if running and state.state in _STEPS:
            step = _STEPS[state.state].format(pid=state.pid, up=_command("up", dir))
            print(one_line(f"{state.name} {step}"))
    if not running:
        print(one_line(f"none runs: `{_command('up', dir)}` starts them, on their data"))
    elif leader is None:
        print(
            f"JetStream has no leader, so nothing is stored. More than half of {len(states)} nodes have "
            f"to run; where they do, it takes some seconds"
        )


_STEPS = {
    "down": "is down: `{up}` starts it again, on its data",
    "frozen": "is frozen, by a signal: `kill -CONT {pid}` lets it go on",
    "disabled": "keeps no streams: it has just started, or its disk was full. Make room, and `{up}` "
    "starts it again",
    "silent": "does not answer, though process {pid} runs: look at its server.log",
}
"""What is said of a node that is not up."""


def _command(name: str, dir: Path) -> str:
    """Return a command for the same cluster."""
    option = "" if dir == DEFAULT else f" --dir {shlex.quote(str(dir))}"
    return f"skerry cluster {name}{option}"
