"""What an app has stored, added up and compared with what was sent: a wrong sum is no figure.

Reads the stores of a stopped app, as `skerry get` and `skerry export` do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skerry.runtime.app.directory import load
from skerry.runtime.cli.read import fields_of, states
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.store.store import LmdbStore


def total(data: str, type_name: str, field: str, keys: Iterable[str] | None = None) -> int:
    """The sum of a field over all entities of a type, as a stopped app has stored it.

    With `keys` each is looked up by its name: of a million entities, of which many stand in the
    log's tail, a scan takes minutes, since it looks through that tail once for each slot.
    """
    if keys is None:
        return sum(int(state[field]) for _, state in states(Path(data), type_name))
    known = load(Path(data))
    assert known is not None, f"{data} holds the app that has just run"
    shards = known.placement.members
    stores = {n: LmdbStore.open(Path(data) / f"shard-{n}", shard=n) for n in shards}
    try:
        schemas: dict[int, bytes] = {}
        for store in stores.values():
            schemas |= {int.from_bytes(id, "big"): row for id, row in store.scan(Table.SCHEMA)}
        found = 0
        for key in keys:
            store = stores[known.placement.slots[slot_of(type_name, key)]]
            state = store.state(type_name, key)
            found += 0 if state is None else int(fields_of(state, schemas.get)[field])
        return found
    finally:
        for store in stores.values():
            store.close()


def counted(data: str, keys: int) -> int:
    """What the counters of `benchmarks/sized_app.py` add up to."""
    from benchmarks.sized_app import name

    return total(data, "Counter", "count", map(name, range(keys)))


def check(name: str, found: Any, expected: Any) -> None:
    """A wrong sum is no figure."""
    assert found == expected, (
        f"{name}: what is stored adds up to {found:,}, not {expected:,}. Messages were lost or "
        f"doubled: run `make crash` and `make simulate`."
    )
