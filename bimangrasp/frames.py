"""Frames: where chosen grasps of a round were at every k-th step of the optimisation."""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64

from bimangrasp.grasp import Grasps
from bimangrasp.rotation import rot6d_to_matrix

if TYPE_CHECKING:  # the optimiser is not needed to ask for frames, nor to look at them
    from bimangrasp.mala import Point
    from bimangrasp.synthesis import Synthesis


class Record(NamedTuple):
    """What to keep of a round.

    Attributes:
        stride: steps between two frames.
        rows: which grasps.
    """

    stride: int
    rows: tuple[int, ...]


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


class FrameKeeper:
    """Watches a round (`synthesize(watch=...)`) and keeps its frames; it reads the batch and changes nothing."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._kept: list[tuple[int, Grasps, torch.Tensor]] = []

    def __call__(self, step: int, point: Point) -> None:
        """Keeps what is there at every `stride`-th step."""
        if step % self._record.stride == 0:
            rows = list(self._record.rows)
            grasps = Grasps.from_pose(point.position[rows], point.choice[rows])  # copies: indexed by a list
            self._kept.append((step, grasps, point.energy[rows]))

    def frames(self, result: Synthesis, steps: int) -> Frames:
        """Returns the frames of a round that is through.

        Args:
            result: of the round.
            steps: how many it had.
        """
        rows = torch.tensor(self._record.rows, device=result.object_scale.device)
        kept = [one for one in self._kept if one[0] != steps]
        kept.append((steps, result.grasps.select(rows), result.energies.total[rows]))
        return Frames(
            np.array([step for step, _, _ in kept], np.int64),
            np.array(self._record.rows, np.int64),
            _column([grasps.translation for _, grasps, _ in kept]),
            _column([rot6d_to_matrix(grasps.rotation.double()) for _, grasps, _ in kept]),
            _column([grasps.joints for _, grasps, _ in kept]),
            _column([energy for _, _, energy in kept]),
            _column(result.object_scale[rows]),
        )


def _column(parts: list[torch.Tensor] | torch.Tensor) -> np.ndarray:
    """Returns tensors as one single-precision array."""
    joined = torch.stack(parts) if isinstance(parts, list) else parts
    return joined.detach().float().cpu().numpy()


def frames_image(frames: Frames) -> bytes:
    """Returns the bytes of the `.npz` file that holds these frames."""
    file = io.BytesIO()
    np.savez(file, **vars(frames))
    return file.getvalue()


def read_frames(path: Path | str) -> Frames:
    """Returns the frames of a file."""
    with np.load(path, allow_pickle=False) as found:
        return Frames(*(found[field.name] for field in fields(Frames)))
