"""What a link is told: where it stands, and where the other hosts and the shards are.

    assignment, once -> a table, whenever something has changed

Data and its rules; does nothing. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from skerry.runtime.cluster.lease import Lease


class Peer(Struct, frozen=True):
    """The link of another host."""

    host: str
    nonce: str
    """That of its process: a host's next process has another link."""
    address: str
    """IP:PORT."""
    key: str
    """The public half of its keys, as Z85."""


def peers_of(leases: Iterable[Lease]) -> list[Peer]:
    """Return the links of hosts by their leases, in the order of their names."""
    hosts = sorted((lease for lease in leases if lease.address), key=lambda lease: lease.host)
    return [Peer(lease.host, lease.nonce, lease.address, lease.key) for lease in hosts]


class Table(Struct, frozen=True):
    """Where everything is."""

    peers: list[Peer] = []
    homes: dict[int, str] = {}
    """The host of each shard."""
    leader: str = ""
    """The host that leads; empty: nobody knows."""

    def remote(self, me: str) -> dict[int, Peer]:
        """Return the peer behind which each shard is that is not on this host."""
        peers = {peer.host: peer for peer in self.peers}
        return {
            shard: peers[host] for shard, host in self.homes.items() if host != me and host in peers
        }

    def lead(self, me: str) -> Peer | None:
        """Return the peer that leads; None: this host does, or nobody who is known."""
        found = [peer for peer in self.peers if peer.host == self.leader != me]
        return found[0] if found else None


class Assignment(Struct, frozen=True, kw_only=True):
    """One start of one link."""

    host: str
    sockets: str
    """The folder of the host's sockets."""
    bind: str
    """IP:PORT; port 0: any."""
    clients_key: str
    """The public key by which clients come in, as Z85."""
    app: str = ""
    servers: list[str] = []
    """URLs of NATS, for the way to hosts that do not answer directly; empty: there is none."""


class Ready(Struct, frozen=True):
    """What a link says once it can be reached."""

    address: str
    key: str


class Reach(Struct, frozen=True):
    """What a link says whenever it changes: which hosts do not answer it directly."""

    detours: list[str] = []
    """Hosts that answer by way of NATS."""
    silent: list[str] = []
    """Hosts that do not answer at all."""
    refusing: list[str] = []
    """Those of them that do not let this one in, since they do not know its key."""
