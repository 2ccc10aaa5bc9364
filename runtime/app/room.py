"""Whether the disk has room for the rows of slots that move.

Both shards have the rows of a slot for a while. A disk that has no room for that would end a worker
in the midst of its work, so nothing is begun that does not fit. Sizes of files are looked at, which
include free pages of the trees: an estimate from above.

Looks at files. Idea: docs/ideas/moves.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from skerry.runtime.app.membership import folder_of
from skerry.runtime.core.events import SLOTS

MARGIN_BYTES = 16 << 20
"""What else is written meanwhile, in logs above all."""


def lacking(data: Path, shards: Iterable[int], slots: int) -> str:
    """Say what is missing when so many slots of these shards are copied; empty: there is room.

    What only hands copied slots over, or lets a shard go, takes none, and makes some."""
    if not slots:
        return ""
    stored = sum(_taken(folder_of(data, shard)) for shard in shards)
    needed, free = stored * slots // SLOTS + MARGIN_BYTES, shutil.disk_usage(data).free
    if needed <= free:
        return ""
    return (
        f"the rows of {slots} slots are copied before they are deleted, which takes up to "
        f"{needed:,} bytes, and the disk that holds {data} has {free:,} free"
    )


def _taken(folder: Path) -> int:
    """Return what the files of a store take on the disk; one that is removed just now takes none."""
    taken = 0
    for file in folder.iterdir():
        try:
            taken += file.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return taken
