"""Of each ask the first outcome counts, whenever the others come."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.core.commit import slot_prefix
from skerry.runtime.core.events import Table
from skerry.runtime.core.ownership import slot_of
from skerry.runtime.core.tables.asks import Ask, Asks
from skerry.runtime.core.tables.table import Stamp
from tests.core.effort import effort, grows_like

STAMP = Stamp(1, 1)


def an_ask(number: int) -> Ask:
    """One of a few entities'."""
    key = f"k{number % 3}"
    return Ask("Shop", key, an_id(key, number), True, None, None, None)


def an_id(key: str, number: int) -> bytes:
    """An id of the entity's slot."""
    return slot_prefix(slot_of("Shop", key)) + b"%04d" % number


def take(asks: Asks, number: int) -> bool:
    """Whether an outcome of it counts."""
    ask = an_ask(number)
    return asks.take(ask.type, ask.key, ask.id) is not None


def seal(asks: Asks) -> int:
    """End the batch; how many rows it has changed."""
    rows = list(asks.rows(STAMP))
    asks.sealed(STAMP)
    return len(rows)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(0, 9)),
        st.tuples(st.just("told"), st.integers(0, 9)),
        st.tuples(st.just("forgotten"), st.integers(0, 2)),
        st.tuples(st.sampled_from(["seal", "undo", "restart"]), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_an_ask_has_one_outcome_in_whatever_batches_they_come(
    steps: list[tuple[str, int]],
) -> None:
    asks, rows = Asks(), dict[bytes, bytes]()
    pending: set[int] = set()
    sealed: set[int] = set()
    asked = 0
    for step, number in steps:
        match step:
            case "ask":
                asked += 1  # Ids are never used again.
                asks.add(an_ask(asked))
                pending.add(asked)
            case "told":
                number %= asked + 1
                assert take(asks, number) == (number in pending)
                pending.discard(number)
            case "forgotten":
                taken = {int(ask.id[2:]) for ask in asks.take_all("Shop", f"k{number}")}
                assert taken == {ask for ask in pending if ask % 3 == number}
                pending -= taken
            case "seal":
                for table, key, value in asks.rows(STAMP):
                    assert table == Table.ASK
                    if value is None:
                        del rows[key]
                    else:
                        rows[key] = bytes(value)
                asks.sealed(STAMP)
                sealed = set(pending)
                assert len(asks) == len(sealed) == len(rows)
            case "undo" | "restart":
                asks.undo()
                pending = set(sealed)
                if step == "restart":
                    asks = Asks()
                    asks.load((Table.ASK, key, row) for key, row in rows.items())
    assert {int(msgspec.msgpack.decode(row, type=Ask).id[2:]) for row in rows.values()} == sealed


@pytest.mark.parametrize("between", [True, False])
def test_a_second_outcome_in_one_batch_is_counted_and_nothing_else(between: bool) -> None:
    asks = Asks()
    asks.add(an_ask(1))
    if between:
        seal(asks)
    assert take(asks, 1)
    assert not take(asks, 1)
    assert asks.late == 1


@pytest.mark.parametrize("between", [True, False])
def test_an_ask_that_was_answered_in_its_own_batch_leaves_no_row(between: bool) -> None:
    asks = Asks()
    asks.add(an_ask(1))
    if between:
        assert seal(asks) == 1
    assert take(asks, 1)
    assert len(list(asks.rows(STAMP))) == (1 if between else 0)


@pytest.mark.parametrize("between", [True, False])
def test_to_forget_again_and_again_costs_no_second_look_at_what_was_asked(between: bool) -> None:
    def ask_and_forget(count: int) -> None:
        asks = Asks()
        for number in range(count):
            asks.add(Ask("Shop", "k", an_id("k", number), True, None, None, None))
        if between:
            seal(asks)
        assert sum(len(asks.take_all("Shop", "k")) for _ in range(count)) == count

    few, many = (effort(lambda n=n: ask_and_forget(n)) for n in (100, 400))  # type: ignore[misc]
    assert grows_like(few, many, 4)
