"""Which rounds a quota needs: laws over random histories, then examples."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scale.merge.round_records import JudgedRound
from scale.state.records import RunRequest
from scale.state.resume import assign_indices
from scale.state.round_table import Prefix, RoundTable

history = st.dictionaries(st.integers(0, 12), st.integers(0, 4), max_size=10)
flight = st.sets(st.integers(0, 12), max_size=4)


def table(done, flying=(), quota=5):
    """Rounds of which some are done, with so many accepted rows, and some are in flight."""
    made = RoundTable(quota)
    for round_id, accepted in done.items():
        made.finish(round_id, JudgedRound(0, 4, 4, {}, "", None, accepted))
    for round_id in flying:
        made.hand_out(round_id)
    return made


def needed(done, flying, quota, batch, max_rounds):
    return list(table(done, flying, quota).needed(batch, max_rounds))


@given(history, flight, st.integers(1, 40), st.integers(1, 30))
def test_what_is_handed_out_is_neither_finished_nor_in_flight_nor_beyond_max_rounds(done, flying, quota, most):
    chosen = needed(done, flying - set(done), quota, 4, most)
    assert chosen == sorted(set(chosen)) and all(r < most for r in chosen)
    assert not set(chosen) & (set(done) | flying - set(done))


@given(history, flight, st.integers(1, 40))
def test_a_gap_below_the_cut_is_always_handed_out_or_in_flight(done, flying, quota):
    flying = flying - set(done)
    reached = table(done, quota=quota).prefix
    gap = reached.rounds
    if reached.kept < quota and gap not in flying:
        assert needed(done, flying, quota, 4, 100)[0] == gap


@given(history, st.integers(1, 40))
def test_nothing_is_handed_out_once_the_prefix_reaches_the_quota(done, quota):
    if table(done, quota=quota).prefix.kept == quota:
        assert needed(done, (), quota, 4, 100) == []


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 40))
def test_prefix_is_cut_exactly_at_the_quota(accepted, quota):
    reached = table(dict(enumerate(accepted)), quota=quota).prefix
    assert reached.kept == min(quota, sum(accepted))
    assert sum(accepted[: reached.rounds - 1]) < quota or reached.rounds == 0


@pytest.mark.slow
@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 20), st.integers(1, 20))
def test_a_larger_quota_extends_the_prefix(accepted, small, more):
    done = dict(enumerate(accepted))
    assert table(done, quota=small).prefix.rounds <= table(done, quota=small + more).prefix.rounds


def test_a_prefix_waits_at_a_gap():
    assert table({0: 4, 2: 4}, quota=8).prefix == Prefix(1, 4, 0, False)


def test_a_failed_round_in_flight_at_the_quota_is_handed_out_again():
    assert needed({1: 4, 2: 4}, {0}, 8, 4, 10) == []
    assert needed({1: 4, 2: 4}, set(), 8, 4, 10) == [0]


def test_little_surplus_at_full_yield_and_more_rounds_at_low_yield():
    assert needed({}, (), 24, 16, 1000) == [0, 1]
    assert len(needed({0: 1, 1: 1, 2: 1}, (), 24, 16, 1000)) == 5
    assert needed(dict.fromkeys(range(5), 0), {5}, 1, 16, 1000) == []
    assert needed(dict.fromkeys(range(50), 0), {50}, 1, 16, 1000)[0] == 51


def test_skipped_rounds_count_towards_max_rounds():
    assert needed({0: 0, 1: 0}, (), 5, 4, 2) == []


def test_seeds_and_indices():
    request = SimpleNamespace(config=SimpleNamespace(seed_base=12345))
    assert RunRequest.seed(request, 3, 7) == 312352
    assert assign_indices({"b": 0, "x": 1}, ["a", "b", "c"]) == {"a": 2, "c": 3}
    assert assign_indices({"b": 1}, ["a", "b", "c"]) == {"a": 0, "c": 2}  # as it was before the journal was lost
    assert assign_indices({}, ["b", "a"]) == {"b": 0, "a": 1}
