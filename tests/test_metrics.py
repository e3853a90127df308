from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.poses import Poses
from bimangrasp.validation import summary as metrics
from bimangrasp.validation.duplicates import unique_count

JOINTS = 5


def poses(vectors: np.ndarray) -> Poses:
    """The poses whose rows [translation, axis-angle, joints] of both hands are these."""
    rows = vectors.reshape(len(vectors), 2, 6 + JOINTS)
    turns = Rotation.from_rotvec(rows[..., 3:6].reshape(-1, 3)).as_matrix().reshape(len(rows), 2, 3, 3)
    return Poses(rows[..., :3], turns, rows[..., 6:])


def whitened(count: int, dimensions: int, seed: int = 1) -> np.ndarray:
    """Samples whose mean is exactly 0 and whose covariance is exactly the identity."""
    draws = np.random.default_rng(seed).normal(size=(count, dimensions))
    orthogonal = np.linalg.qr(draws - draws.mean(axis=0))[0]
    return orthogonal * math.sqrt(count)


def test_the_first_component_has_its_share_of_a_known_covariance():
    deviation = np.linspace(0.1, 0.4, 2 * (6 + JOINTS))
    turn = np.linalg.qr(np.random.default_rng(2).normal(size=(22, 22)))[0]
    vectors = whitened(200, 22) * deviation @ turn.T * 0.5 + 0.1  # axis-angles stay below half a turn
    assert np.linalg.norm(vectors.reshape(-1, 11)[:, 3:6], axis=1).max() < math.pi
    expected = deviation[-1] ** 2 / (deviation**2).sum()
    assert metrics.first_component_share(poses(vectors)) == pytest.approx(expected, rel=1e-9)


def test_diversity_is_that_of_all_parts_of_both_hands():
    for column in range(22):
        vectors = whitened(50, 22) * 0.01
        vectors[:, column] *= 3
        assert metrics.first_component_share(poses(vectors)) == pytest.approx(9 / 30, rel=1e-9), column


def test_grasps_along_one_line_have_one_component_and_one_grasp_has_none():
    line = np.linspace(0, 1, 7)[:, None] * np.linspace(-0.5, 0.5, 22)
    assert metrics.first_component_share(poses(line)) == pytest.approx(1)
    assert math.isnan(metrics.first_component_share(poses(line[:1])))
    assert math.isnan(metrics.first_component_share(poses(line[:0])))


def test_a_dimension_that_spans_a_rounding_has_two_bins():
    near = np.full((4, 22), 0.5)
    near[2:, 8] = np.nextafter(0.5, 1)
    assert metrics.histogram_entropy(poses(near)) == pytest.approx(1 / 22)


def test_bins_are_those_of_numpys_histogram():
    vectors = 0.3 * np.random.default_rng(5).normal(size=(200, 22))
    columns = vectors.reshape(200, 2, 11)[:, :, [0, 1, 2, 6, 7, 8, 9, 10]].reshape(200, -1)
    counts = [np.histogram(column, metrics.ENTROPY_BINS)[0] / 200 for column in columns.T]
    wanted = [-sum(share * math.log2(share) for share in count if share) for count in counts]
    assert [metrics._entropy(column) for column in columns.T] == pytest.approx(wanted)


def test_entropy_is_in_bits_and_ends_at_five():
    steps = np.repeat((np.arange(32) + 0.5) / 32, 3)[:, None] * np.ones(22)
    assert metrics.histogram_entropy(poses(steps)) == pytest.approx(5)
    halves = np.repeat([0.0, 1.0], 8)[:, None] * np.ones(22)
    assert metrics.histogram_entropy(poses(halves)) == pytest.approx(1)


def test_entropy_is_the_mean_over_the_dimensions_whatever_their_range():
    vectors = np.zeros((96, 22))
    vectors[:, :11] = np.repeat((np.arange(32) + 0.5) / 32, 3)[:, None] * np.linspace(0.01, 1, 11)
    assert metrics.histogram_entropy(poses(vectors)) == pytest.approx(2.5)


def test_entropy_of_normal_joints_is_that_of_a_binned_gaussian():
    values = np.random.default_rng(3).normal(size=200_000)
    found = metrics._entropy(values)
    expected = 0.5 * math.log2(2 * math.pi * math.e) - math.log2(np.ptp(values) / 32)
    assert found == pytest.approx(expected, abs=0.01)


def test_order_does_not_matter_to_diversity_and_entropy():
    vectors = np.random.default_rng(4).normal(size=(60, 22)) * 0.3
    shuffled = np.random.default_rng(5).permutation(vectors)
    for metric in (metrics.first_component_share, metrics.histogram_entropy):
        assert metric(poses(vectors)) == pytest.approx(metric(poses(shuffled)), rel=1e-9)


def test_without_grasps_there_is_no_number():
    nothing = poses(np.zeros((0, 22)))
    assert math.isnan(metrics.histogram_entropy(nothing)) and math.isnan(metrics.first_component_share(nothing))
    assert math.isnan(metrics.grasp_success_rate(np.zeros(0, bool))) and math.isnan(metrics.object_success_rate([]))
    assert math.isnan(metrics.both_hands_share(np.array([False]), np.array([[True, True]])))


def test_a_pose_that_is_not_finite_is_refused_by_its_number():
    vectors = np.zeros((3, 22))
    broken = poses(vectors)
    broken.joints[1, 0, 2] = np.nan
    for metric in (metrics.first_component_share, metrics.histogram_entropy):
        with pytest.raises(InputError, match="grasp 1 of 3"):
            metric(broken)


def test_links_within_two_millimeters_of_either_hand_are_counted():
    distance = np.full((2, 2, 4), 0.05)
    distance[0, 0, :2] = 0.002, 0.00201
    distance[0, 1] = -0.01, 0.001, np.inf, 0.0
    assert metrics.contact_link_number(distance).tolist() == [4, 0]


def test_consistency_is_the_spread_of_the_fingers_nearest_links():
    finger = np.array([-1, 0, 0, 1, 1])
    distance = np.full((3, 2, 5), 0.5)
    distance[0] = [[-0.02, 0.004, 0.001, 0.002, 0.009], [0.0, 0.003, 0.5, -0.001, 0.004]]
    distance[1] = [[0.0, 0.5, 0.5, 0.006, 0.5], [0.0, 0.02, 0.3, 0.03, 0.5]]
    np.testing.assert_allclose(metrics.contact_distance_consistency(distance, finger), [0.004, 0.004, 0.0], atol=1e-15)


def test_success_is_counted_by_grasp_by_object_and_by_hands():
    holds = [np.array([True, False, True, True]), np.zeros(3, bool), np.zeros(0, bool)]
    assert metrics.grasp_success_rate(holds[0]) == 0.75
    assert metrics.object_success_rate(holds) == pytest.approx(1 / 3)
    bears = np.array([[True, True], [True, True], [False, True], [True, False]])
    assert metrics.both_hands_share(holds[0], bears) == pytest.approx(1 / 3)


def test_unique_grasps_are_counted_at_the_published_thresholds():
    vectors = np.zeros((4, 22))
    vectors[1, 0], vectors[2, 6], vectors[3, 14] = 0.015, 0.15, math.radians(10)
    counts = [unique_count(poses(vectors), thresholds) for thresholds in metrics.UNIQUE_THRESHOLDS]
    assert counts == [1, 2, 4]
