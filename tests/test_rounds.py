"""Which rounds a quota needs: laws over random histories, then examples."""

from hypothesis import given
from hypothesis import strategies as st

from scale.state import rounds
from scale.state.rounds import Goal

history = st.dictionaries(st.integers(0, 12), st.integers(0, 4), max_size=10)
flight = st.sets(st.integers(0, 12), max_size=4)


@given(history, flight, st.integers(1, 40), st.integers(1, 30))
def test_what_is_handed_out_is_neither_finished_nor_in_flight_nor_beyond_max_rounds(done, flying, quota, most):
    chosen = list(rounds.needed(done, flying - set(done), Goal(quota), 4, most))
    assert chosen == sorted(set(chosen)) and all(r < most for r in chosen)
    assert not set(chosen) & (set(done) | flying - set(done))


@given(history, flight, st.integers(1, 40))
def test_a_gap_below_the_cut_is_always_handed_out_or_in_flight(done, flying, quota):
    flying = flying - set(done)
    reached = rounds.prefix(done, Goal(quota))
    gap = reached.rounds
    if reached.kept < quota and gap not in flying:
        assert rounds.first(rounds.needed(done, flying, Goal(quota), 4, 100)) == gap


@given(history, st.integers(1, 40))
def test_nothing_is_handed_out_once_the_prefix_reaches_the_quota(done, quota):
    if rounds.prefix(done, Goal(quota)).kept == quota:
        assert list(rounds.needed(done, (), Goal(quota), 4, 100)) == []


@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 40))
def test_prefix_is_cut_exactly_at_the_quota(accepted, quota):
    found = rounds.prefix(dict(enumerate(accepted)), Goal(quota))
    assert found.kept == min(quota, sum(accepted))
    assert sum(accepted[: found.rounds - 1]) < quota or found.rounds == 0


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(1, 20), st.integers(1, 20))
def test_a_larger_quota_extends_the_prefix(accepted, small, more):
    done = dict(enumerate(accepted))
    assert rounds.prefix(done, Goal(small)).rounds <= rounds.prefix(done, Goal(small + more)).rounds


def test_a_prefix_waits_at_a_gap():
    assert rounds.prefix({0: 4, 2: 4}, Goal(8)) == rounds.Prefix(1, 4, 4, 0, False)


def test_a_failed_round_in_flight_at_the_quota_is_handed_out_again():
    assert list(rounds.needed({1: 4, 2: 4}, {0}, Goal(8), 4, 10)) == []
    assert list(rounds.needed({1: 4, 2: 4}, set(), Goal(8), 4, 10)) == [0]


def test_little_surplus_at_full_yield_and_more_rounds_at_low_yield():
    assert list(rounds.needed({}, (), Goal(24), 16, 1000)) == [0, 1]
    assert len(list(rounds.needed({0: 1, 1: 1, 2: 1}, (), Goal(24), 16, 1000))) == 5
    assert rounds.first(rounds.needed(dict.fromkeys(range(5), 0), {5}, Goal(1), 16, 1000)) is None
    assert rounds.first(rounds.needed(dict.fromkeys(range(50), 0), {50}, Goal(1), 16, 1000)) == 51


def test_skipped_rounds_count_towards_max_rounds():
    assert list(rounds.needed({0: 0, 1: 0}, (), Goal(5), 4, 2)) == []


def test_seeds_and_indices():
    assert rounds.seed_of(12345, 3, 7) == 312352
    assert rounds.assign_indices({"b": 0, "x": 1}, ["a", "b", "c"]) == {"a": 2, "c": 3}
    assert rounds.assign_indices({"b": 1}, ["a", "b", "c"]) == {"a": 0, "c": 2}  # as it was before the journal was lost
    assert rounds.assign_indices({}, ["b", "a"]) == {"b": 0, "a": 1}
