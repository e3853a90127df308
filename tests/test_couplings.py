"""Joints that follow others: closed forms, slopes against finite differences, ranges, and what a hash says of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from coupled_hands import SHADOW, coordinates, coupled_shadow, shadow_with
from hypothesis import given
from hypothesis import strategies as st
from scene import built_in_hands

from bimangrasp.errors import InputError
from bimangrasp.hands.coupled_joints import CoupledJoints
from bimangrasp.hands.couplings import FIXED, Couplings, Follower, Tendon, coordinate_table, coupling_rules
from bimangrasp.hands.description import mirror, on_couplings
from bimangrasp.hands.model import HandModel

LOWER, UPPER = (-0.3, 0.0, 0.2, -1.0, 0.0, -0.5), (1.2, 0.8, 1.0, 1.0, 1.5, 0.5)
ALL_KINDS = Couplings(
    (Tendon("t", (0, 1, 2), (0.5, 0.2, -0.3)), Tendon("s", (4, 5), (0.6, 0.4))),
    (Follower(3, 6, (-0.1, 0.7, 0.2, -0.05, 0.3)), Follower(7, 6, (0.1, 1.1, 0.2, 0.0, 0.0))),
)
"""Six joints and two tendons: a joint that follows one, and the other one that follows it too."""


def values_between(table, count=2001, beyond=0.2):
    low, high = table.lower - beyond, table.upper + beyond
    return low + (high - low) * np.linspace(0, 1, count)[:, None]


@given(
    st.lists(st.sampled_from([-1.5, -0.5, 0.25, 1.0, 2.0]), min_size=2, max_size=4),
    st.lists(st.tuples(st.floats(-1, 0.5), st.floats(0.1, 2)), min_size=4, max_size=4),
)
def test_joints_share_a_tendon_by_their_coefficients_until_each_meets_its_limit(coefficients, ranges):
    count, size = len(coefficients), sum(map(abs, coefficients))
    c = np.array(coefficients) / size
    lower, width = map(np.array, zip(*ranges[:count], strict=True))
    upper = lower + width
    table = coordinate_table(Couplings((Tendon("t", tuple(range(count)), tuple(c)),)), tuple(lower), tuple(upper))
    assert table.lower[0] == pytest.approx(np.minimum(c * lower, c * upper).sum())
    assert table.upper[0] == pytest.approx(np.maximum(c * lower, c * upper).sum())
    lengths = values_between(table)
    joints = table.joints_at(lengths)
    np.testing.assert_allclose(joints @ c, lengths[:, 0], atol=1e-12)
    inside = (lengths[:, 0] > table.lower[0]) & (lengths[:, 0] < table.upper[0])
    assert (joints[inside] >= lower - 1e-9).all() and (joints[inside] <= upper + 1e-9).all()
    for row in joints[inside]:  # those that are at no limit have one pull in common
        free = (row > lower + 1e-9) & (row < upper - 1e-9)
        pulls = (row / c)[free]
        assert pulls.size == 0 or np.ptp(pulls) < 1e-9
        for joint in np.flatnonzero(~free):  # and those that are would be beyond it with that pull
            if pulls.size:
                assert np.clip(c[joint] * pulls[0], lower[joint], upper[joint]) == pytest.approx(row[joint], abs=1e-9)
    outside = np.diff(joints[~inside & (lengths[:, 0] > table.upper[0])], axis=0)
    np.testing.assert_allclose(outside, outside[:1] * np.ones((len(outside), 1)), atol=1e-12)
    np.testing.assert_allclose(np.sign(outside[0]), np.sign(c), err_msg="beyond its range a tendon goes on")


def test_two_joints_of_equal_ranges_share_a_tendon_evenly():
    table = coordinate_table(Couplings((Tendon("t", (0, 1), (0.5, 0.5)),)), (0.0, 0.0), (1.5, 1.0))
    np.testing.assert_allclose(table.joints_at(np.array([[0.4], [1.0], [1.2]])), [[0.4, 0.4], [1.0, 1.0], [1.4, 1.0]])


def test_polynomials_and_chains_are_those_of_the_closed_form():
    table = coordinate_table(ALL_KINDS, LOWER, UPPER)
    pull = values_between(table)
    joints = table.joints_at(pull)
    t = pull[:, 0]
    np.testing.assert_allclose(joints[:, 3], -0.1 + 0.7 * t + 0.2 * t**2 - 0.05 * t**3 + 0.3 * t**4)
    np.testing.assert_allclose(joints[:, 4:] @ [0.6, 0.4], 0.1 + 1.1 * t + 0.2 * t**2)
    np.testing.assert_allclose(joints[:, :3] @ [0.5, 0.2, -0.3], t)
    assert len(table.free) == 1 and table.moved == [[0, 1, 2, 3, 4, 5]]


def test_the_range_of_a_coordinate_is_that_of_all_joints_that_follow():
    table = coordinate_table(ALL_KINDS, LOWER, UPPER)
    inside = np.linspace(table.lower[0], table.upper[0], 999)[:, None]
    joints = table.joints_at(inside)
    assert (joints >= np.array(LOWER) - 1e-6).all() and (joints <= np.array(UPPER) + 1e-6).all()
    for end, step in ((table.lower, -1e-5), (table.upper, 1e-5)):
        beyond = table.joints_at(end + step)
        assert (beyond < np.array(LOWER)).any() or (beyond > np.array(UPPER)).any(), "the range could be wider"


def test_of_a_range_in_parts_the_widest_counts():
    square = Couplings((), (Follower(1, 0, (0.0, 0.0, 1.0, 0.0, 0.0)),))
    table = coordinate_table(square, (-2.0, 0.25), (1.5, 1.0))  # -1 to -0.5, or 0.5 to 1: equally wide but for rounding
    assert abs(abs(table.upper[0] - table.lower[0]) - 0.5) < 1e-6
    narrower = coordinate_table(square, (-2.0, 0.25), (0.8, 1.0))
    assert narrower.lower[0] == pytest.approx(-1) and narrower.upper[0] == pytest.approx(-0.5)


def test_limits_that_contradict_a_coupling_are_told():
    with pytest.raises(ValueError, match="1"):
        coordinate_table(Couplings((), (Follower(1, 0, (5.0, 1.0, 0.0, 0.0, 0.0)),)), (0.0, 0.0), (1.0, 1.0))


def test_joints_that_are_fixed_have_no_coordinate():
    table = coordinate_table(Couplings((), (Follower(1, FIXED, (0.3, 0, 0, 0, 0.0)),)), (0.0, 0.0), (1.0, 1.0))
    assert table.free.tolist() == [0] and table.moved == [[0]]
    assert table.joints_at(np.array([0.7])).tolist() == [0.7, 0.3]


def test_both_hands_in_a_batch_are_the_table_of_each():
    hands = coupled_shadow()
    given = coordinates(hands)
    joints = hands.joints_at(given)
    for side, hand in enumerate(hands.descriptions):
        np.testing.assert_allclose(joints[:, side], hand.coordinates.joints_at(given[:, side].numpy()), atol=1e-13)
    torch.testing.assert_close(hands.coordinates_of(joints), given, rtol=0, atol=1e-13)


def test_slopes_are_those_of_finite_differences():
    hands = coupled_shadow()
    given = coordinates(hands)
    found, step = hands.coupled.jacobian(given), 1e-6
    for c in range(hands.coordinate_count):
        way = torch.zeros(hands.coordinate_count, dtype=torch.float64)
        way[c] = step
        slope = (hands.joints_at(given + way) - hands.joints_at(given - way)) / (2 * step)
        torch.testing.assert_close(found[..., c], slope, rtol=1e-6, atol=1e-8)
    assert (found != 0).any(dim=0).any(dim=0).sum() == 21, "one coordinate for each joint but the fixed one"


def test_a_gradient_comes_back_through_the_joints():
    hands = coupled_shadow()
    given = coordinates(hands, 4).requires_grad_()
    weight = torch.randn((4, 2, 22), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((hands.joints_at(given) * weight).sum(), given)
    expected = (hands.coupled.jacobian(given.detach()).mT @ weight[..., None]).squeeze(-1)
    torch.testing.assert_close(gradient, expected)


def test_single_precision_is_on_the_couplings():
    hands = coupled_shadow(torch.float32)
    joints = hands.joints_at(coordinates(hands)).double()
    again = hands.coupled.joints_at(hands.coupled.coordinates_of(joints))
    assert (again - joints).abs().max() < 1e-6


def test_the_hands_of_a_pair_may_have_other_limits():
    right = shadow_with(SHADOW)
    upper = right.joint_upper.copy()
    upper[2] = 0.4
    left = mirror(replace(right, joint_upper=upper))
    hands = HandModel(left, right, 200, dtype=torch.float64)
    assert isinstance(hands.coupled, CoupledJoints)
    pull = coordinates(hands, beyond=0.0)
    for side, hand in enumerate((left, right)):
        np.testing.assert_allclose(hands.joints_at(pull)[:, side], hand.coordinates.joints_at(pull[:, side].numpy()))
    assert hands.coordinate_upper[0].sum() < hands.coordinate_upper[1].sum()


def test_hands_that_are_coupled_in_different_ways_are_refused():
    right = shadow_with(SHADOW)
    with pytest.raises(InputError, match=r"couplings join other joints.*hand\.couplings"):
        HandModel(mirror(replace(right, couplings=Couplings())), right, 200)


def test_a_mirrored_hand_follows_alike():
    right = shadow_with(SHADOW)
    assert mirror(right).couplings == SHADOW and mirror(mirror(right)).sha256 == right.sha256


def test_a_hash_knows_couplings_and_not_their_absence():
    plain, coupled = built_in_hands("shadow").descriptions[1], shadow_with(SHADOW)
    evenly = SHADOW.tendons[0]._replace(coefficients=(0.5, 0.5))
    other = shadow_with(SHADOW._replace(tendons=(evenly, SHADOW.tendons[1])))
    assert len({plain.sha256, coupled.sha256, other.sha256}) == 3
    assert plain.sha256.startswith("fe716a53"), "the hash of runs that were made before there were couplings"


def test_a_pose_is_put_on_the_couplings_and_a_free_one_stays():
    hand = shadow_with(SHADOW)
    joints = np.random.default_rng(0).uniform(hand.joint_lower, hand.joint_upper, (9, 22))
    placed = on_couplings(hand, joints)
    np.testing.assert_allclose(on_couplings(hand, placed), placed, atol=1e-12)
    assert (placed >= hand.joint_lower - 1e-6).all() and (placed <= hand.joint_upper + 1e-6).all()
    free = replace(hand, couplings=Couplings())
    assert on_couplings(free, joints) is joints


def test_free_hands_compute_nothing():
    hands = built_in_hands("shadow")
    joints = hands.joint_mean[None]
    assert hands.coupled is None and hands.joints_at(joints) is joints and hands.coordinates_of(joints) is joints
    table, hand = hands.descriptions[1].coordinates, hands.descriptions[1]
    assert np.array_equal(table.lower, hand.joint_lower) and np.array_equal(table.upper, hand.joint_upper)
    assert np.array_equal(table.weights, np.eye(22)) and table.free.tolist() == list(range(22))
    assert hands.coordinate_lower is hands.joint_lower and hands.coordinate_count == hands.joint_count


def test_joints_of_other_programs_are_put_on_the_couplings_or_refused():
    hands = coupled_shadow()
    joints = hands.joints_at(coordinates(hands, 3))
    noisy = joints + 3e-4
    placed = hands.onto_couplings(noisy, "a file")
    assert (hands.joints_at(hands.coordinates_of(placed)) - placed).abs().max() < 1e-12
    joints[1, 0, 7] += 0.1
    with pytest.raises(InputError, match=r"a file has joints off the couplings.*'(MFJ0|RFJ0)' of grasp 1"):
        hands.onto_couplings(joints, "a file")


def test_rules_name_all_that_is_coupled():
    rules = coupling_rules(SHADOW, built_in_hands("shadow").joint_names)
    assert rules["FF"] == {"tendon": {"FFJ1": 0.4, "FFJ0": 0.6}}
    assert rules["MFJ0"] == {"follows": "MFJ1", "polynomial": [0.05, 0.8, 0.1, 0.0, 0.02]}
    assert rules["THJ0"] == {"follows": "", "polynomial": [-0.3]}
    assert rules["LF"]["follows"] == "RFJ3" and rules["MFJ2"]["follows"] == "FF"
