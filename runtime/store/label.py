"""A store's label: what the store says of itself, in a file beside its tree.

    store.json    which store, whose, made under which placement, opened at which start

The app's description says which stores there should be; the label says which store this is. So
either one shows that the other is damaged, foreign or older, and a store that is not needed any
more says so itself. The store's name stands in the tree, too, so that a label can't pass beside
another store's files.

Does file I/O. Idea: docs/ideas/log.md.
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
    """The content of a label."""

    store: str = ""
    """The store's name, which its tree has, too."""
    shard: int = 0
    app: str = ""
    directory: str = ""
    """The name of the data directory that the store was made for, from the app's description."""
    incarnation: str = ""
    version: int = 0
    """The version of the placement under which the store is a member."""
    generation: int = 0
    """The generation of the app's description when the label was last written."""
    opened: bool = False
    """Whether a worker may have run on the store, which can then hold what is nowhere else."""
    dealt_into: int = 0
    """The version of the placement that all rows have been dealt out for, which counts as soon as
    the description has it; 0: none."""


NOBODYS = Label()
"""The label of a store that is part of no app."""


def named(label: Label, shard: int) -> Label:
    """Return the label of a new store of this shard, which gets a name of its own."""
    return replace(label, shard=shard, store=os.urandom(16).hex())


def read(folder: Path) -> Label:
    """Read the label of the store in a folder. Raises StoreDamaged."""
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
    """Replace the label of the store in a folder, durably. Raises StoreFull, SkerryError."""
    sealed_file.write(folder / NAME, sealed_file.encoded(label))
