"""Finds near-duplicates of earlier grasps: greedy in row order, exact, and independent of how rows are batched."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float

from bimangrasp.errors import InputError
from bimangrasp.poses import Poses, check_poses
from bimangrasp.validation.config import DuplicateThresholds

_NEW_ROWS, _KEPT_ROWS = 64, 1024  # rows compared in a block: 23 MB of differences with 22 joints


def near_duplicates(poses: Poses, thresholds: DuplicateThresholds, kept: Poses | None = None) -> Bool[np.ndarray, " n"]:
    """Returns which grasps are near-duplicates of an earlier grasp that is kept.

    Greedy: grasp n is a duplicate when it is within the thresholds of a grasp of `kept` or of an earlier grasp that is
    no duplicate itself, so the result depends on the order. Pairs are compared independently in float64: rows that come
    in parts, with the rows kept so far as `kept`, get the same mask as all rows in one call. Takes O(N * kept) time and
    bounded memory.

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
    for first in range(0, len(table), _NEW_ROWS):
        block = table[first : first + _NEW_ROWS]
        is_duplicate = _with_duplicates_within(block, _close_to_any(block, pool[:count], thresholds), thresholds)
        mask[first : first + _NEW_ROWS] = is_duplicate
        pool[count : count + (~is_duplicate).sum()] = block[~is_duplicate]
        count += int((~is_duplicate).sum())
    return mask


def unique_count(poses: Poses, thresholds: DuplicateThresholds) -> int:
    """Returns how many grasps `near_duplicates` keeps; both hands count as one grasp."""
    return int((~near_duplicates(poses, thresholds)).sum())


def _checked_table(poses: Poses) -> Float[np.ndarray, "n hand dof"]:
    """Returns translation, the nine numbers of the rotation and the joints of each hand in one row, float64."""
    check_poses(poses)
    parts = (poses.translation, poses.rotation.reshape(poses.count, 2, 9), poses.joints)
    return np.concatenate(parts, axis=2, dtype=np.float64)


def _close_to_any(block: np.ndarray, kept: np.ndarray, thresholds: DuplicateThresholds) -> Bool[np.ndarray, " n"]:
    """Returns which rows of a block are near-duplicates of a kept row."""
    is_duplicate = np.zeros(len(block), bool)
    for first in range(0, len(kept), _KEPT_ROWS):
        rows = np.flatnonzero(~is_duplicate)
        is_duplicate[rows] = _are_close(block[rows], kept[first : first + _KEPT_ROWS], thresholds).any(axis=1)
    return is_duplicate


def _with_duplicates_within(block: np.ndarray, is_duplicate: np.ndarray, thresholds: DuplicateThresholds) -> np.ndarray:
    """Returns `is_duplicate` extended by the rows of a block that duplicate an earlier kept row of the block."""
    is_duplicate = is_duplicate.copy()
    rows = np.flatnonzero(~is_duplicate)
    close = _are_close(block[rows], block[rows], thresholds)
    for k, row in enumerate(rows):
        if not is_duplicate[row]:
            is_duplicate[rows[k + 1 :]] |= close[k, k + 1 :]
    return is_duplicate


def _are_close(first: np.ndarray, second: np.ndarray, thresholds: DuplicateThresholds) -> Bool[np.ndarray, "n m"]:
    """Returns whether row n of one table and row m of the other are within the thresholds.

    Sums run over their terms in a fixed order, so that the result of a pair does not depend on its block. The angle t
    between two rotations follows from |R - S|^2 = 8 sin^2(t/2), which is exact for equal rotations.
    """
    near = np.ones((len(first), len(second)), bool)
    for hand in range(2):
        columns = (np.subtract.outer(first[:, hand, k], second[:, hand, k]) for k in range(3))
        near &= _sum_of_squares(columns) <= thresholds.translation**2
    n, m = np.nonzero(near)  # translations exclude most pairs; rotations and joints are compared for the rest
    largest_chord = 8 * np.sin(min(thresholds.rotation, np.pi) / 2) ** 2
    within = np.ones(len(n), bool)
    for hand in range(2):
        difference = first[n, hand, 3:] - second[m, hand, 3:]
        within &= _sum_of_squares(difference[:, k] for k in range(9)) <= largest_chord
        within &= (np.abs(difference[:, 9:]) <= thresholds.joints).all(axis=1)
    near[n, m] = within
    return near


def _sum_of_squares(columns: Iterable[np.ndarray]) -> np.ndarray:
    return sum(column * column for column in columns)
