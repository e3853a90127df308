"""Holds poses of both hands for many grasps, and recordings, as NumPy arrays. Hand axis 0 = left, 1 = right."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int64

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


@dataclass(frozen=True)
class Trajectory:
    """Where some grasps were, in the object's frame; the last snapshot has the grasps that the round gave.

    Attributes:
        step: steps made.
        row: of each grasp in its round.
        translation: origin of each hand's root, m.
        rotation: hand frame to object frame.
        joints: joint values, rad.
        energy: the weighted total.
        object_scale: factor on the object's mesh.
    """

    step: Int64[np.ndarray, " snapshot"]
    row: Int64[np.ndarray, " grasp"]
    translation: Float32[np.ndarray, "snapshot grasp 2 3"]
    rotation: Float32[np.ndarray, "snapshot grasp 2 3 3"]
    joints: Float32[np.ndarray, "snapshot grasp 2 joint"]
    energy: Float32[np.ndarray, "snapshot grasp"]
    object_scale: Float32[np.ndarray, " grasp"]


def trajectory_image(trajectory: Trajectory) -> bytes:
    """Returns the bytes of the `.npz` file that holds a trajectory."""
    file = io.BytesIO()
    np.savez(file, **vars(trajectory))
    return file.getvalue()


def read_trajectory(path: Path | str) -> Trajectory:
    """Returns the trajectory of a file."""
    with np.load(path, allow_pickle=False) as arrays:
        return Trajectory(*(arrays[field.name] for field in fields(Trajectory)))
