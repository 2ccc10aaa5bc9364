"""What stored bytes depend on is the same in every process, release and version of Python.

The values were recorded once. A change here makes every store that exists unreadable, or deals
its entities to other shards: it is wrong, whatever the reason. The module has no
`from __future__ import annotations`, so that each version of Python keeps them in its own way.
"""

import pytest

from skerry import Entity
from skerry.runtime.core.ownership import slot_of, slots_of
from skerry.runtime.core.tables.positions import partition_slot


class Account(Entity):
    balance: int = 0
    owner: str = ""
    notes: list[str] = []
    limits: dict[str, float] = {}
    parent: str | None = None

    def deposit(self, amount: int, memo: str = "") -> int:
        return self.balance

    def close(self) -> None:
        pass


def test_a_schema_has_the_id_that_was_recorded() -> None:
    kind = Account.__skerry__
    assert kind.schema_id == 9118757951267488191
    fields = b'"fields":["balance","owner","notes","limits","parent"]'
    assert kind.schema == b'{"type":"Account",%b,"id":9118757951267488191}' % fields


@pytest.mark.parametrize(
    ("name", "id", "params_id"),
    [
        ("deposit", 9055336444307112997, 70423112734571970),
        ("close", 3208656778147994765, 1629842272859463894),
    ],
)
def test_a_handler_has_the_ids_that_were_recorded(name: str, id: int, params_id: int) -> None:
    handler = Account.__skerry__.handlers[name]
    assert (handler.id, handler.params_id) == (id, params_id)


KEYS = {"a": 124, "bob": 675, "ключ": 714, "x" * 480: 997}


def test_a_key_has_the_slot_that_was_recorded() -> None:
    assert slots_of("Account", KEYS) == list(KEYS.values())
    assert [slot_of("Account", key) for key in KEYS] == list(KEYS.values())


def test_a_partition_has_the_slot_that_was_recorded() -> None:
    found = {name: partition_slot("words", name) for name in ("0", "7", "a.txt")}
    assert found == {"0": 189, "7": 196, "a.txt": 395}
