"""Dead letters of one batch: what its commit says, and what is counted."""

from __future__ import annotations

from itertools import count

import msgspec
import pytest

from skerry.runtime.core.events import Table
from skerry.runtime.core.tables.dead_letters import DeadLetter, DeadLetters
from skerry.turn import Turn


@pytest.fixture
def letters() -> DeadLetters:
    turn = Turn()
    turn.now_ns = 7
    ids = count(1)
    return DeadLetters(turn, lambda: next(ids).to_bytes(24, "big"))


def test_a_letter_holds_all_that_sends_its_message_anew(letters: DeadLetters) -> None:
    letters.bury("Account", "alice", "too little", handler=("pay", 1, 2), args=b"\x91\x05")
    [(table, key, row)] = letters.rows
    letter = msgspec.msgpack.decode(row, type=DeadLetter)
    assert (table, key is not None and key.endswith(b"\1")) == (Table.DEAD, True)
    assert letter == DeadLetter(
        7, "Account", "alice", "pay", 1, 2, b"\x91\x05", "too little", "", False
    )


def test_what_is_buried_in_a_batch_that_is_thrown_away_is_not(letters: DeadLetters) -> None:
    letters.bury("Account", "alice", "raised")
    letters.begin()
    letters.bury("Account", "bob", "raised")
    assert len(letters.rows) == letters.buried == 1


def test_what_is_retried_or_dropped_is_removed_and_not_counted(letters: DeadLetters) -> None:
    letters.bury("Account", "alice", "raised")
    letters.remove(b"another")
    assert letters.rows[-1] == (Table.DEAD, b"another", None)
    assert letters.buried == 1
