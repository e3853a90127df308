"""Simulates the grasps of sealed rounds in a validator process and seals the verdicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scale.engine.devices import platform
from scale.engine.interfaces import Step, ValidationJob, ValidationTask, VerdictRunner
from scale.engine.worker import Role, WorkerSpec
from scale.store import shards, verdict_files
from scale.store.run_folder import VALIDATOR, RunFolder

if TYPE_CHECKING:  # only validators load the hands
    from bimangrasp.hand_files.config import HandConfig
    from bimangrasp.hands.model import HandModel
    from bimangrasp.validation.config import PoseConfig, ProtocolConfig
    from scale.settings.schema import Config


UNUSED_POINTS = 1  # on the hands' surfaces; only the optimizer asks for them


def _verdict(
    folder: RunFolder, spec: WorkerSpec, runner: VerdictRunner, job: ValidationJob, connection: Connection
) -> Path:
    """Simulates the grasps of one round and returns the path of the sealed verdict."""
    shard = shards.verify(folder.root / job.shard)
    task = ValidationTask(shard.columns, str(folder.root / job.pieces), job.deadly)
    columns = runner.judge(task, partial(_tell, connection))
    _tell(connection, shard.rows)
    about = {
        "code": job.code,
        "round_id": job.round_id,
        "shard_sha256": shard.sha256,
        "acceptance_key": job.acceptance_key,
        "platform": runner.platform,
        "judging": runner.judging,
    }
    return verdict_files.seal(folder, folder.place(spec.worker, spec.launch, VALIDATOR), about, columns)


def _tell(connection: Connection, row: int) -> None:
    """Says which grasp is simulated now, or that all are: if it kills or hangs this process, the parent knows it."""
    connection.send(Step(row))


VALIDATION = Role(VALIDATOR, _verdict)
"""Validators test rounds."""


@dataclass(frozen=True)
class Simulator:
    """The judge in earnest: a protocol in MuJoCo. What simulates is imported where it is used."""

    hand: HandConfig
    protocol: ProtocolConfig
    poses: PoseConfig

    @classmethod
    def of(cls, config: Config) -> Simulator:
        """Returns the judge with the settings of a call."""
        return cls(config.hand, config.validation, config.poses)

    def load(self, device: str, threads: int) -> SimulatorRunner:
        """Returns the bench with both hands."""
        import torch

        from bimangrasp.hand_files.loading import load_hands
        from bimangrasp.hands.model import HandModel

        torch.set_num_threads(threads)
        return SimulatorRunner(self, HandModel(*load_hands(self.hand), UNUSED_POINTS, device))


class SimulatorRunner:
    """The hands of one validator."""

    def __init__(self, factory: Simulator, hands: HandModel) -> None:
        self._factory, self._hands = factory, hands
        self.platform = platform("cpu", "none")

    @property
    def judging(self) -> dict[str, Any]:
        """How its columns are to be read."""
        from bimangrasp.validation.evaluate import verdict_attributes

        return verdict_attributes(self._hands.names)

    def judge(self, case: ValidationTask, on_row: Callable[[int], None]) -> dict[str, np.ndarray]:
        """Returns what the protocol says of a round's grasps."""
        from bimangrasp.objects.convex_pieces import read_pieces
        from bimangrasp.poses import Poses
        from bimangrasp.validation.evaluate import ObjectGrasps, evaluate_grasps, verdict_columns

        poses = Poses(*(case.columns[f"hand/{part}"] for part in Poses._fields))
        grasps = ObjectGrasps(
            poses, *(case.columns[name] for name in ("contact/candidate", "contact/normal", "object_scale"))
        )
        pieces = [piece.vertices for piece in read_pieces(case.pieces).pieces]
        rules = (self._factory.protocol, self._factory.poses)
        return verdict_columns(evaluate_grasps(self._hands, pieces, grasps, *rules, 1, on_row, case.deadly))
