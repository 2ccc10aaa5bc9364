"""The app whose hosts are measured. `skerry.args()`: serve, keys, 0, and the path of a file.

Hosts join while there is nothing to do: while that file is missing, the app has no source. Then
`skerry restart` loads the app anew, and each shard reads its partitions as fast as it can.
"""

from pathlib import Path

import skerry
from benchmarks.apps import DRAWN, Account
from skerry import App, Generate
from skerry.runtime.core.events import SLOTS

APART = 40_503
"""Partitions begin so far apart in the keys that none follows another closely."""

PARTITIONS = SLOTS
"""Each slot has one, so each shard reads its share, whichever slots have moved to it."""

LOADED = [*skerry.args(), *[""] * 4][3]
"""The file; empty: there is no source, whatever files there are."""


def key(partition: str, position: int) -> str:
    """The key of an item, the same each time."""
    return DRAWN[(position + int(partition) * APART) % len(DRAWN)]


app = App("hosts", entities=[Account])
if LOADED and Path(LOADED).exists():
    items = app.source(Generate(key, partitions=PARTITIONS))
    items.key_by(lambda name: name).map(lambda name: 1).to(Account.deposit)
