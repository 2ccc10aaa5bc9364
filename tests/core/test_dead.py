"""Dead letters of one batch: what its commit says, and what is counted."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from skerry.runtime.core.events import Table
from skerry.runtime.core.tables.dead_letters import DeadLetter, DeadLetters
from skerry.runtime.core.tables.table import Stamp
from skerry.turn import Turn

STAMP = Stamp(1, 7)


@pytest.fixture
def letters() -> DeadLetters:
    turn = Turn()
    turn.now_ns = 7
    ids = count(1)
    return DeadLetters(turn, lambda: next(ids).to_bytes(24, "big"), {})


def test_a_letter_holds_all_that_sends_its_message_anew(letters: DeadLetters) -> None:
    letters.bury("Account", "alice", "too little", handler=("pay", 1, 2), args=b"\x91\x05")
    (table, key, row), counted = letters.rows(STAMP)
    assert counted == (Table.DEAD_COUNT, key[:2], (1).to_bytes(8, "big"))
    letter = msgspec.msgpack.decode(row, type=DeadLetter)
    assert (table, key.endswith(b"\1")) == (Table.DEAD, True)
    assert letter == DeadLetter(
        7, "Account", "alice", "pay", 1, 2, b"\x91\x05", "too little", "", False
    )


def test_what_is_buried_in_a_batch_that_is_thrown_away_is_not(letters: DeadLetters) -> None:
    letters.bury("Account", "alice", "raised")
    letters.undo()
    letters.bury("Account", "bob", "raised")
    letters.sealed(STAMP)
    assert len(letters) == letters.added == 1


def test_what_is_retried_or_dropped_is_removed_and_not_counted(letters: DeadLetters) -> None:
    letters.bury("Account", "alice", "raised")
    (_, key, _), _ = letters.rows(STAMP)
    letters.sealed(STAMP)
    letters.remove(key)
    assert list(letters.rows(STAMP)) == [(Table.DEAD, key, None), (Table.DEAD_COUNT, key[:2], None)]
    letters.sealed(STAMP)
    assert (len(letters), letters.added) == (0, 1)
