"""Holds the trajectory of chosen grasps: where they were at every k-th step of the optimization."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64


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
