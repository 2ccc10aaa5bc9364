"""Whether a cluster takes a stream that all of its nodes keep: one is made, and deleted.

Does network I/O.
"""

from __future__ import annotations

import secrets

from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import StorageType

from skerry.runtime.cluster.engine import Away, Engine

MAKE_S = 5.0
"""How long the stream may take."""


async def make(client: Client, name: str, replicas: int, timeout_s: float) -> None:
    """Make a stream that so many nodes keep, and delete it. Raises what the library raises."""
    jetstream = client.jetstream(timeout=timeout_s)
    await jetstream.add_stream(
        name=name, subjects=[name], num_replicas=replicas, storage=StorageType.MEMORY
    )
    await jetstream.delete_stream(name)


def refusal(url: str, replicas: int) -> str:
    """Return why no such stream can be made; empty: it can."""
    name = f"skerry-probe-{secrets.token_hex(4)}"
    engine = Engine(url.split(","), name="skerry cluster")
    try:
        engine.run(lambda client: make(client, name, replicas, MAKE_S), MAKE_S)
    except Away:
        return "JetStream does not answer yet"
    except Error as error:
        return f"no stream can be kept by {replicas} nodes yet: {error}"
    finally:
        engine.close()
    return ""
