"""Who may import whom. A wrong arrow fails here, with the file that drew it."""

import ast
import sys
from pathlib import Path

import pytest

from tests.house.source import ROOT, files, first_line, imports, name_of, path_of, tree

CORE = "skerry.runtime.core"
WORDS = tuple(f"{CORE}.{name}" for name in ("events", "stored", "wire", "commit", "placement"))
"""The core's vocabulary and formats: pure, and known to whoever stores or carries them."""

ARROWS: dict[str, tuple[str, ...]] = {
    # Longest name first: a module's own line counts before its room's.
    "skerry.runtime.app.backup": (
        "skerry.runtime.client.connection",
        "skerry.runtime.app.membership",
        "skerry.runtime.app.directory",
        "skerry.runtime.description",
        "skerry.runtime.store",
    ),
    "skerry.runtime.cli": (
        "skerry.runtime.app.backup",
        "skerry.runtime.causes",
        "skerry.runtime.app.launch",
        "skerry.runtime.app.load",
        "skerry.runtime.app.membership",
        "skerry.runtime.app.directory",
        "skerry.runtime.printable",
        "skerry.runtime.client",
        "skerry.runtime.gateway",
        "skerry.runtime.store",
        f"{CORE}.tables.dead_letters",
        *WORDS,
    ),
    "skerry.runtime.app.launch": (
        "skerry.runtime.simulator",
        f"{CORE}.shard",
        "skerry.runtime.app.supervisor",
        "skerry.runtime.client",
        "skerry.runtime.gateway",
        "skerry.runtime.app.load",
        "skerry.runtime.app.directory",
        "skerry.runtime.printable",
    ),
    "skerry.runtime.app.supervisor": (
        "skerry.runtime.worker.process",
        "skerry.runtime.forks",
        "skerry.runtime.worker.heartbeat",
        "skerry.runtime.app.watch",
        "skerry.runtime.app.reshard",
        "skerry.runtime.app.membership",
        "skerry.runtime.app.directory",
        "skerry.runtime.description",
        "skerry.runtime.printable",
        "skerry.runtime.private",
        "skerry.runtime.gateway.channel",
        "skerry.runtime.gateway.knock",
        "skerry.runtime.gateway.protocol",
        "skerry.runtime.store.check",
        *WORDS,
    ),
    "skerry.runtime.app.watch": (f"{CORE}.intake",),
    "skerry.runtime.gateway.inquiries": (
        "skerry.runtime.gateway.protocol",
        "skerry.runtime.ports",
        f"{CORE}.tables.dead_letters",
        f"{CORE}.shard",
        *WORDS,
    ),
    "skerry.runtime.worker.process": (
        "skerry.runtime.causes",
        "skerry.runtime.forks",
        "skerry.runtime.gateway.inquiries",
        "skerry.runtime.gateway.listener",
        "skerry.runtime.gateway.protocol",
        "skerry.runtime.app.load",
        "skerry.runtime.worker.pace",
        "skerry.runtime.worker.stopwatch",
        "skerry.runtime.worker.heartbeat",
        "skerry.runtime.worker.sources",
        "skerry.runtime.app.watch",
        "skerry.runtime.worker.sinks",
        "skerry.runtime.ports",
        "skerry.runtime.store",
        "skerry.runtime.transport",
        CORE,
    ),
    "skerry.runtime.app.reshard": (
        "skerry.runtime.app.membership",
        "skerry.runtime.app.directory",
        "skerry.runtime.description",
        "skerry.runtime.store",
        "skerry.runtime.ports",
        # It writes the rows of streams, as their two ends would.
        f"{CORE}.streams.inbound",
        f"{CORE}.streams.outbound",
        *WORDS,
    ),
    "skerry.runtime.app.membership": (
        "skerry.runtime.app.directory",
        "skerry.runtime.description",
        "skerry.runtime.private",
        "skerry.runtime.store",
        *WORDS,
    ),
    "skerry.runtime.app.directory": (
        "skerry.runtime.description",
        "skerry.runtime.private",
        "skerry.runtime.store",
    ),
    "skerry.runtime.description": (f"{CORE}.events",),
    "skerry.runtime.private": ("skerry.runtime.causes",),
    "skerry.runtime.worker.sources": (f"{CORE}.events",),
    "skerry.runtime.worker.sinks": (f"{CORE}.events",),
    "skerry.runtime.ports": (f"{CORE}.events",),
    "skerry.runtime.causes": (),
    "skerry.runtime.app.load": (),
    "skerry.runtime.worker.pace": (),
    "skerry.runtime.worker.stopwatch": (),
    "skerry.runtime.worker.heartbeat": ("skerry.runtime.app.watch", f"{CORE}.intake"),
    "skerry.runtime.client.connection": (
        "skerry.runtime.client",
        "skerry.runtime.gateway",
        "skerry.runtime.app.directory",
        "skerry.runtime.description",
        "skerry.runtime.private",
        *WORDS,
    ),
    "skerry.runtime.client": ("skerry.runtime.gateway", *WORDS),
    "skerry.runtime.gateway": WORDS,
    "skerry.runtime.store": ("skerry.runtime.causes", "skerry.runtime.ports", *WORDS),
    "skerry.runtime.transport": WORDS,
    # The real thing on simulated ground: all that does no I/O.
    "skerry.runtime.simulator": (
        "skerry.runtime.client.session",
        "skerry.runtime.client.window",
        "skerry.runtime.gateway.protocol",
        "skerry.runtime.gateway.inquiries",
        "skerry.runtime.ports",
        "skerry.runtime.app.reshard",
        "skerry.runtime.app.watch",
        CORE,
    ),
    # The core: `shard` knows all its siblings; below it each knows those that it is made of.
    f"{CORE}.shard": ("skerry.runtime.ports", CORE),
    f"{CORE}.intake": (
        *(f"{CORE}.{name}" for name in ("clients", "delivery", "turns", "streams.links")),
        *(f"{CORE}.tables.{name}" for name in ("requests", "timers", "dead_letters")),
    ),
    f"{CORE}.clients": (f"{CORE}.delivery", f"{CORE}.tables.requests", f"{CORE}.turns"),
    f"{CORE}.tables.requests": ("skerry.runtime.ports",),
    f"{CORE}.delivery": (f"{CORE}.turns", f"{CORE}.buffer", f"{CORE}.tables"),
    f"{CORE}.turns": (f"{CORE}.buffer", f"{CORE}.loops"),
    f"{CORE}.streams": WORDS,
    f"{CORE}.tables": WORDS,
    CORE: WORDS,
    "skerry.runtime": (),
    "skerry": (),
}

