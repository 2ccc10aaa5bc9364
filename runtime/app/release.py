"""Finds out whether an app that runs can go on with its program as it is now; a process of its own.

    import as a worker does -> the checks of a start -> states of each type on each shard are read

Reads by asking the workers, which hold the stores. Changes nothing. Answers `trial.py` with one
line on standard output; what the program prints goes to standard error.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from skerry.app import App
from skerry.entity_type import EntityType
from skerry.errors import SkerryError, told
from skerry.runtime import as_json, forks
from skerry.runtime.app.load import check, hidden
from skerry.runtime.app.opening import check_name
from skerry.runtime.app.trial import Question, Verdict
from skerry.runtime.causes import explained
from skerry.runtime.client.connection import Connection
from skerry.runtime.core.commit import check_type_ids
from skerry.runtime.gateway.protocol import ALL_SLOTS, PAGE_ROWS
from skerry.runtime.worker.process import die_with_parent, end_soon, load_program

REFUSED_CHARS_MAX = 20_000
"""The longest refusal: a traceback may quote a line of any length."""

MENDED = (
    "Then restart again; or stop the app and start it, if messages to entities like this one may "
    "become dead letters."
)


def _tried(question: Question) -> Verdict:
    """Try the program. Raises SkerryError, or whatever the program raises: the app can't go on so."""
    here = version("skerry")
    if here != question.version:
        raise SkerryError(
            f"The skerry that is installed now is {here}, and the app runs on {question.version}. "
            f"Workers of both can't run side by side: stop the app, and start it again."
        )
    config, program = question.config, question.config.program
    # What this process has imported is what a worker has.
    names = sorted({*program.hidden, *hidden(program.path[0])})
    program = replace(program, hidden=names)
    app = load_program(program)
    forks.ignore_signals()  # A program may have set handlers of its own, as for a server.
    check(app, program.target)
    check_name(Path(config.data), program.app, app.name)
    check_type_ids(app.types)
    asyncio.run(_read(app, Path(config.data), question.shards))
    return Verdict(renamed=app.renamed, hidden=names)


async def _read(app: App, data: Path, shards: Sequence[int]) -> None:
    """Read some states of each type on these shards. Raises SkerryError: one has no class, or does not
    fit it."""
    if not shards:
        return
    connection = await Connection.open(data)
    try:
        await asyncio.gather(*(_read_of(app, connection, shard) for shard in shards))
    finally:
        await connection.close()


async def _read_of(app: App, connection: Connection, shard: int) -> None:
    for name in (await connection.control(shard, "status"))["types"]:
        rows, schemas, _ = await connection.control(
            shard, "scan", name, "", "", PAGE_ROWS, ALL_SLOTS
        )
        if rows and name not in app.types:
            raise SkerryError(
                f"{name}/{rows[0][0]} has a stored state, and the program has no entity type {name} "
                f'any more. Keep the class, or write `class …(Entity, was="{name}")` if it has '
                f"another name now."
            )
        for key, state in rows:
            _fits(app.types[name], key, state, schemas)


def _fits(kind: EntityType, key: str, state: bytes, schemas: Mapping[int, Any]) -> None:
    """Read a state as the first message to its entity would. Raises SkerryError."""
    try:
        kind.decode(state, key, schemas.get)
    except SkerryError as error:
        raise SkerryError(f"{error} {MENDED}") from error
    except Exception as error:
        raise SkerryError(
            f"{kind.name}/{key} can't be read: its class raises {told(error)}. {MENDED}"
        ) from error


def main() -> int:
    """Try a program. The question comes as a line of JSON on standard input."""
    die_with_parent()
    forks.ignore_signals()
    question = as_json.decode(sys.stdin.buffer.readline(), Question)
    answers = os.dup(1)
    os.dup2(2, 1)  # What the program prints is no verdict.
    try:
        verdict = _tried(question)
    except SkerryError as error:
        verdict = Verdict(str(error)[:REFUSED_CHARS_MAX])
    except Exception as error:
        verdict = Verdict(f"The program can't be tried. {explained(error)}"[:REFUSED_CHARS_MAX])
    with open(answers, "wb") as pipe:
        pipe.write(as_json.encode(verdict) + b"\n")
    end_soon(0)
    return 0


if __name__ == "__main__":
    sys.exit(main())
