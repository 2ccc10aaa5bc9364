"""What is asked of the stream that holds the parts of snapshots.

Each part has a subject of its own, which holds one message: what is sent twice is there once.

Does network I/O and decides nothing. Settings: docs/ideas/hosts.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from nats.aio.client import Client
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError

from skerry.errors import StoreDamaged
from skerry.runtime.cluster.parts import digest_of
from skerry.runtime.cluster.stream import ASK_S

DIGEST = "Skerry-Digest"
"""The header of a part that has the digest of its payload."""

READ_AT_ONCE = 256
"""How many headers are read at once."""

IDLE_S = 30.0
"""When the servers forget a reading that has stopped."""


def settings(name: str, *, replicas: int) -> StreamConfig:
    """Return how the stream is set up."""
    return StreamConfig(
        name=name,
        subjects=[f"{name}.>"],
        num_replicas=replicas,
        storage=StorageType.FILE,
        retention=RetentionPolicy.LIMITS,
        discard=DiscardPolicy.NEW,
        max_age=0,
        max_msgs=-1,
        max_msgs_per_subject=1,
        duplicate_window=0.1,
        # A part never changes and has a digest, so any server that has it may give it.
        allow_direct=True,
        description="Snapshots of skerry. What does not count any more is purged by it: do not edit.",
    )


_EDITS = {
    "subjects": "--subjects='{}'",
    "num_replicas": "--replicas={}",
    "discard": "--discard={}",
    "max_age": "--max-age={}",
    "max_msgs": "--max-msgs={}",
    "max_msgs_per_subject": "--max-msgs-per-subject={}",
    "allow_direct": "--allow-direct",
}
"""How a field is set back."""

_FIXED = ("storage", "retention", "sealed", "deny_purge")
"""What can't be changed in a stream that exists."""


def check(found: StreamConfig, wanted: StreamConfig) -> None:
    """Raise StoreDamaged if the stream was made or edited by somebody else, so that it is not safe."""
    wrong = [field for field in (*_FIXED, *_EDITS) if _differs(field, found, wanted)]
    if not wrong:
        return
    edits = [_EDITS[field].format(_said(wanted, field)) for field in wrong if field in _EDITS]
    step = (
        "NATS can't change that in a stream that exists: back the app up, and restore it elsewhere."
        if len(edits) < len(wrong)
        else f"Set it back: nats stream edit {wanted.name} {' '.join(edits)}"
    )
    raise StoreDamaged(
        f"The stream {wanted.name}, which holds the snapshots of the app, is not as skerry makes it: "
        f"{'; '.join(f'{field} is {_said(found, field)}' for field in wrong)}. {step}"
    )


def _differs(field: str, found: StreamConfig, wanted: StreamConfig) -> bool:
    is_, should = getattr(found, field) or 0, getattr(wanted, field) or 0
    return bool(is_ < should if field == "num_replicas" else is_ != should)


def _said(config: StreamConfig, field: str) -> str:
    value = getattr(config, field)
    return ", ".join(value) if isinstance(value, list) else str(getattr(value, "value", value))


async def payload_of(client: Client, stream: str, subject: str) -> bytes | None:
    """Return a part's payload; None: it is missing.

    Any server may be asked first. If that one does not have it whole, the leader has the last word.
    """
    context = client.jetstream()
    try:
        near = await context.get_msg(stream, subject=subject, direct=True)
        payload = near.data or b""
        if (near.headers or {}).get(DIGEST) == digest_of(payload).hex():
            return payload
    except NotFoundError:
        pass
    try:
        return (await context.get_msg(stream, subject=subject)).data or b""
    except NotFoundError:
        return None


async def digests(client: Client, stream: str, subject: str) -> dict[str, str]:
    """Return the digest that stands beside each part under a subject, by the part's number as text.

    The payloads stay where they are. Raises NotFoundError: there is no stream.
    """
    context = client.jetstream()
    reading = await context.pull_subscribe(
        f"{subject}.*",
        stream=stream,
        config=ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            headers_only=True,
            mem_storage=True,
            num_replicas=1,
            inactive_threshold=IDLE_S,
        ),
    )
    found = {}
    try:
        info = await reading.consumer_info()
        left = info.num_pending or 0
        while left > 0:
            for message in await reading.fetch(min(left, READ_AT_ONCE), timeout=ASK_S):
                number = message.subject.rpartition(".")[2]
                found[number] = (message.headers or {}).get(DIGEST, "")
                left -= 1
        await context.delete_consumer(stream, info.name)
    finally:
        await reading.unsubscribe()
    return found


async def uploads(client: Client, stream: str, prefix: str) -> set[str]:
    """Return the names of all snapshots of which a part is there, whole or not: what their subjects have
    behind `prefix`.

    Raises NotFoundError: there is no stream.
    """
    found: set[str] = set()
    offset, total = 0, 1
    while offset < total:
        request = json.dumps({"subjects_filter": f"{prefix}.>", "offset": offset}).encode()
        message = await client.request(f"$JS.API.STREAM.INFO.{stream}", request, timeout=ASK_S)
        answer = json.loads(message.data)
        if "error" in answer:
            raise APIError.from_error(answer["error"])
        subjects = answer["state"].get("subjects") or {}
        found.update(_names(subjects, prefix))
        offset, total = offset + max(1, len(subjects)), answer.get("total", 0)
    return found


def _names(subjects: dict[str, int], prefix: str) -> Iterator[str]:
    for subject in subjects:
        yield subject[len(prefix) + 1 :].partition(".")[0]