CORE_MAY_IMPORT = {"msgspec", "xxhash", "skerry"}
CORE_MAY_NOT = {
    *("asyncio", "io", "logging", "multiprocessing", "os", "pathlib", "pickle", "random"),
    *("select", "signal", "socket", "subprocess", "tempfile", "threading", "time", "uuid"),
}

ALL = files("api", "runtime")


def within(name: str, rooms: tuple[str, ...]) -> bool:
    """Whether a module is one of these, or in one of these."""
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def allowed(name: str) -> tuple[str, ...]:
    """Where the arrows of a module may point, beside the public layer and its own room."""
    room = max((room for room in ARROWS if within(name, (room,))), key=len)
    more = WORDS if within(name, (CORE,)) else ()
    own = () if room in {"skerry", "skerry.runtime", CORE} else (room,)
    return (*ARROWS[room], *more, *own)


@pytest.mark.parametrize("path", ALL, ids=str)
def test_arrows(path: Path) -> None:
    name = name_of(path)
    for target in imports(path):
        if not within(target, ("skerry.runtime",)) or path == Path("api/host.py"):
            continue
        assert within(target, allowed(name)), f"{path} must not import {target}"


@pytest.mark.parametrize("path", files("runtime/core"), ids=str)
def test_the_core_has_no_io_no_clock_no_thread(path: Path) -> None:
    for target in imports(path):
        first = target.partition(".")[0]
        assert first not in CORE_MAY_NOT, f"{path} imports {target}"
        known = first in CORE_MAY_IMPORT or first in sys.stdlib_module_names
        assert known, f"{path} imports {target}: the core needs {sorted(CORE_MAY_IMPORT)} only"


def test_the_runtime_is_named_by_one_door_of_the_api() -> None:
    """As an import, or as a name to be imported; and by the door only when it is used."""
    named = {
        path
        for path in files("api")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith("skerry.runtime.")
    }
    named |= {
        path for path in files("api") for t in imports(path) if t.startswith("skerry.runtime")
    }
    assert named == {Path("api/host.py")}


def test_every_module_says_its_job_in_its_first_line() -> None:
    silent = [path for path in ALL if not first_line(path).endswith((".", "?", ":"))]
    assert [path for path in silent if (ROOT / path).stat().st_size] == []


def test_every_import_of_the_house_exists() -> None:
    wanted = {t for path in ALL for t in imports(path) if within(t, ("skerry",))}
    assert {name for name in wanted if path_of(name) is None} == set()
