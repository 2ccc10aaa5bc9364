"""What a shard keeps of its entities in memory: bounded, and what is used stays."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from skerry import Entity, SkerryError
from skerry.entity import Entity as AnyEntity
from skerry.runtime.core import commit
from skerry.runtime.core.buffer import Buffer
from skerry.runtime.core.cache import AWAY_BYTES, Cache


class Thing(Entity):
    """Counts."""

    n: int = 0


class Shelf:
    """Turns over a dict of states, that counts what is loaded."""

    def __init__(self, entities: int) -> None:
        self.loaded = 0
        self.cache = Cache(
            {"Thing": Thing.__skerry__},
            states=self._states,
            schemas=lambda id: None,
            elsewhere=lambda slot: None,
            bytes_max=0,
        )
        self.cached = self.cache.types["Thing"]
        # So large that about so many entities fit.
        self.cache._bytes_max = int(entities * (self.cached.bytes_of(1)))

    def _states(self, name: str, keys: Sequence[str], slots: Sequence[int]) -> list[bytes | None]:
        self.loaded += len(keys)
        return [None] * len(keys)

    def use(self, keys: list[str]) -> None:
        """A batch looks at these."""
        places = self.cache.locations(self.cached, keys)
        assert [place.key for place in places if isinstance(place, AnyEntity)] == keys
        self.cache.sealed()

    def __len__(self) -> int:
        return len(self.cached.locations)


def test_what_is_used_in_a_circle_stays_while_it_fits_in_the_cache() -> None:
    shelf, keys = Shelf(1000), [f"k{n}" for n in range(1000)]
    for _ in range(5):
        for start in range(0, 1000, 50):
            shelf.use(keys[start : start + 50])
    assert shelf.loaded == 1000


def test_what_is_never_used_again_leaves_the_memory() -> None:
    shelf = Shelf(1000)
    for start in range(0, 20_000, 100):
        shelf.use([f"k{n}" for n in range(start, start + 100)])
        assert len(shelf) <= 1000


def test_places_on_other_shards_are_counted_among_what_fills_the_cache() -> None:
    shelf = Shelf(1000)
    buffer = Buffer(1, {})
    shelf.cache._elsewhere = lambda slot: buffer
    for start in range(0, 20_000, 100):
        shelf.cache.locations(shelf.cached, [f"k{n}" for n in range(start, start + 100)])
        shelf.cache.sealed()
    assert shelf.cached.away == len(shelf) <= 1000 * shelf.cached.bytes_of(1) / AWAY_BYTES


def test_an_entity_has_one_object_however_often_a_run_names_it() -> None:
    shelf = Shelf(1000)
    first, second, third = shelf.cache.locations(shelf.cached, ["a", "b", "a"])
    assert first is third and first is not second


def test_two_types_with_one_id_are_refused_by_name() -> None:
    seen: dict[bytes, str] = {}
    for n in range(1 << 20):
        name = f"T{n}"
        other = seen.setdefault(commit.type_id(name), name)
        if other != name:
            break
    with pytest.raises(SkerryError, match=f"'{other}' and '{name}' have one id"):
        commit.check_type_ids(["Thing", other, name])
    commit.check_type_ids(["Thing", other, "Thing"])
