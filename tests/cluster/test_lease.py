"""When the holder of a lease counts as gone, whatever servers, machines and processes do with time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.runtime.cluster.lease import NS, Judge, Lease, ahead_s, decoded, holds_until

MS = 1_000_000
LEASE_S = 1.0
LOOK, SPAN = 50 * MS, 100 * MS

delays = st.integers(0, 700)
"""Milliseconds."""


def ms(number: int) -> int:
    return number * MS


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[tuple[int, int]], list[tuple[int, int, int, bool]]]:
    """Renewals (asked, done) and looks (asked, done, answered, heard), on one clock."""
    now, renewals = 0, []
    for gap, takes in draw(st.lists(st.tuples(delays, delays), min_size=1, max_size=12)):
        asked = now + ms(gap)
        now = asked + ms(takes)
        renewals.append((asked, now))
    now, looks = 0, []
    for gap, there, back, heard in draw(
        st.lists(
            st.tuples(delays, delays, delays, st.sampled_from([True, True, True, False])),
            max_size=60,
        )
    ):
        asked = now + ms(gap)
        now = asked + ms(there + back)
        looks.append((asked, asked + ms(there), now, heard))
    return renewals, looks


@given(histories())
def test_who_counts_as_gone_has_given_the_lease_up_before(
    history: tuple[list[tuple[int, int]], list[tuple[int, int, int, bool]]],
) -> None:
    renewals, looks = history
    judge = Judge(10 * NS)
    for asked, done, answered, heard in looks:
        seen = [asked for asked, done_ in renewals if done_ <= done]
        if not heard or not seen:
            judge.missed()
            continue
        judge.saw(len(seen), asked_ns=asked, answered_ns=answered)
        if judge.gone(LEASE_S):
            assert holds_until(seen[-1], LEASE_S) < asked


def look(judge: Judge, revision: int, at: int, takes: int = 0) -> int:
    judge.saw(revision, asked_ns=at, answered_ns=at + takes)
    return at + takes


@given(st.integers(1, 40))
def test_a_holder_that_is_silent_is_found_gone_a_look_after_its_lease(renewed: int) -> None:
    judge, now = Judge(SPAN), 0
    for revision in range(1, renewed + 1):
        now = look(judge, revision, now + LOOK)
        assert not judge.gone(LEASE_S)
    silent = now
    while not judge.gone(LEASE_S):
        now = look(judge, renewed, now + LOOK)
    assert now - silent == LEASE_S * NS
    assert holds_until(silent, LEASE_S) < now


@given(st.lists(st.integers(1, 19), min_size=1))
def test_a_holder_that_renews_within_its_lease_is_never_gone(looks: list[int]) -> None:
    judge, now = Judge(SPAN), 0
    for revision, count in enumerate(looks, start=1):
        for _ in range(count):
            now = look(judge, revision, now + LOOK)
            assert not judge.gone(LEASE_S)


def test_time_in_which_nobody_could_renew_counts_against_nobody() -> None:
    judge, now = Judge(SPAN), 0
    for _ in range(100):
        now = look(judge, 7, now + LOOK)
        judge.missed()
    assert not judge.gone(LEASE_S)


def test_time_in_which_the_judge_was_stopped_counts_as_one_look() -> None:
    judge = Judge(SPAN)
    look(judge, 7, 0)
    look(judge, 7, 3600 * NS)
    assert not judge.gone(LEASE_S)


def test_an_answer_that_is_long_on_its_way_says_nothing_of_the_time_after_it_was_given() -> None:
    judge = Judge(10 * NS)
    answered = look(judge, 7, 0, takes=5 * NS)
    look(judge, 7, answered + ms(999), takes=5 * NS)
    assert not judge.gone(LEASE_S)
    look(judge, 7, answered + ms(1000))
    assert judge.gone(LEASE_S)


def test_a_revision_that_comes_back_begins_anew() -> None:
    judge, now = Judge(SPAN), 0
    for _ in range(19):
        now = look(judge, 7, now + LOOK)
    now = look(judge, 6, now + LOOK)  # From a server that lags behind.
    now = look(judge, 7, now + LOOK)
    look(judge, 7, now + LOOK)
    assert not judge.gone(LEASE_S)


@pytest.mark.parametrize("off_s", [-3600.0, 0.0, 3600.0])
def test_a_clock_that_is_far_off_is_seen_by_a_renewal(off_s: float) -> None:
    judge = Judge(SPAN)
    assert not judge.saw(1, asked_ns=0, answered_ns=0), "when it was written is not known"
    assert not judge.saw(1, asked_ns=LOOK, answered_ns=LOOK)
    assert judge.saw(2, asked_ns=2 * LOOK, answered_ns=2 * LOOK)
    judge.missed()
    assert not judge.saw(3, asked_ns=3 * LOOK, answered_ns=3 * LOOK), "it may be old"
    lease = Lease(host="h1", nonce="aa", pid=7, lease_s=10.0, time_s=1_000_000.0 + off_s)
    assert ahead_s(lease, 1_000_002.0) == (off_s - 2.0 if off_s else 0.0)


def test_a_lease_reads_as_it_was_written_and_nothing_else_does() -> None:
    lease = Lease(host="h1", nonce="aa", pid=7, address="10.0.0.1", lease_s=10.0)
    assert decoded(lease.encoded()) == lease
    for other in (b"", b"{}", b'{"host":"h1"}', b"\xff"):
        assert decoded(other) is None


def test_a_renewal_that_took_several_tries_says_nothing_of_its_host_s_clock() -> None:
    """It stands there when the servers are back, and is as old as their absence was long."""
    assert ahead_s(Lease(host="b", nonce="b", pid=1, lease_s=10.0, time_s=0.0), 1_000_000.0) == 0.0
