"""Computes the figures that papers report for a set of grasps, and a table of them with a row for each object."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation

from bimangrasp.hands.description import HandDescription
from bimangrasp.poses import Poses, check_poses
from bimangrasp.validation.config import DuplicateThresholds
from bimangrasp.validation.duplicates import unique_count
from bimangrasp.validation.evaluate import Evaluation
from bimangrasp.validation.verdict import Reason

HEADINGS = ("object", "GSR", "both hands", "PD mm", "SPD mm", "CLN", "CDC mm", "D", "H", "unique", "failed by")

CONTACT_DISTANCE = 0.002
"""A link this near to the object is in contact, m (CLN of BODex and Dexonomy)."""

FINGER_DISTANCE_CAP = 0.01
"""A finger farther from the object than this counts as this far, m (CDC of BODex and Dexonomy)."""

ENTROPY_BINS = 32
"""Bins of a dimension's histogram (BimanGrasp)."""

UNIQUE_THRESHOLDS = (
    DuplicateThresholds(translation=0.20, joints=0.5, rotation=math.radians(45)),
    DuplicateThresholds(translation=0.02, joints=0.2, rotation=math.radians(5)),
    DuplicateThresholds(translation=0.01, joints=0.1, rotation=math.radians(2.5)),
)
"""Thresholds at which unique grasps are counted (BiDexGrasp), from coarse to fine."""


class Summary(NamedTuple):
    """The figures of an object under a protocol. NaN for the mean of nothing.

    Attributes:
        code: the object.
        tried: number of grasps.
        held: number of grasps that hold.
        gsr: held over tried.
        both_hands: share of those that hold in which both hands bear load.
        pd, spd: mean over grasps of the largest depth of a hand in the object, and of hands in each other or in
            themselves, m.
        cln: mean number of links in contact.
        cdc: mean contact distance consistency, m.
        d, h: diversity of all grasps, see `first_component_share` and `histogram_entropy`.
        unique: how many grasps differ at each of `UNIQUE_THRESHOLDS`.
        reasons: why grasps fail, in the order of `Reason`.
    """

    code: str
    tried: int
    held: int
    gsr: float
    both_hands: float
    pd: float
    spd: float
    cln: float
    cdc: float
    d: float
    h: float
    unique: tuple[int, ...]
    reasons: dict[str, int]


def summary_of(code: str, evaluation: Evaluation, hand: HandDescription) -> Summary:
    """Returns the figures of one object; grasps that are not finite count as tried and nowhere else.

    Args:
        code: the object.
        evaluation: the verdicts on its grasps.
        hand: either hand, which defines the fingers.
    """
    reasons = [Reason(reason) for reason in evaluation.reason.tolist()]
    holds = evaluation.reason == Reason.HELD
    finite = evaluation.reason != Reason.NOT_FINITE  # a finite grasp may have a pre-grasp that is not
    grasps, depth = evaluation.stages[1].select(finite), evaluation.penetration[finite]
    distance = evaluation.link_distance[finite]
    cdc = contact_distance_consistency(distance, fingers(hand))
    return Summary(
        code,
        len(holds),
        int(holds.sum()),
        grasp_success_rate(holds),
        both_hands_share(holds, evaluation.bears_load),
        _mean(depth[:, 0]),
        _mean(depth[:, 1:].max(axis=1, initial=0)),
        _mean(contact_link_number(distance)),
        _mean(cdc),
        first_component_share(grasps),
        histogram_entropy(grasps),
        tuple(unique_count(grasps, thresholds) for thresholds in UNIQUE_THRESHOLDS),
        {reason.name.lower(): count for reason, count in sorted(Counter(reasons).items()) if reason is not Reason.HELD},
    )


def fingers(hand: HandDescription) -> np.ndarray:
    """Returns the index of each link's finger, -1 for links of none: a finger moves relative to the root."""
    number = np.full(len(hand.parent), -1)
    for link, parent in enumerate(hand.parent.tolist()[1:], start=1):
        starts = number[parent] < 0 and link in hand.joint_link
        number[link] = number.max() + 1 if starts else number[parent]
    return number


