"""Asks the workers of a running app, for commands that look at them or tell them something."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from skerry.errors import SkerryError, Unavailable
from skerry.runtime.app.control import Line
from skerry.runtime.app.directory import is_running, running_app

T = TypeVar("T")


SUPERVISOR_S = 3.0
"""How long a supervisor may take to say whether its host has a lease."""


def workers_answer(data: Path) -> bool:
    """Tell whether the workers of an app are asked what it holds: it runs.

    Says so if those of this host wait for NATS before they answer.
    """
    if not is_running(data):
        return False
    with contextlib.suppress(SkerryError):
        running = running_app(data)
        if running.host:
            with Line(data, running, answer_s=SUPERVISOR_S) as line:
                told = line.ask("status")
            if not told["leased"]:
                print(
                    f"skerry: waiting: NATS has not answered this host for {told['nats_silent_s']:g} s, "
                    f"and its lease is over, so it does not answer for its shards; look at the servers",
                    file=sys.stderr,
                    flush=True,
                )
    return True


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


def reports(data: Path, timeout_s: float) -> tuple[list[dict[str, Any]], list[int]]:
    """Ask every shard how it is doing. Returns what they say, and those that do not answer in time."""

    async def job(connection: Any) -> tuple[list[dict[str, Any]], list[int]]:
        shards = connection.shards
        answers = await asyncio.gather(
            *(connection.control(shard, "status", timeout_s=timeout_s) for shard in shards),
            return_exceptions=True,
        )
        told, silent = list[dict[str, Any]](), list[int]()
        for shard, answer in zip(shards, answers):
            if isinstance(answer, Unavailable):
                silent.append(shard)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                told.append(answer)
        return told, silent

    found: tuple[list[dict[str, Any]], list[int]] = with_connection(data, job)
    return found


def in_turn(runner: asyncio.Runner, pages: AsyncIterator[T]) -> Iterator[T]:
    """Yield pages one by one, each fetched when it is asked for."""

    async def fetched() -> T | None:
        return await anext(pages, None)

    while (page := runner.run(fetched())) is not None:
        yield page
