"""Verdicts without a simulation, for what is made of them."""

from __future__ import annotations

import numpy as np

from bimangrasp.poses import Poses
from bimangrasp.validation.evaluate import NO_CHOICE, Evaluation
from bimangrasp.validation.pose_rules import NOT_BALANCED
from bimangrasp.validation.verdict import Reason


def spread(count: int) -> Poses:
    """Grasps whose hands stand 3 cm further with each, apart in the middle of the unique thresholds."""
    translation = np.zeros((count, 2, 3))
    translation[:, :, 0] = 0.03 * np.arange(count)[:, None]
    return Poses(translation, np.tile(np.eye(3), (count, 2, 1, 1)), np.zeros((count, 2, 1)))


def judged(reason: list[Reason], **columns: np.ndarray) -> Evaluation:
    """Verdicts with these reasons; columns that are not given are what a grasp far from all has."""
    count, poses = len(reason), spread(len(reason))
    nothing = {
        "opening": np.full(count, NO_CHOICE, np.int32),
        "residual": np.full(count, NOT_BALANCED),
        "start_penetration": np.zeros((count, 3)),
        "penetration": np.zeros((count, 3)),
        "link_distance": np.full((count, 2, 2), np.inf),
        "displacement": np.zeros((count, 6)),
        "rotation": np.zeros((count, 6)),
        "held": np.zeros((count, 6), bool),
        "bears_load": np.zeros((count, 2), bool),
    }
    number = np.array(reason, np.int32).reshape(count)
    return Evaluation(stages=(poses, poses, poses), reason=number, **nothing | columns)
