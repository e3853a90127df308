"""Finds near-duplicates of earlier grasps: greedy in row order, exact, and independent of how rows are batched."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from bimangrasp.errors import InputError
from bimangrasp.poses import Poses, check_poses
from bimangrasp.validation.config import DuplicateThresholds


def near_duplicates(poses: Poses, thresholds: DuplicateThresholds, kept: Poses | None = None) -> Bool[np.ndarray, " n"]:
    """Returns which grasps are near-duplicates of an earlier grasp that is kept.

    Greedy: grasp n is a duplicate when it is within the thresholds of a grasp of `kept` or of an earlier grasp that is
    no duplicate itself, so the result depends on the order. Pairs are compared independently in float64: rows that come
    in parts, with the rows kept so far as `kept`, get the same mask as all rows in one call. Takes O(N * kept) time.

    Args:
        poses: N grasps in the order in which they are taken.
        thresholds: largest differences of duplicates, inclusive.
        kept: earlier grasps, none of them a duplicate.

    Returns:
        True for a duplicate.

    Raises:
        InputError: shapes that do not fit, or a pose that is not finite.
    """
    table = _checked_table(poses)
    before = table[:0] if kept is None else _checked_table(kept)
    if before.shape[1:] != table.shape[1:]:
        raise InputError(f"kept grasps have {kept.joints.shape[2]} joints a hand, new ones {poses.joints.shape[2]}")
    pool = np.concatenate((before, np.empty_like(table)))
    count, mask = len(before), np.zeros(len(table), bool)
    for row, grasp in enumerate(table):
        mask[row] = _is_close_to_any(grasp, pool[:count], thresholds)
        if not mask[row]:
            pool[count] = grasp
            count += 1
    return mask


def unique_count(poses: Poses, thresholds: DuplicateThresholds) -> int:
    """Returns how many grasps `near_duplicates` keeps; both hands count as one grasp."""
    return int((~near_duplicates(poses, thresholds)).sum())


def _checked_table(poses: Poses) -> Float[np.ndarray, "n hand dof"]:
    """Returns translation, the nine numbers of the rotation and the joints of each hand in one row, float64."""
    check_poses(poses)
    parts = (poses.translation, poses.rotation.reshape(poses.count, 2, 9), poses.joints)
    return np.concatenate(parts, axis=2, dtype=np.float64)


def _is_close_to_any(grasp: np.ndarray, kept: np.ndarray, thresholds: DuplicateThresholds) -> bool:
    """Whether a grasp is within the thresholds of a kept one.

    Sums run over their terms in a fixed order. The angle t between two rotations follows from
    |R - S|^2 = 8 sin^2(t/2), which is exact for equal rotations.
    """
    for hand in range(2):  # translations exclude most; rotations and joints are compared for the rest
        difference = grasp[hand, :3] - kept[:, hand, :3]
        kept = kept[_sum_of_squares(difference) <= thresholds.translation**2]
    largest_chord = 8 * np.sin(min(thresholds.rotation, np.pi) / 2) ** 2
    difference = grasp[:, 3:] - kept[:, :, 3:]
    is_near = (np.abs(difference[..., 9:]) <= thresholds.joints).all(axis=(1, 2))
    for hand in range(2):
        is_near &= _sum_of_squares(difference[:, hand, :9]) <= largest_chord
    return bool(is_near.any())


def _sum_of_squares(rows: np.ndarray) -> np.ndarray:
    """Returns the sum of squares of each row, its terms in order."""
    return sum(column * column for column in rows.T)