def cells(summary: Summary) -> tuple[str, ...]:
    """Returns a row of the table, under `HEADINGS`, with "-" for NaN."""
    return (
        summary.code,
        f"{_number(summary.gsr, '.1%')} ({summary.held}/{summary.tried})",
        _number(summary.both_hands, ".0%"),
        _number(1e3 * summary.pd, ".2f"),
        _number(1e3 * summary.spd, ".2f"),
        _number(summary.cln, ".1f"),
        _number(1e3 * summary.cdc, ".2f"),
        _number(summary.d, ".3f"),
        _number(summary.h, ".2f"),
        "/".join(map(str, summary.unique)),
        ", ".join(f"{name} {count}" for name, count in summary.reasons.items()) or "none",
    )


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def contact_link_number(link_distance: Float[np.ndarray, "grasp hand link"]) -> Int[np.ndarray, " grasp"]:
    """Returns CLN: how many links of both hands are within `CONTACT_DISTANCE` of the object or inside it.

    Args:
        link_distance: signed distance of each link to the object, m, negative inside; infinite for a link without a
            shape.
    """
    return (link_distance <= CONTACT_DISTANCE).sum(axis=(1, 2))


def contact_distance_consistency(
    link_distance: Float[np.ndarray, "grasp hand link"], finger: Int[np.ndarray, " link"]
) -> Float[np.ndarray, " grasp"]:
    """Returns CDC, m: over the fingers of both hands, the largest minus the smallest distance to the object.

    A finger's distance is the least one of its links, at most `FINGER_DISTANCE_CAP`; penetration counts as a
    negative distance.

    Args:
        link_distance: as for `contact_link_number`.
        finger: the number of each link's finger, from 0; -1 for links of none, such as the palm.
    """
    of_fingers = [link_distance[:, :, finger == number].min(axis=2) for number in np.unique(finger[finger >= 0])]
    distance = np.minimum(np.concatenate(of_fingers, axis=1), FINGER_DISTANCE_CAP)
    return np.ptp(distance, axis=1)


def first_component_share(poses: Poses) -> float:
    """Returns D: the share of the first principal component in the variance of the pose vectors; low is diverse.

    A vector is [translation (m), axis-angle (rad), joints (rad)] of the left hand and then of the right, as they
    are, without weights (BimanGrasp). NaN where the variance is 0, as it is for one grasp.

    Raises:
        InputError: shapes that do not fit, or a pose that is not finite.
    """
    vectors = _pose_vectors(poses)
    if len(vectors) == 0:
        return math.nan
    variance = np.linalg.svd(vectors - vectors.mean(axis=0), compute_uv=False) ** 2
    return float(variance[0] / variance.sum()) if variance.sum() > 0 else math.nan


def histogram_entropy(poses: Poses) -> float:
    """Returns H: the mean over the dimensions of the pose vectors of the entropy of a histogram, bits; high is diverse.

    A dimension's `ENTROPY_BINS` equal bins span its smallest to its largest value over the grasps, since only joints
    have limits. H therefore measures how evenly a range is filled, and not how wide it is; a constant dimension has 0.
    Bits because BimanGrasp reports 4.39, more than ln 32 = 3.47 and less than log2 32 = 5. NaN without grasps.

    Raises:
        InputError: shapes that do not fit, or a pose that is not finite.
    """
    vectors = _pose_vectors(poses)
    if len(vectors) == 0:
        return math.nan
    return float(np.mean([_entropy(column) for column in vectors.T]))


def grasp_success_rate(holds: Bool[np.ndarray, " grasp"]) -> float:
    """Returns GSR: grasps that hold over grasps tried; NaN where none was tried."""
    return _mean(holds)


def object_success_rate(holds: Sequence[Bool[np.ndarray, " _"]]) -> float:
    """Returns OSR: the share of objects with at least one grasp that holds; NaN without objects.

    Args:
        holds: for each object which of its grasps hold.
    """
    return _mean(np.array([of_object.any() for of_object in holds], bool))


def both_hands_share(holds: Bool[np.ndarray, " grasp"], bears_load: Bool[np.ndarray, "grasp hand"]) -> float:
    """Returns the share of the grasps that hold in which both hands bear load; NaN where none holds."""
    return _mean(bears_load[holds].all(axis=1))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _pose_vectors(poses: Poses) -> Float[np.ndarray, "grasp dimension"]:
    """Returns [translation, axis-angle, joints] of both hands in one row, float64."""
    check_poses(poses)
    turns = Rotation.from_matrix(poses.rotation.reshape(-1, 3, 3)).as_rotvec().reshape(poses.count, 2, 3)
    hands = np.concatenate((poses.translation, turns, poses.joints), axis=2, dtype=np.float64)
    return np.concatenate((hands[:, 0], hands[:, 1]), axis=1)


def _entropy(values: np.ndarray) -> float:
    """Returns the entropy of one dimension's histogram, bits."""
    position = values - values.min()  # np.histogram refuses a span of a few ulp
    if position.max() > 0:
        position = position / position.max()
    count = np.bincount(np.minimum((ENTROPY_BINS * position).astype(int), ENTROPY_BINS - 1))
    share = count[count > 0] / len(values)
    return float(-(share * np.log2(share)).sum()) + 0.0
