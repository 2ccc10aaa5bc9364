"""Links of hosts on this machine, each a process with a folder of its own, and what stands beside them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import zmq

from skerry.runtime import as_json
from skerry.runtime.link.table import Assignment, Peer, Reach, Ready, Table
from skerry.runtime.transport.curve import Pair

CLIENTS = Pair.new()


class Linked:
    """The link of one host; `servers`: with those of NATS as another way."""

    def __init__(self, host: str, servers: list[str] | None = None) -> None:
        self.host, self._servers = host, servers or []
        self.folder = Path(tempfile.mkdtemp(prefix="skerry-link-"))
        self._starts = 0
        self.start()

    def start(self) -> None:
        """Start its process."""
        self._starts += 1
        self.process = subprocess.Popen(
            [sys.executable, "-m", "skerry.runtime.link.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        told = Assignment(
            host=self.host,
            sockets=str(self.folder),
            bind="127.0.0.1:0",
            clients_key=CLIENTS.public,
            app="shop",
            servers=self._servers,
        )
        self._tell(as_json.encode(told))
        assert self.process.stdout is not None
        self.ready = as_json.decode(self.process.stdout.readline(), Ready)

    @property
    def nonce(self) -> str:
        """That of its process."""
        return f"{self.host}-{self._starts}"

    @property
    def peer(self) -> Peer:
        """How others know it."""
        return Peer(self.host, self.nonce, self.ready.address, self.ready.key)

    def route(self, table: Table) -> None:
        """Tell it where everything is."""
        self._tell(as_json.encode(table))

    def reach(self) -> Reach:
        """Whom it does not reach directly, once that has changed."""
        assert self.process.stdout is not None
        return as_json.decode(self.process.stdout.readline(), Reach)

    def _tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """Kill its process."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def close(self) -> None:
        """End it, and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder)


def route(links: list[Linked], homes: dict[int, str], leader: str = "") -> None:
    """Tell all of them where everything is."""
    for link in links:
        link.route(table(links, homes, leader))


def table(links: list[Linked], homes: dict[int, str], leader: str = "") -> Table:
    """Where everything is."""
    return Table([each.peer for each in links], homes, leader)


class Echo:
    """A door that says what it hears."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path.unlink(missing_ok=True)
        self._socket.bind(str(path))
        self._socket.listen(512)
        self._callers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._callers.append(self._socket.accept()[0])
                threading.Thread(target=_echo, args=(self._callers[-1],), daemon=True).start()

    def close(self) -> None:
        """End it, with all its callers."""
        for each in [self._socket, *self._callers]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join()


def _echo(caller: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := caller.recv(1 << 16):
            caller.sendall(data)
        caller.close()


def call(path: Path) -> socket.socket:
    """Connect to a door, once somebody listens there."""
    while True:
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            caller.connect(str(path))
        except OSError:
            caller.close()
            os.sched_yield()
            continue
        return caller


def echoed(path: Path, said: bytes) -> bytes:
    """Say something at a door; return what comes back, once the door is reached."""
    while True:
        with call(path) as caller:
            caller.settimeout(60)
            threading.Thread(target=_say, args=(caller, said), daemon=True).start()
            found = bytearray()
            with contextlib.suppress(ConnectionError):
                while len(found) < len(said) and (data := caller.recv(1 << 16)):
                    found += data
            if found:
                return bytes(found)


def _say(caller: socket.socket, said: bytes) -> None:
    try:
        caller.sendall(said)
    except OSError:
        return


class Way:
    """What lies between two links: it carries all, until it is told to lose what the far end says, or
    all."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._losing, self._lost = False, 0
        self._cut = False
        self._enough = threading.Condition()
        self._ends: list[socket.socket] = []
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._welcome(self._socket.accept()[0])

    def _welcome(self, near: socket.socket) -> None:
        ip, port = self._to.split(":")
        self._ends.append(near)
        if self._cut:
            _break(near)
            return
        try:
            far = socket.create_connection((ip, int(port)))
        except OSError:
            _break(near)
            return
        self._ends.append(far)
        threading.Thread(target=self._carry, args=(near, far), daemon=True).start()
        threading.Thread(target=self._answer, args=(far, near), daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        _break(source, target)

    def _answer(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if not self._losing:
                    target.sendall(data)
                    continue
                with self._enough:
                    self._lost += len(data)
                    self._enough.notify()
        _break(source, target)

    def lose(self) -> None:
        """Lose what the far end says, from now on."""
        self._losing = True

    def break_off(self, lost: int) -> None:
        """Once so many bytes were lost: cut all connections. Those that come then lose nothing."""
        with self._enough:
            assert self._enough.wait_for(lambda: self._lost >= lost, timeout=60)
        _break(*self._ends)
        self._losing = False

    def cut(self) -> None:
        """Carry nothing, until `heal` is called."""
        self._cut = True
        _break(*self._ends)

    def heal(self) -> None:
        """Carry all that comes from now on."""
        self._cut = False

    def close(self) -> None:
        """Carry nothing any more."""
        _break(self._socket, *self._ends)
        for end in (self._socket, *self._ends):
            end.close()


def _break(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def stranger(link: Linked, keys: Pair | None) -> zmq.Socket[bytes]:
    """A connection by somebody who is not one of the app's; None: without any encryption."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    socket.setsockopt(zmq.LINGER, 0)
    if keys is not None:
        keys.call(socket, link.ready.key)
    socket.connect(f"tcp://{link.ready.address}")
    return socket
