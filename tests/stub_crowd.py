"""The stand-in for the optimizer, but for hands that stand in few places, so that many grasps are alike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from stub_rounds import Stub, StubBench, made_columns

CELLS, NAN_SHARE = 3, 0.25


def crowded(seed: int, rows: int, nan_share: float) -> dict[str, np.ndarray]:
    """A round in which many grasps are alike: hands stand in few places, all turned the same way."""
    columns = made_columns(seed, rows, nan_share)
    draw = np.random.default_rng([seed, 2])
    columns["hand/translation"] = draw.integers(CELLS, size=(rows, 2, 3)).astype(np.float32)
    columns["hand/translation"][:, :, 1:] = 0
    columns["hand/translation"] += draw.uniform(-0.02, 0.02, columns["hand/translation"].shape).astype(np.float32)
    columns["hand/rotation"][:] = np.eye(3)
    columns["hand/joints"][:] = draw.integers(2, size=(rows, 1, 1))
    return columns


@dataclass(frozen=True)
class Crowd(Stub):
    def load(self, device: str, threads: int) -> StubBench:
        return CrowdBench(self)


class CrowdBench(StubBench):
    def make(self, task, on_step):
        made = super().make(task, on_step)
        return made._replace(columns=crowded(task.seed, self.stub.rows, NAN_SHARE))
