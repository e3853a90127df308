from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.poses import Poses, joined
from bimangrasp.validation.config import DuplicateThresholds
from bimangrasp.validation.duplicates import near_duplicates, unique_count

QUARTER = DuplicateThresholds(translation=0.25, rotation=math.radians(30), joints=0.5)


def same(count: int) -> Poses:
    """Equal poses, far from the origin and turned."""
    turn = Rotation.from_rotvec([0.3, -1.2, 0.4]).as_matrix()
    return Poses(np.full((count, 2, 3), 0.5), np.tile(turn, (count, 2, 1, 1)), np.full((count, 2, 3), 0.125))


def drawn(count: int, seed: int) -> Poses:
    """Poses of which many are near others."""
    generator = np.random.default_rng(seed)
    turns = Rotation.from_rotvec(generator.normal(size=(count * 2, 3)) * 0.1).as_matrix()
    return Poses(
        generator.integers(0, 3, (count, 2, 3)) * 0.1, turns.reshape(count, 2, 3, 3), generator.random((count, 2, 3))
    )


def by_hand(poses: Poses, thresholds: DuplicateThresholds) -> list[bool]:
    """The greedy walk as it is defined, one pair at a time, angles by SciPy."""
    kept: list[int] = []
    mask = []
    for n in range(poses.count):
        mask.append(any(alike(poses, n, m, thresholds) for m in kept))
        if not mask[-1]:
            kept.append(n)
    return mask


def alike(poses: Poses, n: int, m: int, thresholds: DuplicateThresholds) -> bool:
    turns = Rotation.from_matrix(poses.rotation[n]) * Rotation.from_matrix(poses.rotation[m]).inv()
    distance = np.linalg.norm(poses.translation[n] - poses.translation[m], axis=1)
    return bool(
        (distance <= thresholds.translation).all()
        and (turns.magnitude() <= thresholds.rotation).all()
        and (np.abs(poses.joints[n] - poses.joints[m]) <= thresholds.joints).all()
    )


@pytest.mark.parametrize("hand", [0, 1])
def test_a_difference_equal_to_its_threshold_is_a_duplicates(hand):
    for part, value in (("translation", 0.25), ("joints", 0.5)):
        poses = same(3)
        getattr(poses, part)[1, hand, 1] += value
        getattr(poses, part)[2, hand, 1] -= np.nextafter(value, 1)
        assert near_duplicates(poses, QUARTER).tolist() == [False, True, False], part


@pytest.mark.parametrize("hand", [0, 1])
def test_rotations_are_told_apart_by_their_angle(hand):
    for axis in np.eye(3):
        poses = same(3)
        for row, degrees in ((1, 30 - 1e-9), (2, -30 - 1e-9)):
            poses.rotation[row, hand] = (
                Rotation.from_rotvec(axis * math.radians(degrees)).as_matrix() @ poses.rotation[0, hand]
            )
        assert near_duplicates(poses, QUARTER).tolist() == [False, True, False]


def test_thresholds_of_zero_find_equal_poses_and_half_a_turn_lets_every_rotation_pass():
    assert near_duplicates(same(3), DuplicateThresholds(0.0, 0.0, 0.0)).tolist() == [False, True, True]
    poses = same(2)
    poses.rotation[1] = poses.rotation[0] @ np.diag([1.0, -1.0, -1.0])
    assert near_duplicates(poses, DuplicateThresholds(0.1, math.pi, 0.1)).tolist() == [False, True]
    assert near_duplicates(poses, DuplicateThresholds(0.1, 4.0, 0.1)).tolist() == [False, True]
    assert not near_duplicates(poses, DuplicateThresholds(0.1, 3.0, 0.1)).any()


def test_the_distance_is_that_of_the_point_and_not_of_its_coordinates():
    poses = same(3)
    poses.translation[1, 0] += [0.2, 0.2, 0.0]
    poses.translation[2, 0] += [0.15, 0.15, 0.1]
    assert near_duplicates(poses, QUARTER).tolist() == [False, False, True]


def test_what_is_like_a_duplicate_alone_is_kept():
    poses = same(3)
    poses.translation[:, 0, 0] = [0.0, 0.2, 0.4]
    assert near_duplicates(poses, QUARTER).tolist() == [False, True, False]
    assert near_duplicates(poses.select(np.array([1, 0, 2])), QUARTER).tolist() == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_mask_is_that_of_the_walk_by_hand(seed):
    poses, thresholds = drawn(150, seed), DuplicateThresholds(0.15, 0.3, 0.6)
    mask = near_duplicates(poses, thresholds).tolist()
    assert mask == by_hand(poses, thresholds) and 0.1 < np.mean(mask) < 0.9


@pytest.mark.slow
@given(st.lists(st.integers(0, 200), max_size=6), st.integers(0, 50))
def test_rows_in_parts_give_the_mask_of_all_at_once(cuts, seed):
    poses, thresholds = drawn(200, seed), DuplicateThresholds(0.15, 0.3, 0.6)
    edges = [0, *sorted(cuts), 200]
    kept, masks = poses.select(slice(0, 0)), []
    for first, end in zip(edges, edges[1:], strict=False):
        part = poses.select(slice(first, end))
        masks.append(near_duplicates(part, thresholds, kept))
        kept = joined([kept, part.select(~masks[-1])])
    assert np.concatenate(masks).tolist() == near_duplicates(poses, thresholds).tolist()


@pytest.mark.slow
@given(st.integers(0, 100))
def test_clusters_that_lie_apart_are_counted_in_any_order(seed):
    generator = np.random.default_rng(seed)
    cluster = generator.integers(0, 9, 80)
    poses = same(80)
    poses.translation[:, 1, 2] = cluster + generator.random(80) * 0.2
    assert unique_count(poses, QUARTER) == len(set(cluster.tolist()))


def test_float32_columns_are_compared_as_they_are():
    poses = Poses(*(part.astype(np.float32) for part in drawn(100, 3)))
    thresholds = DuplicateThresholds(0.15, 0.3, 0.6)
    widened = Poses(*(part.astype(np.float64) for part in poses))
    assert near_duplicates(poses, thresholds).tolist() == near_duplicates(widened, thresholds).tolist()


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="rotation=-0.1 is out of range: wanted a number, 0 or more"):
        DuplicateThresholds(0.1, -0.1, 0.1)
    with pytest.raises(InputError, match="joints=nan"):
        DuplicateThresholds(0.1, 0.1, math.nan)
    broken = same(3)
    broken.translation[2, 0, 0] = np.inf
    with pytest.raises(InputError, match="grasp 2 of 3"):
        near_duplicates(broken, QUARTER)
    with pytest.raises(InputError, match="4 joints a hand, new ones 3"):
        near_duplicates(same(2), QUARTER, same(2)._replace(joints=np.zeros((2, 2, 4))))
    assert near_duplicates(same(0), QUARTER).shape == (0,)
