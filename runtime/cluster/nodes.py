"""The NATS servers of a folder: a cluster on this machine, for trying things out.

    .skerry-cluster/cluster.json     name, password, ports
                    n1/ n2/ n3/      a node each

    up(folder)   -> those that are down run, and all of them keep a stream together
    down(folder) -> none runs; the data stay

One command at a time works on a folder. What fails leaves nothing running that it has started.
Idea: docs/how-to/hosts.md.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from skerry.errors import SkerryError, StoreDamaged, StoreFull, Unavailable
from skerry.runtime.cluster import monitor
from skerry.runtime.cluster.addresses import FIRST, Ports, in_a_row, must_be_free
from skerry.runtime.cluster.node import END_S, LOG, Node, processes, silence
from skerry.runtime.cluster.server import INSTALL, Access, binary, configuration, name_of
from skerry.runtime.printable import Say
from skerry.runtime.private import narrow
from skerry.runtime.store import sealed_file

FILE = "cluster.json"
FORMAT = 1

NODES = 3
"""How many a cluster has, if nobody says so: one may be down."""

READY_S = 60.0
"""How long a cluster may take. An election after all nodes were killed took 10.6 s."""

LOOK_S = 0.1
"""How often a cluster is looked at until it is ready."""

ROOM_SHARE = 2
"""A cluster may fill this part of the room on its disk: a half."""

ROOM_MIN = 256 << 20
"""Bytes that a node has to have at least."""


class _Described(Struct, frozen=True):
    """What cluster.json holds."""

    format: int
    access: Access
    max_file_store: int
    nodes: list[Ports]


class State(Struct, frozen=True):
    """How a node does."""

    name: str
    port: int
    state: str
    """up, down; frozen: stopped by a signal; silent: runs, and doesn't answer; disabled: keeps no
    streams, since it has just started, or its disk was full."""
    pid: int | None
    role: str
    """leader or follower, in JetStream; empty: none is known."""
    streams: int
    leads: int
    """How many of its streams it leads."""
    bytes: int


class Nodes:
    """The nodes of a folder, whether they run or not."""

    def __init__(self, folder: Path, described: _Described) -> None:
        self.folder, self._described = folder, described
        self._nodes = [Node(folder, name_of(n)) for n in range(len(described.nodes))]

    @property
    def name(self) -> str:
        """The name of the cluster."""
        return self._described.access.cluster

    @property
    def url(self) -> str:
        """What clients are told: each node, with the password."""
        access = self._described.access
        return ",".join(access.url(ports.clients) for ports in self._described.nodes)

    def each(self) -> Iterator[tuple[Node, Ports]]:
        """Iterate over the nodes, and where they listen."""
        return zip(self._nodes, self._described.nodes)

    def at(self, ports: list[Ports]) -> Nodes:
        """Return the cluster with other ports, which its nodes take when they start again."""
        return _written(self.folder, replace(self._described, nodes=ports))

    def start(self, node: Node, program: Path) -> None:
        """Start a node that is down; returns before it answers."""
        node.start(
            program,
            configuration(
                self._described.nodes,
                self._nodes.index(node),
                self._described.access,
                max_file_store=self._described.max_file_store,
            ),
        )

    def states(self) -> list[State]:
        """Ask each node how it does."""
        pids = processes(self.folder)
        healths = {
            node.name: monitor.asked(ports.monitor)
            for node, ports in self.each()
            if node.name in pids
        }
        leader = self._leader(healths)
        return [
            _state(node.name, ports, pids.get(node.name), healths.get(node.name), leader)
            for node, ports in self.each()
        ]

    def _leader(self, healths: dict[str, monitor.Health | None]) -> str:
        """Return the node that most take for the leader of JetStream; empty: there is none."""
        if len(self._nodes) == 1:
            return next((name for name, told in healths.items() if told and told.jetstream), "")
        told = Counter(health.leader for health in healths.values() if health and health.leader)
        return told.most_common(1)[0][0] if told else ""

    def await_ready(self, say: Say) -> None:
        """Wait until every node answers, and a stream can be made that all of them keep.

        Raises SkerryError: a node has ended, or it takes too long.
        """
        told, deadline = "", time.monotonic() + READY_S
        while lacking := self._lacking():
            for node in self._nodes:
                node.check()
            if time.monotonic() > deadline:
                raise SkerryError(
                    f"The cluster is not ready after {READY_S:.0f} s: {lacking}. Look at "
                    f"{self.folder}/n*/{LOG}, and try again."
                )
            if lacking != told:
                say(lacking)
                told = lacking
            time.sleep(LOOK_S)

    def _lacking(self) -> str:
        """Return what a cluster lacks to be ready; empty: nothing."""
        from skerry.runtime.cluster import probe

        states = self.states()
        if quiet := [state.name for state in states if state.state != "up"]:
            return f"{', '.join(quiet)} {'does' if len(quiet) == 1 else 'do'} not answer yet"
        if not any(state.role == "leader" for state in states):
            return "JetStream has no leader yet"
        return probe.refusal(self.url, len(self._nodes))


def _state(
    name: str, ports: Ports, pid: int | None, health: monitor.Health | None, leader: str
) -> State:
    if health is None:
        return State(name, ports.clients, silence(pid) if pid else "down", pid, "", 0, 0, 0)
    if not health.jetstream:
        return State(name, ports.clients, "disabled", pid, "", 0, 0, 0)
    role = "leader" if name == leader else "follower" if leader else ""
    leads = sum(not health.leader or led_by == name for led_by in health.leaders.values())
    return State(name, ports.clients, "up", pid, role, len(health.leaders), leads, health.bytes)


def made(folder: Path, ports: Sequence[Ports]) -> Nodes:
    """Describe a new cluster in a folder. Raises StoreFull: its disk has no room for one."""
    wanted = ROOM_MIN * ROOM_SHARE * len(ports)
    if (free := shutil.disk_usage(folder).free) < wanted:
        raise StoreFull(
            f"The disk that holds {folder} has {free:,} bytes left, and {len(ports)} nodes want "
            f"{wanted:,}. Make room, or choose another folder with --dir."
        )
    folder.chmod(0o700)
    access = Access(f"skerry-{secrets.token_hex(4)}", secrets.token_hex(16))
    described = _Described(FORMAT, access, free // ROOM_SHARE // len(ports), list(ports))
    return _written(folder, described)


def _written(folder: Path, described: _Described) -> Nodes:
    sealed_file.write(folder / FILE, sealed_file.encoded(described))
    return Nodes(folder, described)


def _read(folder: Path) -> Nodes | None:
    """Return the cluster of a folder; None: there is none. Raises StoreDamaged."""
    path = folder / FILE
    try:
        described = sealed_file.decoded(path.read_bytes(), _Described)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise StoreDamaged(
            f"{path} does not read as a cluster's description: {error}. Nothing was changed. End "
            f"its servers with `skerry cluster down --dir {folder}`, and start another cluster in "
            f"another folder, with --dir."
        ) from error
    return Nodes(folder, described)


def found(folder: Path) -> Nodes:
    """Return the cluster of a folder. Raises Unavailable: there is none; StoreDamaged."""
    if (cluster := _read(folder)) is None:
        raise Unavailable(
            f"There is no cluster in {folder}. Start one with `skerry cluster up --dir {folder}`."
        )
    return cluster


def up(folder: Path, say: Say, *, nodes: int | None, port: int | None) -> Nodes:
    """Start the nodes of a folder that are down, on their data; make a cluster if there is none.

    Args:
        nodes: how many a new cluster has.
        port: of the first node of a new cluster, or of one that is down.

    Raises SkerryError: they can't run. Those that were started here have ended then.
    """
    program = binary()
    if find_spec("nats") is None:
        raise SkerryError(f"The package nats-py is missing. Install it with {INSTALL}.")
    with _locked(folder, say):
        cluster = _prepared(folder, nodes, port)
        states = {state.name: state.state for state in cluster.states()}
        started = list[Node]()
        for node, ports in cluster.each():
            if states[node.name] == "down":
                must_be_free(node.name, ports)
        try:
            for node, ports in cluster.each():
                match states[node.name]:
                    case "frozen":
                        say(f"{node.name} was frozen, and goes on")
                        node.send(signal.SIGCONT)
                    case "disabled":
                        say(f"{node.name} kept no streams, and starts again")
                        node.end()
                        started.append(node)
                        cluster.start(node, program)
                    case "down":
                        say(f"{node.name} starts on port {ports.clients}")
                        started.append(node)
                        cluster.start(node, program)
            cluster.await_ready(say)
        except BaseException:
            for node in started:
                node.end()
            raise
    if set(states.values()) == {"up"}:
        say(f"all {len(states)} nodes run already")
    return cluster


def _prepared(folder: Path, nodes: int | None, port: int | None) -> Nodes:
    """Return the cluster of a folder, with these ports; a new one if there is none."""
    cluster, running = _read(folder), processes(folder)
    if cluster is None:
        if running:
            raise SkerryError(
                f"{folder} was emptied while a cluster ran there, whose servers still run: processes "
                f"{', '.join(map(str, running.values()))}. End them with `skerry cluster down --dir "
                f"{folder}`."
            )
        if any(folder.iterdir()):
            raise SkerryError(
                f"{folder} is not empty, and no folder of `skerry cluster up`. Choose another one "
                f"with --dir."
            )
        return made(
            folder, _free(FIRST if port is None else port, NODES if nodes is None else nodes)
        )
    there = [ports for _, ports in cluster.each()]
    if nodes not in (None, len(there)):
        raise SkerryError(
            f"The cluster in {folder} has {len(there)} nodes, and keeps that number. Leave --nodes "
            f"out, or choose another folder with --dir."
        )
    if port in (None, there[0].clients):
        return cluster
    if running:
        raise SkerryError(
            f"The cluster in {folder} runs, from port {there[0].clients} on. Leave --port out, or "
            f"end it first, with `skerry cluster down --dir {folder}`."
        )
    return cluster.at(_free(port, len(there)))


def _free(first: int, count: int) -> list[Ports]:
    """Return the ports of a cluster's nodes. Raises SkerryError: somebody listens on one."""
    found = in_a_row(first, count)
    for n, ports in enumerate(found):
        must_be_free(name_of(n), ports)
    return found


def down(folder: Path, say: Say) -> int:
    """End the nodes of a folder, one by one; also when that was deleted. Returns how many ran.

    Raises Unavailable: there is no cluster, and no node that runs.
    """
    if not processes(folder):
        found(folder)
        return 0
    with _locked(folder, say) if folder.is_dir() else nullcontext():
        running = processes(folder)
        for name in running:
            say(f"{name} ends")
            if Node(folder, name).end():
                say(f"{name} had not ended after {END_S:.0f} s, and was killed")
    return len(running)


@contextmanager
def _locked(folder: Path, say: Say) -> Iterator[None]:
    """Let no other command work on a folder, which is made if need be, and is private."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=True)
    narrow(folder, say)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SkerryError(
                f"Another `skerry cluster` command works on {folder}. Try again when it has ended."
            ) from None
        yield
    finally:
        os.close(fd)
        with suppress(OSError):
            folder.rmdir()  # Nothing has come of it.
