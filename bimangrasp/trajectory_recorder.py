"""Records the trajectory of chosen grasps while their round is computed."""

from __future__ import annotations

import numpy as np
import torch

from bimangrasp.config import Record
from bimangrasp.geometry.rotation import rot6d_to_matrix
from bimangrasp.grasp import Grasps
from bimangrasp.sampler.mala import Point
from bimangrasp.synthesis import Synthesis
from bimangrasp.trajectory import Trajectory


class TrajectoryRecorder:
    """Watches a round (`synthesize(watch=...)`) and keeps snapshots; it reads the batch and changes nothing."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._snapshots: list[tuple[int, Grasps, torch.Tensor]] = []

    def __call__(self, step: int, point: Point) -> None:
        """Keeps what is there at every `stride`-th step."""
        if step % self._record.stride == 0:
            rows = list(self._record.rows)
            grasps = Grasps.from_pose(point.position[rows], point.choice[rows])  # copies: indexed by a list
            self._snapshots.append((step, grasps, point.energy[rows]))

    def trajectory(self, result: Synthesis, steps: int) -> Trajectory:
        """Returns the trajectory of a finished round.

        Args:
            result: of the round.
            steps: how many it had.
        """
        rows = torch.tensor(self._record.rows, device=result.object_scale.device)
        snapshots = [snapshot for snapshot in self._snapshots if snapshot[0] != steps]
        snapshots.append((steps, result.grasps.select(rows), result.energies.total[rows]))
        return Trajectory(
            np.array([step for step, _, _ in snapshots], np.int64),
            np.array(self._record.rows, np.int64),
            _column([grasps.translation for _, grasps, _ in snapshots]),
            _column([rot6d_to_matrix(grasps.rotation.double()) for _, grasps, _ in snapshots]),
            _column([grasps.joints for _, grasps, _ in snapshots]),
            _column([energy for _, _, energy in snapshots]),
            _column(result.object_scale[rows]),
        )


def _column(parts: list[torch.Tensor] | torch.Tensor) -> np.ndarray:
    """Returns tensors as one single-precision array."""
    joined = torch.stack(parts) if isinstance(parts, list) else parts
    return joined.detach().float().cpu().numpy()
