"""`skerry status`, `stop`, `dead`, `check`: a look at an app, and a hand on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from skerry.errors import StoreLocked
from skerry.runtime.cli.message import Data, as_json
from skerry.runtime.placement_file import find_data, is_running, load, running_app

T = TypeVar("T")
Json = Annotated[bool, typer.Option("--json", help="as JSON")]
STOP_S = 60.0

dead = typer.Typer(help="Dead letters: messages that were refused or failed.", no_args_is_help=True)


def _with_connection(data: Path, job: Any) -> Any:
    async def all_of_it() -> Any:
        from skerry.runtime.gateway.connection import Connection

        connection = await Connection.open(data)
        try:
            return await job(connection)
        finally:
            await connection.close()

    run: Coroutine[Any, Any, Any] = all_of_it()
    return asyncio.run(run)


def _everywhere(data: Path, kind: str, *args: Any) -> list[Any]:
    """The answer of every shard."""

    async def job(connection: Any) -> list[Any]:
        shards = connection.shards
        return list(
            await asyncio.gather(*(connection.control(shard, kind, *args) for shard in shards))
        )

    return list(_with_connection(data, job))


def status(data: Data = None, as_json_: Json = False) -> None:
    """What runs, shard by shard."""
    folder = find_data(data)
    app = load(folder)
    assert app is not None, "find_data has looked for the app"
    shards = _everywhere(folder, "status") if is_running(folder) else []
    if as_json_:
        print(json.dumps({"app": app.app, "running": bool(shards), "shards": shards}))
        return
    if not shards:
        print(f"{app.app} is stopped; {len(app.placement.members)} shards in {folder}")
        return
    print(f"{app.app} runs, process {running_app(folder).pid}, {len(shards)} shards in {folder}")
    names = ("shard", "pid", "epoch", "commit", "turns", "items", "timers", "asks", "dead")
    print("  ".join(f"{name:>9}" for name in names))
    for shard in shards:
        print("  ".join(f"{shard[name]:>9,}" for name in names))


def stop(
    data: Data = None,
    now: Annotated[bool, typer.Option("--now", help="kill; nothing acknowledged is lost")] = False,
) -> None:
    """Stop a running app; returns when it has ended."""
    folder = find_data(data)
    pid = running_app(folder).pid
    with contextlib.suppress(ProcessLookupError):  # It has just ended by itself.
        os.kill(pid, signal.SIGKILL if now else signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while is_running(folder):
        if time.monotonic() > deadline:
            print(f"skerry: process {pid} has not ended; try --now.", file=sys.stderr)
            raise typer.Exit(1)
        time.sleep(0.02)


def _letters(folder: Path, id: bytes | None = None) -> list[tuple[bytes, Any]]:
    """Dead letters of a running or stopped app, oldest first."""
    from skerry.runtime.shard.dead import DeadLetter
    from skerry.runtime.shard.events import Table

    found: list[tuple[bytes, Any]] = []
    if is_running(folder):
        for letters in _everywhere(folder, "dead", "show" if id else "list", id):
            found += [(key, msgspec.convert(row, DeadLetter)) for key, row in letters]
    else:
        from skerry.runtime.store.log import LmdbStore

        app = load(folder)
        assert app is not None, "find_data has looked for the app"
        for shard in app.placement.members:
            store = LmdbStore.open(folder / f"shard-{shard}", shard=shard)
            try:
                for key, row in store.scan(Table.DEAD):
                    if id is None or key == id:
                        found.append((key, msgspec.msgpack.decode(row, type=DeadLetter)))
            finally:
                store.close()
    return sorted(found, key=lambda letter: letter[1].time_ns)


def _as_dict(key: bytes, letter: Any) -> dict[str, Any]:
    return {
        "id": key.hex(),
        "time": letter.time_ns / 1e9,
        "entity": f"{letter.type}/{letter.key}",
        "handler": letter.handler,
        "arguments": msgspec.msgpack.decode(letter.args),
        "error": letter.error,
        "answered": letter.answered,
        "traceback": letter.traceback,
    }


@dead.command(name="list")
def list_letters(data: Data = None, as_json_: Json = False) -> None:
    """All dead letters, oldest first."""
    for key, letter in _letters(find_data(data)):
        if as_json_:
            print(as_json(_as_dict(key, letter)))
        else:
            print(f"{key.hex()}  {letter.type}/{letter.key}  {letter.handler}  {letter.error}")


def _id(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no id: copy one from `skerry dead list`") from None


@dead.command()
def show(
    id: str,
    data: Data = None,
    as_json_: Annotated[bool, typer.Option("--json", help="as JSON, which it is anyway")] = False,
) -> None:
    """One dead letter whole, with its traceback."""
    letters = _letters(find_data(data), _id(id))
    if not letters:
        print(f"skerry: there is no dead letter {id}.", file=sys.stderr)
        raise typer.Exit(1)
    print(as_json(_as_dict(*letters[0]), indent=2))


def _operate(action: str, id: str, data: Path | None) -> None:
    """Tell the shard that has the letter; the others know of none."""
    key = _id(id)
    slot = int.from_bytes(key[:2], "big")
    folder = find_data(data)

    async def job(connection: Any) -> Any:
        slots = connection.greeting.placement.slots
        owner = slots[slot % len(slots)]
        return await connection.control(owner, "dead", action, key)

    kind, body = _with_connection(folder, job)
    if kind != "done":
        print(f"skerry: {msgspec.msgpack.decode(body)[1]}", file=sys.stderr)
        raise typer.Exit(1)


@dead.command()
def retry(id: str, data: Data = None) -> None:
    """Send a dead letter's message anew, behind what came since."""
    _operate("retry", id, data)


@dead.command()
def drop(id: str, data: Data = None) -> None:
    """Forget a dead letter."""
    _operate("drop", id, data)


def check(
    directory: Annotated[
        Path | None, typer.Argument(help="a data directory or a backup; default: --data")
    ] = None,
    data: Data = None,
    as_json_: Json = False,
) -> None:
    """Verify every checksum of a stopped app's stores.

    Each record, each link between records, each row. Exit code 3: damage."""
    from skerry.runtime.store.check import check_apart

    folder = find_data(directory or data)
    app = load(folder)
    assert app is not None, "find_data has looked for the app"
    if is_running(folder):
        raise StoreLocked(folder, running_app(folder).pid)
    wrong = [
        sentence
        for shard in app.placement.members
        for sentence in check_apart(folder / f"shard-{shard}", shard=shard)
    ]
    if as_json_:
        print(json.dumps({"clean": not wrong, "damage": wrong}))
    else:
        print("\n".join(wrong) or f"{folder}: {len(app.placement.members)} shards, all clean")
    raise typer.Exit(3 if wrong else 0)
