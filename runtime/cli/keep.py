"""`skerry backup` and `skerry restore`: copy an app's data as of one moment, and run the copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from skerry.runtime.app.directory import find_data, load
from skerry.runtime.cli.settings import Data, Json, option
from skerry.runtime.description import Description
from skerry.runtime.printable import say


def backup(
    directory: Annotated[Path, typer.Argument(help="a new folder for the backup")],
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Back up an app's data as of one moment, whether the app runs or is stopped.

    All shards are copied as of one moment, so that no message is lost or doubled between
    them. The copy is verified before it gets its name.

    \b
    Example: skerry backup /mnt/backups/bank-monday
    """
    from skerry.runtime.app.backup import back_up

    made = back_up(find_data(data), directory, say)
    if as_json:
        print(json.dumps(msgspec.to_builtins(made, str_keys=True)))
    else:
        size = f"{made.bytes / 1e6:,.1f} MB"
        print(f"{made.backup}: {made.shards} shards, {size}, in {made.seconds:.1f} s")


def restore(
    directory: Annotated[Path, typer.Argument(help="a backup, as `skerry backup` makes it")],
    data: Annotated[Path | None, option("data", help="a new folder")] = None,
    cluster: Annotated[
        str | None, option("cluster", help="a cluster that is to have the app")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a data directory from a backup, from which the app goes on.

    With --cluster, the app is made in a cluster that does not have it. The new folder is the data
    directory of its first host there.

    \b
    Example: skerry restore /mnt/backups/bank-monday && skerry run bank.py
    """
    known = load(directory)
    folder = data or Path(".skerry") / (known.app if known else "app")
    if cluster is not None:
        app = _restored_into(cluster, directory, folder)
    else:
        from skerry.runtime.app.backup import restore as restored_from

        app = restored_from(directory, folder, say)
    if as_json:
        print(json.dumps({"app": app.app, "data": str(folder)}))
    else:
        print(
            f"{folder}: {app.app}, restored. Start it with `skerry run{' --cluster' * bool(cluster)}`."
        )


def _restored_into(cluster: str, backup: Path, data: Path) -> Description:
    from skerry.runtime.app.transfer import restore_into
    from skerry.runtime.config import urls_of

    try:
        servers = urls_of(cluster)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return restore_into(servers, backup, data, say)
