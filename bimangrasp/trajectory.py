"""Frames: where chosen grasps of a round were at every k-th step of the optimization."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True)
class Frames:
    """Where some grasps were, in the object's frame; the last frame has the grasps that the round gave.

    Attributes:
        step: steps made.
        row: of each grasp in its round.
        translation: origin of each hand's root, m.
        rotation: hand frame to object frame.
        joints: joint values, rad.
        energy: the weighted total.
        object_scale: factor on the object's mesh.
    """

    step: Int64[np.ndarray, " frame"]
    row: Int64[np.ndarray, " grasp"]
    translation: Float32[np.ndarray, "frame grasp 2 3"]
    rotation: Float32[np.ndarray, "frame grasp 2 3 3"]
    joints: Float32[np.ndarray, "frame grasp 2 joint"]
    energy: Float32[np.ndarray, "frame grasp"]
    object_scale: Float32[np.ndarray, " grasp"]


def frames_image(frames: Frames) -> bytes:
    """Returns the bytes of the `.npz` file that holds these frames."""
    file = io.BytesIO()
    np.savez(file, **vars(frames))
    return file.getvalue()


def read_frames(path: Path | str) -> Frames:
    """Returns the frames of a file."""
    with np.load(path, allow_pickle=False) as found:
        return Frames(*(found[field.name] for field in fields(Frames)))
