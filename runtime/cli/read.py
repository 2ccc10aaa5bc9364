"""`skerry get`, `export` and `count`: read the committed state of a running or a stopped app.

The store describes itself, so the app need not be imported.
"""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from msgspec import Raw

from skerry.errors import UnknownEntity
from skerry.runtime.app.directory import find_data, stored_name
from skerry.runtime.cli.message import Target, as_json, patiently, split
from skerry.runtime.cli.settings import Data
from skerry.runtime.cli.workers import in_turn, workers_answer
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.stored import split as split_array
from skerry.runtime.printable import one_line

TypeName = Annotated[str, typer.Argument(help="an entity type, as Account")]
Schemas = Callable[[int], bytes | None]


def fields_of(state: bytes, schemas: Schemas) -> dict[str, Any]:
    """The fields of a stored state, by name."""
    try:
        schema_id, *values = patiently(msgspec.msgpack.decode, state)
    except (msgspec.DecodeError, RecursionError):
        schema_id, *values = map(_without_class, split_array(state))
    schema = schemas(schema_id)
    if schema is None:
        names = [f"field {place}" for place in range(len(values))]
    else:
        names = msgspec.json.decode(schema)["fields"]
    return dict(zip(names, values))


def _without_class(field: Raw) -> Any:
    """The value of a field; its bytes, if it nests deeper than this interpreter reads, or is a dict
    with dicts as keys, which only its class reads."""
    try:
        return patiently(msgspec.msgpack.decode, field)
    except (msgspec.DecodeError, RecursionError):
        return bytes(field)


def states(data: Path, type_name: str, prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """(key, state) of every entity of a type, from the workers or from the stores.

    Raises UnknownEntity: there is no such type.
    """
    type_name = stored_name(data, type_name)
    if workers_answer(data):
        yield from _running_states(data, type_name, prefix)
        return
    from skerry.runtime.app.membership import settled
    from skerry.runtime.store.store import LmdbStore

    known = settled(data)
    types: set[str] = set()
    for shard in known.placement.members:
        store = LmdbStore.open(data / f"shard-{shard}", shard=shard)
        try:
            types |= _types_in(store)
            schemas = _stored_schemas(store)
            # Of slots that are to come it has copies.
            for key, state in store.states(type_name, prefix, slots=known.placement.of(shard)):
                yield key, fields_of(state, schemas)
        finally:
            store.close()
    if type_name not in types:
        raise UnknownEntity(type_name, types)


def _types_in(store: Any) -> set[str]:
    """The entity types that a store knows, of this release and of older ones."""
    described = (msgspec.json.decode(value) for _, value in store.scan(Table.SCHEMA))
    return {each["type"] for each in described if "fields" in each}


def _stored_schemas(store: Any) -> Schemas:
    known = {int.from_bytes(key, "big"): value for key, value in store.scan(Table.SCHEMA)}
    return known.get


def _running_states(
    data: Path, type_name: str, prefix: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    from skerry.runtime.app.launch import connect

    with asyncio.Runner() as runner:
        session = runner.run(connect(data))
        try:
            for rows, schemas in in_turn(runner, session.scan(type_name, prefix)):
                for key, state in rows:
                    yield key, fields_of(state, schemas.get)
        finally:
            runner.run(session.close())


Json = Annotated[bool, typer.Option("--json", help="as JSON, which it is anyway")]


def get(target: Target, data: Data = None, as_json_: Json = False) -> None:
    """Print the state of one entity as JSON.

    \b
    Example: skerry get Account/alice
    """
    type_name, key = split(target)
    folder = find_data(data)
    state = _state(folder, stored_name(folder, type_name), key)
    if state is None:
        said = f"skerry: {target} has no state: no message has reached it."
        print(one_line(said), file=sys.stderr)
        raise typer.Exit(1)
    print(as_json(state))


def _state(folder: Path, type_name: str, key: str) -> dict[str, Any] | None:
    if workers_answer(folder):

        async def ask() -> tuple[bytes | None, bytes | None]:
            from skerry.runtime.app.launch import connect

            session = await connect(folder)
            try:
                return await session.get(type_name, key)
            finally:
                await session.close()

        state, schema = asyncio.run(ask())
        return None if state is None else fields_of(state, lambda id: schema)
    from skerry.runtime.app.membership import described, settled
    from skerry.runtime.store.store import LmdbStore

    shard = described(folder).placement.slots[slot_of(type_name, key)]
    settled(folder, [shard])
    store = LmdbStore.open(folder / f"shard-{shard}", shard=shard)
    try:
        state = store.state(type_name, key)
        if state is not None:
            return fields_of(state, _stored_schemas(store))
        if type_name not in (types := _types_in(store)):
            raise UnknownEntity(type_name, types)
        return None
    finally:
        store.close()


def export(
    type_name: TypeName,
    format: Annotated[str, typer.Option("--format", help="jsonl or csv")] = "jsonl",
    prefix: Annotated[str, typer.Option(help="only keys that begin with this")] = "",
    data: Data = None,
    as_json_: Json = False,
) -> None:
    """Print every entity of a type, one per line.

    A line is {"key": …, "state": {…}}.

    \b
    Example: skerry export Account --format csv > accounts.csv
    """
    if format not in {"jsonl", "csv"}:
        raise typer.BadParameter("--format is jsonl or csv")
    folder = find_data(data)
    if format == "jsonl":
        for key, state in states(folder, type_name, prefix):
            print(as_json({"key": key, "state": state}))
        return
    # Read twice: the first line names every field, and states of older releases lack some.
    names = dict.fromkeys(name for _, state in states(folder, type_name, prefix) for name in state)
    # A file gets each cell as it is; a terminal would obey control characters.
    file = sys.stdout if sys.stdout.isatty() else sys.__stdout__ or sys.stdout
    table = csv.writer(file)
    table.writerow(["key", *names])
    for key, state in states(folder, type_name, prefix):
        table.writerow([key, *(_cell(state.get(name, "")) for name in names)])


def _cell(value: Any) -> Any:
    """A value for a cell: JSON, but texts without quotes."""
    if isinstance(value, datetime | bytes):
        return msgspec.to_builtins(value)
    return value if isinstance(value, str | int | float) else as_json(value)


def count(
    type_name: TypeName,
    data: Data = None,
    as_json_: Annotated[bool, typer.Option("--json", help="as a JSON object")] = False,
) -> None:
    """Print how many entities of a type have a state."""
    folder = find_data(data)
    if workers_answer(folder):
        found = asyncio.run(_counted(folder, stored_name(folder, type_name)))
    else:
        found = sum(1 for _ in states(folder, type_name))
    print(json.dumps({"type": type_name, "count": found}) if as_json_ else found)


async def _counted(folder: Path, type_name: str) -> int:
    """Let each worker count its own. Raises UnknownEntity."""
    from skerry.runtime.client.connection import Connection

    connection = await Connection.open(folder)
    try:
        return await connection.reads.count(type_name)
    finally:
        await connection.close()
