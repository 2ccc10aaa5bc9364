"""Which packet is answered how: the table holds every case, and what it must never do."""

from itertools import product

import pytest

from skerry.runtime.core.streams.handshake import TABLE, Reaction, reaction
from skerry.runtime.core.wire import Kind

OURS, KNOWN = 5, 7


def answer(kind: Kind, sender: int, receiver: int) -> Reaction:
    return reaction(kind, sender=sender, known=KNOWN, receiver=receiver, ours=OURS)


def test_every_kind_of_packet_has_an_answer_for_every_life() -> None:
    assert set(TABLE) == set(product(Kind, (True, False)))


@pytest.mark.parametrize(("kind", "sender"), list(product(Kind, (KNOWN - 1, KNOWN, KNOWN + 1))))
def test_a_packet_for_a_later_life_stops_us_whatever_it_says(kind: Kind, sender: int) -> None:
    assert answer(kind, sender, OURS + 1) is Reaction.STOP


@pytest.mark.parametrize("receiver", [OURS - 1, OURS])
def test_a_replaced_sender_is_told_so_and_nothing_it_says_counts(receiver: int) -> None:
    told = {kind: answer(kind, KNOWN - 1, receiver) for kind in Kind}
    assert told.pop(Kind.FENCED) is Reaction.STEP_DOWN, "it may speak for who replaced us"
    assert set(told.values()) == {Reaction.FENCE}


def test_frames_and_acks_count_only_between_lives_that_know_each_other() -> None:
    counts = {Reaction.TAKE, Reaction.HEAR}
    for kind, sender, receiver in product(Kind, (KNOWN, KNOWN + 1), (OURS - 1, OURS)):
        both = sender == KNOWN and receiver == OURS and kind in (Kind.FRAME, Kind.ACK)
        assert (answer(kind, sender, receiver) in counts) == both


def test_a_life_that_is_new_is_adopted_by_its_hello_or_its_resume_only() -> None:
    for receiver in (OURS - 1, OURS):
        assert answer(Kind.HELLO, KNOWN + 1, receiver) is Reaction.ANSWER
        assert answer(Kind.RESUME, KNOWN + 1, receiver) is Reaction.GO_ON
        for kind in (Kind.FRAME, Kind.ACK):
            assert answer(kind, KNOWN + 1, receiver) is Reaction.GREET
