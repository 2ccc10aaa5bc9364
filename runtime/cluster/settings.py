"""How an app's bucket is set up, and what is wrong with one that was set up otherwise.

Somebody may have made it by hand, or edited it. Then it may forget keys, take a write from a deposed
leader, or lose all with one machine. So it is compared, field by field, whenever a host joins.

Pure. Idea: docs/ideas/hosts.md.
"""

from __future__ import annotations

import shlex
from typing import Any

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

REPLICAS = 3


def of_bucket(name: str, *, replicas: int) -> StreamConfig:
    """Return how a bucket is set up."""
    return StreamConfig(
        name=f"KV_{name}",
        description="What the hosts of a skerry app agree on. Do not edit.",
        subjects=[f"$KV.{name}.>"],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        num_replicas=replicas,
        discard=DiscardPolicy.NEW,
        max_msgs_per_subject=1,
        max_msgs=-1,
        max_age=0,
        duplicate_window=0.1,
        allow_rollup_hdrs=True,
        deny_delete=True,
        # Replicas that answer for the leader would tell of the past.
        allow_direct=False,
    )


_EDITS = {
    "subjects": "--subjects {}",
    "num_replicas": "--replicas {}",
    "discard": "--discard {}",
    "max_msgs_per_subject": "--max-msgs-per-subject {}",
    "max_msgs": "--max-msgs={}",
    "max_age": "--max-age {}s",
    "allow_direct": "--no-allow-direct",
    "no_ack": "--ack",
}
"""Fields that can be edited, and how."""

_FIXED = ("retention", "storage", "sealed", "mirror", "sources", "subject_transform")
"""Fields that nobody can change once the stream is there."""


def wrong(found: StreamConfig, wanted: StreamConfig) -> str:
    """Say what is wrong with a stream, and how to mend it; empty: nothing is."""
    fields = [name for name in (*_EDITS, *_FIXED) if not _right(name, found, wanted)]
    if not fields:
        return ""
    told = ", ".join(
        f"{name} is {_shown(getattr(found, name))} and not {_shown(getattr(wanted, name))}"
        for name in fields
    )
    edits = [
        _EDITS[name].format(_value(getattr(wanted, name))) for name in fields if name in _EDITS
    ]
    mended = f"`nats stream edit {wanted.name} {' '.join(edits)}`" if edits else ""
    if not set(fields) & set(_FIXED):
        return f"{told}. Mend it with {mended}."
    return (
        f"{told}. That can't be edited: stop the app on all hosts, save the bucket with `nats stream "
        f"backup {wanted.name} FOLDER`, and restore it with the right configuration."
    )


def _right(field: str, found: StreamConfig, wanted: StreamConfig) -> bool:
    is_, should = getattr(found, field), getattr(wanted, field)
    if field == "num_replicas":
        return bool((is_ or 1) >= should)
    if field == "max_msgs":
        return bool((is_ or -1) == should)
    return bool((is_ or None) == (should or None))


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(_value(value))


def _value(value: Any) -> Any:
    """Return a field's value as a command line has it."""
    if isinstance(value, list):
        return " ".join(shlex.quote(str(each)) for each in value)
    return getattr(value, "value", value)
