"""The servers that some peers need: found or installed, started on loopback, stopped.

Each gets a free port and an empty folder on the disk that holds this clone, runs with its own
defaults but for that, and is gone with its folder when the measurement ends. PostgreSQL and
Redis are Debian's packages; who is root has them installed, who is not is told what is missing.
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.peers.figure import free_port, wait_for

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-peers"
STOP_S = 30
"""How long a server may take to end before it is killed."""


class Missing(Exception):
    """Something cannot be installed or started here. The sentence says what to do."""


class Server(NamedTuple):
    """How one is had."""

    title: str
    binary: Callable[[], Path]
    """Where its program is; installs it if it can. Raises Missing."""
    start: Callable[[Path], AbstractContextManager[str]]
    """In this folder; gives the address that its peer understands."""
    size_of: Callable[[Path], Path]
    """What belongs to it on the disk, by its program."""

    def version(self) -> str:
        """As it says itself."""
        said = subprocess.run([self.binary(), "--version"], capture_output=True, text=True)
        found = re.search(r"\d+(\.\d+)+", said.stdout)
        return f"{self.title} {found[0] if found else '?'}"


def debian(command: str, package: str, *folders: str) -> Path:
    """A program of a Debian package."""
    for place in (shutil.which(command), *(path for name in folders for path in globbed(name))):
        if place:
            return Path(place)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"`{command}` is not here: install Debian's package `{package}`")
    installing = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package]
    for step in (["apt-get", "update", "--quiet"], installing):
        run(step, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
    for place in (shutil.which(command), *(path for name in folders for path in globbed(name))):
        if place:
            return Path(place)
    raise Missing(f"`{command}` is not in Debian's package `{package}`")


def globbed(pattern: str) -> list[Path]:
    """What is there, the newest first."""
    return sorted(Path("/").glob(pattern.lstrip("/")), reverse=True)


def run(command: list[str], **how: object) -> None:
    """A step of set-up. Raises Missing with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **how)  # type: ignore[call-overload]
    except OSError as error:
        raise Missing(f"`{command[0]}`: {error}") from error
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Missing(f"`{' '.join(command[:4])} …` failed: {' '.join(last)[:200]}")


@contextmanager
def running(
    command: list[str], port: int, folder: Path, stop: int = signal.SIGTERM, **how: object
) -> Iterator[None]:
    """A server, from when it listens until it has ended."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder, **how
        )  # type: ignore[call-overload]
        try:
            try:
                wait_for(port, process)
            except TimeoutError as error:
                said = (folder / "server.log").read_text(errors="replace").strip()
                last = " ".join(said.splitlines()[-1:])[:200]
                raise Missing(f"{Path(command[0]).name} did not start: {error}: {last}") from error
            yield
        finally:
            process.send_signal(stop)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def postgres_program() -> Path:
    """`postgres`, of any version."""
    return debian("postgres", "postgresql", "/usr/lib/postgresql/*/bin/postgres").resolve()


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """With its defaults; it refuses to be root, so root runs it as somebody else."""
    program, port, data = postgres_program(), free_port(), folder / "postgres"
    data.mkdir()
    how: dict[str, object] = {}
    if os.geteuid() == 0:
        known = {user.pw_name for user in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in known else "nobody")
        for path in (data, folder):
            os.chown(path, user.pw_uid, user.pw_gid)
        how = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    making = [str(program.with_name("initdb")), "-D", str(data / "data"), "-U", "peer"]
    run([*making, "--auth=trust", "--encoding=UTF8"], cwd=data, **how)
    command = [str(program), "-D", str(data / "data"), "-p", str(port)]
    command += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    with running(command, port, data, signal.SIGINT, **how):
        yield f"postgresql://peer@127.0.0.1:{port}/postgres"


def redis_program() -> Path:
    """`redis-server`."""
    return debian("redis-server", "redis-server")


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Every write in the append-only file, synced before its reply."""
    port = free_port()
    command = [str(redis_program()), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--dir", str(folder)]
    with running(command, port, folder):
        yield f"127.0.0.1:{port}"


def restate_program() -> Path:
    """`restate-server`, out of the package that npm installed."""
    found = globbed(f"{ENVIRONMENTS}/restate/node_modules/@restatedev/*/bin/restate-server")
    if not found:
        raise Missing("`restate-server` is not in its npm package for this machine")
    return found[0]


@contextmanager
def restate(folder: Path) -> Iterator[str]:
    """A single node with its defaults."""
    ingress, admin, node = free_port(), free_port(), free_port()
    settings = {
        "RESTATE_NODE_NAME": "peer",
        "RESTATE_BASE_DIR": str(folder / "restate"),
        "RESTATE_LISTEN_MODE": "tcp",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_DISABLE_TELEMETRY": "true",
    }
    env = {**os.environ, **settings}
    with running([str(restate_program()), "--no-logo"], ingress, folder, env=env):
        wait_for(admin)
        yield f"127.0.0.1:{ingress} http://127.0.0.1:{admin}"


POSTGRES = Server("PostgreSQL", postgres_program, postgres, lambda program: program.parents[1])
REDIS = Server("Redis", redis_program, redis, lambda program: program.resolve())
RESTATE = Server("Restate", restate_program, restate, lambda program: program)
