"""Asks the workers of a running app, for commands that look at them or tell them something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


def with_connection(data: Path, job: Any) -> Any:
    """Do a job with a connection to the app. Returns its result. Raises Unavailable."""

    async def all_of_it() -> Any:
        from skerry.runtime.client.connection import Connection

        connection = await Connection.open(data)
        try:
            return await job(connection)
        finally:
            await connection.close()

    run: Coroutine[Any, Any, Any] = all_of_it()
    return asyncio.run(run)


def everywhere(data: Path, kind: str, *args: Any) -> list[Any]:
    """Ask every shard. Returns their answers."""

    async def job(connection: Any) -> list[Any]:
        shards = connection.shards
        return list(
            await asyncio.gather(*(connection.control(shard, kind, *args) for shard in shards))
        )

    return list(with_connection(data, job))


def in_turn(runner: asyncio.Runner, pages: AsyncIterator[T]) -> Iterator[T]:
    """Yield pages one by one, each fetched when it is asked for."""

    async def fetched() -> T | None:
        return await anext(pages, None)

    while (page := runner.run(fetched())) is not None:
        yield page
