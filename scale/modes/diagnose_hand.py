"""Makes and tests a few grasps of a pair of hands on each object, and says why they do not hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from bimangrasp.diagnosis.causes import Diagnosis
from bimangrasp.diagnosis.diagnose import diagnose
from bimangrasp.hands.description import HandDescription
from bimangrasp.hands.model import HandModel
from bimangrasp.objects.model import check_mesh
from bimangrasp.poses import Poses
from bimangrasp.validation.evaluate import Simulations, evaluate_grasps
from bimangrasp.validation.pose_rules import ObjectGrasps
from scale.engine.interfaces import RoundJob
from scale.engine.synthesizer import UNUSED_POINTS, OptimizerRunner, Synthesizer
from scale.screen import stage
from scale.settings.parsing import ObjectEntry
from scale.settings.schema import SEED_STRIDE, Config
from scale.store.convex_pieces import pieces_of


def diagnose_hand(
    config: Config, hands: tuple[HandDescription, HandDescription], objects: Sequence[ObjectEntry]
) -> list[Diagnosis]:
    """Returns for each object why grasps of the hands do not hold it, of `hand_test` grasps by the settings' preset.

    The optimizer runs on the CPU, and the simulations in MuJoCo, whatever device a run would have.

    Args:
        config: the settings.
        hands: the left and the right hand.
        objects: on which grasps are made.

    Raises:
        InputError: an object that cannot be grasped or has no pieces.
    """
    settings = replace(config.in_mujoco, round_batch_size=config.hand_test)
    maker = Synthesizer(settings.hand, settings.synthesis, hands).load("cpu", settings.threads)
    return [_diagnosis(settings, maker, hands, entry, index) for index, entry in enumerate(objects)]


def _diagnosis(
    config: Config,
    maker: OptimizerRunner,
    hands: tuple[HandDescription, HandDescription],
    entry: ObjectEntry,
    index: int,
) -> Diagnosis:
    """Returns why grasps of one object do not hold; they are those of the first round of a run."""
    mesh = str(entry.path)
    with stage("convex pieces", 1, "objects") as decomposing, decomposing.on(entry.code):
        pieces = [piece.vertices for piece in pieces_of(entry.path, config.pieces).pieces]
    with stage(f"grasps on {entry.code}", config.num_iterations, "steps") as steps:
        seed = config.seed_base + SEED_STRIDE * index
        job = RoundJob(entry.code, index, mesh, check_mesh(mesh).sha256, 0, seed, 0, config.tile)
        columns = maker.make(job, lambda _: steps.advance()).columns
    poses = Poses(*(columns[f"hand/{part}"] for part in Poses._fields))
    names = ("contact/candidate", "contact/normal", "object_scale")
    grasps = ObjectGrasps(poses, *(columns[name] for name in names))
    model = HandModel(*hands, UNUSED_POINTS)
    with stage(f"testing {entry.code}", poses.count, "grasps") as tests:
        threads = config.validators or len(os.sched_getaffinity(0))
        simulations = Simulations(threads, on_grasp=lambda _: tests.advance())
        evaluation = evaluate_grasps(model, pieces, grasps, config.validation, config.poses, simulations)
    return diagnose(entry.code, model, pieces, grasps, evaluation, config.validation, config.poses)
