"""Machines of a test: network namespaces of this one, joined by a bridge that has cuts.

    this machine, on the bridge: OUTSIDE    NATS runs here, and the test
    a namespace for each host

A cut is silent, as where a cable is pulled between two switches: who sends gets no error. It is made
at the sender, by a wrong MAC address of the receiver, which needs nothing but `ip`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

import psutil
import pytest

OUTSIDE = "outside"
"""This machine itself, where NATS runs."""

NOBODY = "02:00:00:00:00:01"
"""A MAC address that no interface has."""

NETWORKS = [f"198.{18 + n // 256}.{n % 256}" for n in range(512)]
"""Those that RFC 2544 sets aside for tests."""


def ip(*words: str) -> str:
    """Run the command `ip`; return what it says. Raises CalledProcessError, which names the command."""
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def _missing() -> str:
    """Return what this machine lacks to have a network of namespaces; empty: nothing."""
    if not shutil.which("ip"):
        return "the command `ip` (iproute2)"
    if os.geteuid():
        return "the rights of root"
    try:
        Network(["tried"]).close()
    except subprocess.CalledProcessError as error:
        return f"`{' '.join(error.cmd)}`, which says: {error.stderr.strip()}"
    return ""


class Network:
    """A bridge and a namespace for each host. Everything is named after this process.

    Args:
        hosts: the names of the hosts.
    """

    def __init__(self, hosts: Sequence[str]) -> None:
        for pid in _owners():
            if not psutil.pid_exists(pid):
                _remove(pid)  # Its tests were killed.
        self._bridge = f"skt{os.getpid()}"
        taken, first = ip("-4", "-o", "address"), os.getpid() % len(NETWORKS)
        nets = [*NETWORKS[first:], *NETWORKS[:first]]  # Another process looks from elsewhere on.
        self._net = next(net for net in nets if f" {net}." not in taken)
        self._numbers = {name: n for n, name in enumerate([OUTSIDE, *hosts], start=1)}
        self._cuts = set[tuple[str, str]]()
        try:
            ip("link", "add", self._bridge, "type", "bridge")
            ip("address", "add", f"{self.address(OUTSIDE)}/24", "dev", self._bridge)
            ip("link", "set", self._bridge, "up")
            for host in hosts:
                self._join(host)
        except BaseException:
            self.close()
            raise

    def _join(self, host: str) -> None:
        space, end = self._space(host), f"{self._bridge}-{self._numbers[host]}"
        ip("netns", "add", space)
        ip("link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", space)
        ip("link", "set", end, "master", self._bridge, "up")
        ip("-n", space, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
        ip("-n", space, "link", "set", "lo", "up")
        ip("-n", space, "link", "set", "eth0", "up")

    def _space(self, host: str) -> str:
        return f"{self._bridge}-{host}"

    def address(self, host: str) -> str:
        """The IP address of a host, or of OUTSIDE."""
        return f"{self._net}.{self._numbers[host]}"

    def inside(self, host: str) -> list[str]:
        """The words before a command that is to run on a host. It keeps the process id."""
        return ["ip", "netns", "exec", self._space(host)]

    def cut(self, one: str, other: str) -> None:
        """Let nothing through between two of them."""
        self.cut_one_way(one, other)
        self.cut_one_way(other, one)

    def cut_one_way(self, sender: str, receiver: str) -> None:
        """Let nothing through from one to another; what is said the other way arrives."""
        self._cuts.add((sender, receiver))
        wrong = ("lladdr", NOBODY, "nud", "permanent")
        ip(*self._neighbour("replace", sender, receiver), *wrong)

    def heal(self) -> None:
        """Let everything through."""
        while self._cuts:
            ip(*self._neighbour("delete", *self._cuts.pop()))

    def _neighbour(self, verb: str, sender: str, receiver: str) -> list[str]:
        """The words that change what a sender knows of a receiver's MAC address."""
        space = [] if sender == OUTSIDE else ["-n", self._space(sender)]
        device = self._bridge if sender == OUTSIDE else "eth0"
        return [*space, "neighbour", verb, self.address(receiver), "dev", device]

    def close(self) -> None:
        """Remove it all. Processes on its hosts lose their network."""
        _remove(os.getpid())


def _owners() -> set[int]:
    """The processes that have a network."""
    return {int(pid) for pid in re.findall(r"\bskt(\d+)\b", ip("netns") + ip("-o", "link"))}


def _remove(pid: int) -> None:
    for space in re.findall(rf"^skt{pid}-\S+", ip("netns"), re.MULTILINE):
        ip("netns", "delete", space)
    for end in sorted(set(re.findall(rf"\bskt{pid}(?:-\d+)?(?=[@:])", ip("-o", "link")))):
        # The end in a namespace goes with it, and takes the other one along, soon.
        subprocess.run(["ip", "link", "delete", end], capture_output=True)


_lacking = _missing()
needed = pytest.mark.skipif(
    bool(_lacking), reason=f"needs network namespaces, and this machine lacks {_lacking}"
)
