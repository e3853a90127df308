"""Which grasps are like an earlier one: greedy in row order, exact, and the same in one go or in many."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from bimangrasp.errors import InputError
from bimangrasp.poses import Poses, check_poses
from bimangrasp.validation.config import DuplicateThresholds

_NEW_ROWS, _KEPT_ROWS = 64, 1024  # pairs that are compared at once: 23 MB of differences with 22 joints


def near_duplicates(poses: Poses, thresholds: DuplicateThresholds, kept: Poses | None = None) -> Bool[np.ndarray, " n"]:
    """Returns which grasps are near-duplicates of one that is kept before them.

    Greedy: grasp n is a duplicate when it is within the thresholds of a grasp of `kept` or of an earlier one that is
    no duplicate itself; another order keeps others. Each pair is compared by itself in float64, so rows given in
    parts, with what was kept so far as `kept`, have the same mask as all at once. Takes O(N * kept) time and bounded
    memory.

    Args:
        poses: N grasps in the order in which they are taken.
        thresholds: see there; a difference equal to its threshold is a duplicate's.
        kept: grasps that stand before them and are kept already.

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
    for first in range(0, len(table), _NEW_ROWS):
        block = table[first : first + _NEW_ROWS]
        found = _among_themselves(block, _like_any(block, pool[:count], thresholds), thresholds)
        mask[first : first + _NEW_ROWS] = found
        pool[count : count + (~found).sum()] = block[~found]
        count += int((~found).sum())
    return mask


def unique_count(poses: Poses, thresholds: DuplicateThresholds) -> int:
    """Returns how many grasps the greedy walk of `near_duplicates` keeps; both hands count as one grasp."""
    return int((~near_duplicates(poses, thresholds)).sum())


def _checked_table(poses: Poses) -> Float[np.ndarray, "n hand dof"]:
    """Returns translation, the nine numbers of the rotation and the joints of each hand in one row, float64."""
    check_poses(poses)
    parts = (poses.translation, poses.rotation.reshape(poses.count, 2, 9), poses.joints)
    return np.concatenate(parts, axis=2, dtype=np.float64)


def _like_any(block: np.ndarray, kept: np.ndarray, thresholds: DuplicateThresholds) -> Bool[np.ndarray, " n"]:
    """Returns which rows of a block are like a kept one."""
    found = np.zeros(len(block), bool)
    for first in range(0, len(kept), _KEPT_ROWS):
        rows = np.flatnonzero(~found)
        found[rows] = _alike(block[rows], kept[first : first + _KEPT_ROWS], thresholds).any(axis=1)
    return found


def _among_themselves(block: np.ndarray, found: np.ndarray, thresholds: DuplicateThresholds) -> np.ndarray:
    """Returns `found` with the rows of a block that are like an earlier one of it that is kept."""
    found = found.copy()
    rows = np.flatnonzero(~found)
    alike = _alike(block[rows], block[rows], thresholds)
    for k, row in enumerate(rows):
        if not found[row]:
            found[rows[k + 1 :]] |= alike[k, k + 1 :]
    return found


def _alike(one: np.ndarray, other: np.ndarray, thresholds: DuplicateThresholds) -> Bool[np.ndarray, "n m"]:
    """Returns whether row n of one table and row m of the other are within the thresholds.

    Sums run over their terms one by one, so that what a pair gives does not depend on the block it is in. The angle
    t between two rotations is told by |R - S|^2 = 8 sin^2(t/2), which is exact where they are equal.
    """
    near = np.ones((len(one), len(other)), bool)
    for hand in range(2):
        columns = (np.subtract.outer(one[:, hand, k], other[:, hand, k]) for k in range(3))
        near &= _sum_of_squares(columns) <= thresholds.translation**2
    n, m = np.nonzero(near)  # translations part most pairs; the other numbers are compared for the rest
    largest_chord = 8 * np.sin(min(thresholds.rotation, np.pi) / 2) ** 2
    within = np.ones(len(n), bool)
    for hand in range(2):
        difference = one[n, hand, 3:] - other[m, hand, 3:]
        within &= _sum_of_squares(difference[:, k] for k in range(9)) <= largest_chord
        within &= (np.abs(difference[:, 9:]) <= thresholds.joints).all(axis=1)
    near[n, m] = within
    return near


def _sum_of_squares(columns: Iterable[np.ndarray]) -> np.ndarray:
    return sum(column * column for column in columns)
