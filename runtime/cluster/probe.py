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


def refusal(url: str, replicas: int) -> str:
    """Return why no such stream can be made; empty: it can."""
    name = f"skerry-probe-{secrets.token_hex(4)}"

    async def ask(client: Client) -> None:
        jetstream = client.jetstream(timeout=MAKE_S)
        await jetstream.add_stream(
            name=name, subjects=[name], num_replicas=replicas, storage=StorageType.MEMORY
        )
        await jetstream.delete_stream(name)

    engine = Engine(url.split(","), name="skerry cluster")
    try:
        engine.run(ask, MAKE_S)
    except Away:
        return "JetStream does not answer yet"
    except Error as error:
        return f"no stream can be kept by {replicas} nodes yet: {error}"
    finally:
        engine.close()
    return ""
