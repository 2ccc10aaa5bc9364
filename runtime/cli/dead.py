"""`skerry dead`: list the messages that were refused or failed, show, retry or drop them."""

from __future__ import annotations

import asyncio
import heapq
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from skerry.runtime.app.directory import find_data, stored_name
from skerry.runtime.cli.message import as_json
from skerry.runtime.cli.settings import Data, Json
from skerry.runtime.cli.workers import in_turn, with_connection, workers_answer
from skerry.runtime.printable import one_line

Letter = tuple[bytes, Any]
"""A dead letter's id, and its row."""

AT_ONCE = 32
"""Retries under way at once: few beside the other work of a worker."""

dead = typer.Typer(help="Dead letters: messages that were refused or failed.", no_args_is_help=True)


def _oldest(folder: Path, limit: int) -> tuple[list[Letter], int]:
    """The oldest dead letters, at most a page of each shard, and the number of all."""
    if workers_answer(folder):
        rows, total = with_connection(folder, lambda app: app.reads.oldest_letters(limit))
        return list(map(_letter, rows)), total
    total, shown = 0, list[Letter]()
    for letter in _stored(folder):
        total += 1
        shown.append(letter)
        if len(shown) > 2 * limit:
            shown = heapq.nsmallest(limit, shown, key=_came_at)
    return heapq.nsmallest(limit, shown, key=_came_at), total


def _each(folder: Path) -> Iterator[Letter]:
    """All dead letters in the order of the stores, fetched a page at a time."""
    if not workers_answer(folder):
        yield from _stored(folder)
        return
    from skerry.runtime.client.connection import Connection

    with asyncio.Runner() as runner:
        connection = runner.run(Connection.open(folder))
        try:
            for letters in in_turn(runner, connection.reads.letters()):
                yield from map(_letter, letters)
        finally:
            runner.run(connection.close())


def _stored(folder: Path) -> Iterator[Letter]:
    """All dead letters of a stopped app."""
    from skerry.runtime.app import membership
    from skerry.runtime.core.commit import slot_in
    from skerry.runtime.core.events import Table
    from skerry.runtime.core.tables.dead_letters import DeadLetter
    from skerry.runtime.store.store import LmdbStore

    app = membership.settled(folder)
    for shard in app.placement.members:
        store = LmdbStore.open(folder / f"shard-{shard}", shard=shard)
        try:
            own = set(app.placement.of(shard))  # Of slots that are to come it has copies.
            for key, row in store.scan(Table.DEAD):
                if slot_in(key) not in own:
                    continue
                yield key, msgspec.msgpack.decode(row, type=DeadLetter)
        finally:
            store.close()


def _letter(row: Any) -> Letter:
    """A dead letter of a page."""
    from skerry.runtime.core.tables.dead_letters import DeadLetter

    return row[0], msgspec.convert(row[1], DeadLetter)


def _came_at(letter: Letter) -> tuple[int, bytes]:
    return letter[1].time_ns, letter[0]


def _as_dict(key: bytes, letter: Any) -> dict[str, Any]:
    return {
        "id": key.hex(),
        "time": letter.time_ns / 1e9,
        "entity": f"{letter.type}/{letter.key}",
        "handler": letter.handler,
        "arguments": _decoded(letter.args),
        "error": letter.error,
        "answered": letter.answered,
        "traceback": letter.traceback,
    }


def _decoded(args: bytes) -> Any:
    """The arguments; their bytes, if those of a damaged peer or a stranger do not decode."""
    try:
        return msgspec.msgpack.decode(args)
    except (msgspec.MsgspecError, RecursionError):
        return args


@dead.command(name="list")
def list_letters(
    data: Data = None,
    limit: Annotated[int, typer.Option(min=1, help="how many, oldest first")] = 100,
    every: Annotated[bool, typer.Option("--all", help="all, in no particular order")] = False,
    as_json_: Json = False,
) -> None:
    """List dead letters, oldest first. `dead show` prints one whole, with its traceback."""
    folder = find_data(data)
    if every:
        for letter in _each(folder):
            _print(letter, as_json_)
        return
    shown, total = _oldest(folder, limit)
    for letter in shown:
        _print(letter, as_json_)
    if total > len(shown):
        more = f"{total - len(shown):,} more: --limit shows others, --all every one."
        print(f"skerry: {more}", file=sys.stderr)


