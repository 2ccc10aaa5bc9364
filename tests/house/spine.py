"""Writes the list of modules that opens `runtime/__init__.py`, from their own first lines.

    python -m tests.house.spine

The order is the walk of a message, kept here; a module that is not named comes last in
its room, until somebody says where on the walk it stands.
"""

from pathlib import Path

from tests.house.source import ROOT, files, first_line

MAP = Path("runtime/__init__.py")

ROOMS = {
    "api": "What programs are written in; imported as `skerry`.",
    "api/stream": "Streams, from declaration to passes over lists.",
    "api/client": "What a caller outside uses.",
    "api/testing": "What a program's tests use.",
    "api/sources": "What reads items.",
    "api/sinks": "What writes items.",
    "runtime": "How programs run; imported as `skerry.runtime`.",
    "runtime/app": "An app starts, and is watched.",
    "runtime/worker": "A process around one shard.",
    "runtime/client": "A caller's end of the lines.",
    "runtime/gateway": "A worker's end of them.",
    "runtime/core": "The core: no I/O, no clock, no thread.",
    "runtime/core/tables": "What a shard remembers, a kind of row a file.",
    "runtime/core/streams": "Ordered messages between two shards.",
    "runtime/store": "Down to the disk.",
    "runtime/cluster": "An app on several machines, over NATS JetStream.",
    "runtime/transport": "Across to the next shard.",
    "runtime/cli": "The launcher, a file a command.",
    "runtime/simulator": "The same core on a simulated network, disk and clock.",
}

WALK = (
    # What programs are written in.
    *(
        "entity",
        "entity_type",
        "annotations",
        "shapes",
        "roundtrip",
        "limits",
        "arguments",
        "handler",
    ),
    *("message", "turn", "asked", "verbs", "portable"),
    *("app", "builder", "ends", "outputs", "graph", "item_types"),
    *("compile", "columns", "changes", "keyed", "outlet"),
    *("generate", "lines", "json_lines", "reading", "paths"),
    *("blocking", "aio", "batch", "outcomes", "host", "errors"),
    *("observed", "harness", "simulation", "faults", "simulated"),
    # A process starts.
    *(
        "launch",
        "load",
        "config",
        "background",
        "supervisor",
        "sockets",
        "opening",
        "description",
        "directory",
    ),
    *(
        "coordinator",
        "membership",
        "placer",
        "homes",
        "register",
        "housing",
        "part",
        "crew",
        "linking",
        "scaling",
        "balancing",
        "scaler",
        "room",
        "rolling",
        "restarter",
        "trial",
        "release",
        "control",
        "signals",
        "reshard",
        "backup",
        "transfer",
    ),
    *("children", "questions", "ends", "watch", "machine"),
    *(
        "assignment",
        "process",
        "takeover",
        "driver",
        "pace",
        "stopwatch",
        "meter",
        "heartbeat",
        "copies",
        "sinks",
        "ports",
    ),
    # A client comes in.
    *(
        "session",
        "catalogue",
        "pending",
        "window",
        "connection",
        "questions",
        "line",
        "outpost",
        "channel",
    ),
    *("knock", "places", "protocol", "listener"),
    "inquiries",
    # The core.
    *(
        "events",
        "stored",
        "settings",
        "demand",
        "clock",
        "gate",
        "sealing",
        "shard",
        "placement",
        "ownership",
        "moves",
        "copying",
        "progress",
        "handover",
        "links",
        "handshake",
        "cuts",
        "outboxes",
        "speech",
        "outbound",
        "wire",
        "inbound",
        "parts",
        "arrivals",
        "schedule",
    ),
    *(
        "dispatch",
        "observer",
        "clients",
        "requests",
        "waiting",
        "sessions",
        "names",
        "retention",
        "items",
        "positions",
        "delivery",
        "flows",
        "routing",
        "buffer",
    ),
    *(
        "executor",
        "loops",
        "cache",
        "handlers",
        "schemas",
        "results",
        "intentions",
        "asks",
        "timers",
        "ids",
    ),
    *("outcomes", "outputs", "dead_letters", "operations", "table", "commit"),
    # Down to the disk, across to the next shard.
    *(
        "store",
        "memtable",
        "rows",
        "committer",
        "segments",
        "segment",
        "checkpointer",
        "checkpoint",
    ),
    # What hosts share.
    *("engine", "nodes", "node", "server", "addresses", "monitor", "probe"),
    *("link", "line", "lines", "table", "wire", "talks", "doors", "detour", "zap", "canary"),
    *("joining", "settings", "lease", "presence", "described", "keys", "bucket"),
    *("snapshots", "snapshot_pointer", "snapshot_stream", "asking"),
    *("hosts", "outages", "host", "presence", "leading", "tenant", "servers"),
    *(
        "tree",
        "environment",
        "lock",
        "quota",
        "disk",
        "label",
        "sealed_file",
        "check",
        "pipe",
        "curve",
    ),
)


def lines() -> list[str]:
    """The map, room by room."""
    found = []
    for room, title in ROOMS.items():
        modules = [path for path in files(room) if str(path.parent) == room and path.stem[0] != "_"]
        if not modules:
            continue
        modules.sort(key=lambda path: WALK.index(path.stem) if path.stem in WALK else len(WALK))
        width = max(len(path.name) for path in modules)
        found += ["", f"{room}/    {title}"]
        found += [f"    {path.name:<{width}}  {first_line(path)}" for path in modules]
    return found


def text() -> str:
    """The whole file."""
    opening = [
        "How programs run: every module, in the order that a message walks through them.",
        "",
        "Not for users: programs import `skerry`. Written by `python -m tests.house.spine`.",
    ]
    docstring = "\n".join([*opening, *lines()])
    assert '"' * 3 not in docstring, "a first line with triple quotes would end the map"
    return f'"""{docstring}\n"""\n'


if __name__ == "__main__":
    (ROOT / MAP).write_text(text())
