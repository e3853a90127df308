"""Holds the poses of both hands of many grasps as NumPy arrays, as in files. Hand axis 0 = left, 1 = right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from bimangrasp.errors import InputError


class Poses(NamedTuple):
    """Both hands' poses of many grasps.

    Attributes:
        translation: origin of each hand's root in the object's frame, m.
        rotation: hand frame to object frame, proper.
        joints: joint values, rad.
    """

    translation: Float[np.ndarray, "grasp hand 3"]
    rotation: Float[np.ndarray, "grasp hand 3 3"]
    joints: Float[np.ndarray, "grasp hand joint"]

    @property
    def count(self) -> int:
        """Number of grasps; `len` counts the fields."""
        return len(self.translation)

    @property
    def finite(self) -> Bool[np.ndarray, " grasp"]:
        """Entry [n] says whether every number of grasp n is finite."""
        return np.logical_and.reduce([np.isfinite(part).all(axis=tuple(range(1, part.ndim))) for part in self])

    def select(self, rows: Int[np.ndarray, " row"] | Bool[np.ndarray, " grasp"] | slice) -> Poses:
        """Returns the poses of these grasps."""
        return Poses(*(part[rows] for part in self))


def check_poses(poses: Poses) -> None:
    """Refuses poses whose arrays have mismatched shapes or hold numbers that are not finite.

    Raises:
        InputError: naming the array and its shape, or the first grasp that is not finite.
    """
    count = poses.count
    joints = poses.joints.shape[2] if poses.joints.ndim == 3 else "J"
    wanted_shapes = {"translation": (count, 2, 3), "rotation": (count, 2, 3, 3), "joints": (count, 2, joints)}
    for name, wanted_shape in wanted_shapes.items():
        given_shape = getattr(poses, name).shape
        if given_shape != wanted_shape:
            raise InputError(
                f"{name} has shape {given_shape}; wanted {wanted_shape}: grasp, hand (left, right), then its numbers"
            )
    if not poses.finite.all():
        row = int(np.flatnonzero(~poses.finite)[0])
        raise InputError(
            f"grasp {row} of {count} has numbers that are not finite; leave such grasps out (Poses.finite)"
        )


def joined(parts: Sequence[Poses]) -> Poses:
    """Returns the grasps of all parts, concatenated in order."""
    return Poses(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
