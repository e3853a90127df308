"""Keeps frames of a round while it is made."""

from __future__ import annotations

import numpy as np
import torch

from bimangrasp.config import Record
from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.sampler.mala import Point
from bimangrasp.synthesis import Synthesis
from bimangrasp.trajectory import Frames


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
