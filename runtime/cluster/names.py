"""What an app's streams, subjects and keys are called in NATS.

    skerry-shop                  bucket: description, keys, leader, host.h1, snapshot.1f0c9a27.3
    skerry-shop-1f0c9a27-3       stream: the log of shard 3 in that incarnation
    skerry-shop-snapshots        stream: snapshots of all shards, in parts:
        skerry-shop-snapshots.1f0c9a27.3.<snapshot>.<part>
    skerry-shop-link.<token>     subject, kept by no stream: what one link hears by way of NATS

A log's name carries the incarnation: a stream that was deleted and made anew would take records
that expect an empty one.

Pure.
"""

from __future__ import annotations

import re

import xxhash

_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")

TOKEN = re.compile(rb"[0-9a-f]{32}")
"""By which a link is reached by way of NATS."""

HOSTS = "host"
"""What the keys of hosts begin with."""


def of_app(app: str) -> str:
    """Return what all names of an app begin with. Names that NATS does not take are hashed."""
    return f"skerry-{_plain(app)}"


def host_of(host: str) -> str:
    """Return the key of a host, in the app's bucket."""
    return f"{HOSTS}.{_plain(host)}"


def _plain(name: str) -> str:
    """Return a name as NATS takes it: as it is, or hashed."""
    return name if _PLAIN.fullmatch(name) else f"x{xxhash.xxh3_64_hexdigest(name.encode())}"


def life_of(incarnation: str) -> str:
    """Return what tells the names of one incarnation from those of others."""
    return incarnation[:8]


def log_of(app: str, incarnation: str, shard: int) -> str:
    """Return the name of a shard's log; its only subject has the same name."""
    return f"{of_app(app)}-{life_of(incarnation)}-{shard}"


def snapshots_of(app: str) -> str:
    """Return the name of the stream that holds the snapshots of all shards."""
    return f"{of_app(app)}-snapshots"


def parts_of(app: str, incarnation: str, shard: int) -> str:
    """Return what the subjects of a shard's snapshots begin with."""
    return f"{snapshots_of(app)}.{life_of(incarnation)}.{shard}"


def token_of(key: str) -> str:
    """Return by which token the link with this public key is reached."""
    return xxhash.xxh3_128_hexdigest(key.encode())


def link_of(app: str, token: str) -> str:
    """Return the subject that one link hears."""
    return f"{of_app(app)}-link.{token}"


def pointer_of(incarnation: str, shard: int) -> str:
    """Return the key, in the app's bucket, that says which snapshots of a shard count."""
    return f"snapshot.{life_of(incarnation)}.{shard}"