def _print(letter: Letter, as_json_: bool) -> None:
    key, row = letter
    if as_json_:
        shown = _as_dict(key, row)
        del shown["traceback"]
        print(as_json(shown))
    else:
        print(one_line(f"{key.hex()}  {row.type}/{row.key}  {row.handler}  {row.error}"))


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
    """Print one dead letter whole, with its traceback."""
    key, folder = _id(id), find_data(data)
    if workers_answer(folder):
        found = with_connection(folder, lambda app: app.reads.letter(key))
        letters = [] if found is None else [_letter((key, found))]
    else:
        letters = [letter for letter in _stored(folder) if letter[0] == key]
    if not letters:
        print(f"skerry: there is no dead letter {id}.", file=sys.stderr)
        raise typer.Exit(1)
    print(as_json(_as_dict(*letters[0]), indent=2))


async def _told(connection: Any, action: str, key: bytes) -> str:
    """Tell the shard that has a dead letter. Returns why it refused; empty: it did not."""
    kind, body = await connection.reads.operate(key, action)
    return "" if kind == "done" else str(msgspec.msgpack.decode(body)[1])


def _operate(action: str, id: str, data: Path | None) -> None:
    key = _id(id)
    why = with_connection(find_data(data), lambda connection: _told(connection, action, key))
    if why:
        print(f"skerry: {why}", file=sys.stderr)
        raise typer.Exit(1)


def _retry_all(type_name: str | None, handler: str | None, data: Path | None) -> None:
    """Retry the dead letters that are there now, each once, even if a retry brings it back."""
    folder = find_data(data)
    type_name = type_name and stored_name(folder, type_name)
    wanted = [
        (key, letter.answered)
        for key, letter in _each(folder)
        if type_name in (None, letter.type) and handler in (None, letter.handler)
    ]
    keys = [key for key, answered in wanted if not answered]

    async def job(connection: Any) -> Counter[str]:
        found: Counter[str] = Counter()
        for at in range(0, len(keys), AT_ONCE):
            told = (_told(connection, "retry", key) for key in keys[at : at + AT_ONCE])
            found.update(await asyncio.gather(*told))
            if sys.stderr.isatty():
                print(f"\r{at:,} of {len(keys):,}", end="\r", file=sys.stderr, flush=True)
        return found

    refused = with_connection(folder, job)
    print(f"retried {refused.pop('', 0):,} of {len(wanted):,} dead letters")
    if left := len(wanted) - len(keys):
        print(f"{left:,} stay: their askers were given an outcome. Drop them, or let them be.")
    for why, count in refused.items():
        print(one_line(f"skerry: {count:,} stay: {why}"), file=sys.stderr)
    if refused:
        raise typer.Exit(1)


@dead.command()
def retry(
    id: Annotated[str | None, typer.Argument(help="of one, from `skerry dead list`")] = None,
    every: Annotated[
        bool, typer.Option("--all", help="all, or those that the others name")
    ] = False,
    type_name: Annotated[
        str | None, typer.Option("--type", help="with --all: of this entity type")
    ] = None,
    handler: Annotated[
        str | None, typer.Option("--handler", help="with --all: for this handler")
    ] = None,
    data: Data = None,
) -> None:
    """Send the message of a dead letter again, behind what came since.

    \b
    Example: skerry dead retry --all --type Account --handler deposit
    """
    if (id is None) != every:
        raise typer.BadParameter("give the id of one, from `skerry dead list`, or --all")
    if id is None:
        _retry_all(type_name, handler, data)
    elif type_name or handler:
        raise typer.BadParameter("--type and --handler choose among --all; an id names one")
    else:
        _operate("retry", id, data)


@dead.command()
def drop(id: str, data: Data = None) -> None:
    """Remove a dead letter."""
    _operate("drop", id, data)
