"""Holds and checks the poses that a simulated grasp passes through: pre-grasp, grasp, squeeze."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError

ROTATION_TOLERANCE = 1e-3
"""Largest entry of R R^T - 1: float32 gives 1e-6, a matrix that is no rotation about 1."""


class HandPoses(NamedTuple):
    """A pose of both hands in the object's frame. Hand axis 0 = left, 1 = right.

    Attributes:
        translation: origin of the root link, m.
        rotation: hand frame to object frame, proper.
        joints: rad.
    """

    translation: Float[np.ndarray, "hand 3"]
    rotation: Float[np.ndarray, "hand 3 3"]
    joints: Float[np.ndarray, "hand joint"]

    @property
    def finite(self) -> bool:
        """Whether every number is finite."""
        return all(bool(np.isfinite(part).all()) for part in self)


class GraspPoses(NamedTuple):
    """The poses by which two hands take an object.

    Attributes:
        pre_grasp: hands open, beside the object.
        grasp: hands on the object.
        squeeze: targets beyond the grasp, which press on the object; reached only where it gives way.
    """

    pre_grasp: HandPoses
    grasp: HandPoses
    squeeze: HandPoses

    @property
    def finite(self) -> bool:
        """Whether every number is finite."""
        return all(pose.finite for pose in self)


def check_grasp_poses(poses: GraspPoses, joint_count: int) -> None:
    """Refuses finite poses that are not those of two hands with `joint_count` joints.

    Raises:
        InputError: naming the pose, what it has and what is wanted.
    """
    shapes = ((2, 3), (2, 3, 3), (2, joint_count))
    for name, pose in zip(poses._fields, poses, strict=True):
        for part, given, wanted in zip(pose._fields, pose, shapes, strict=True):
            if given.shape != wanted:
                raise InputError(
                    f"{name}.{part} has shape {given.shape}; these hands want {wanted} (hand axis first, 0 = left): "
                    "is the grasp of another hand?"
                )
        error = np.abs(pose.rotation @ pose.rotation.swapaxes(-1, -2) - np.eye(3)).max()
        if error > ROTATION_TOLERANCE or (np.linalg.det(pose.rotation) < 0).any():
            raise InputError(
                f"{name}.rotation is no proper rotation (R R^T is {error:.2g} off 1); wanted (2, 3, 3) matrices from "
                "the hand's frame to the object's: a 6D rotation goes through "
                "bimangrasp.geometry.rotation.rot6d_to_matrix"
            )


def interpolate(start: HandPoses, end: HandPoses, share: float) -> HandPoses:
    """Returns the pose that lies `share` (0 to 1) of the way between two: lines, and turns about one axis."""
    first, last = Rotation.from_matrix(start.rotation), Rotation.from_matrix(end.rotation)
    turn = Rotation.from_rotvec(share * (first.inv() * last).as_rotvec())
    return HandPoses(
        start.translation + share * (end.translation - start.translation),
        (first * turn).as_matrix(),
        start.joints + share * (end.joints - start.joints),
    )
