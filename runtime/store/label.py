"""A store's label: what it says of itself, beside its tree.

    store.json    which store, whose, made under which placement, opened at which start

The app's description says which stores there should be; the label says which store this is.
So each can be found to be damaged, foreign or older by the other, and a store that is in
nobody's way any more is known by its own word. The tree has the same name inside it, so that a
label can't stand beside another store's files.

Does file I/O. Idea: docs/log.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from skerry.errors import StoreDamaged
from skerry.runtime.store import sealed_file

NAME = "store.json"


class Label(Struct, frozen=True, kw_only=True):
    """What a store says of itself."""

    store: str = ""
    """Its name, which its tree has, too."""
    shard: int = 0
    app: str = ""
    directory: str = ""
    """The data directory that it was made for, by the name that this has in its description."""
    incarnation: str = ""
    version: int = 0
    """The placement's, under which it is a member."""
    generation: int = 0
    """The description's, when it was last written here."""
    opened: bool = False
    """Whether a worker may have run on it: it can hold what is nowhere else, then."""
    dealt_into: int = 0
    """All its rows have been dealt out for the placement of this version, which counts as soon as
    the description has it. 0: they have not."""


NOBODYS = Label()
"""Of a store that is part of no app."""


def named(label: Label, shard: int) -> Label:
    """Return the label of a new store of this shard, which gets a name of its own."""
    return replace(label, shard=shard, store=os.urandom(16).hex())


def read(folder: Path) -> Label:
    """The label of the store in this folder. Raises StoreDamaged."""
    path = folder / NAME
    try:
        return sealed_file.decoded(path.read_bytes(), Label)
    except FileNotFoundError:
        raise StoreDamaged(
            f"The store {folder} has lost its label, the file {NAME}. Put it back, or restore the "
            f"app's last backup: all shards together."
        ) from None
    except ValueError as error:
        raise StoreDamaged(
            f"The label of a store, {path}, is damaged: {error}. Nothing was changed. Look at the "
            f"disk, and restore the app's last backup; `skerry check` names what else is damaged."
        ) from error


def write(folder: Path, label: Label) -> None:
    """This label from now on, durable. Raises StoreFull, SkerryError."""
    sealed_file.write(folder / NAME, sealed_file.encoded(label))
