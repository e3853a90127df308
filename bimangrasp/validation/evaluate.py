"""Evaluates all grasps of an object under a protocol: makes their three poses, simulates them, measures distances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int

from bimangrasp.files.schema import VERDICT_FIELDS
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation.config import STAGES, PoseConfig, ProtocolConfig
from bimangrasp.validation.pose_rules import stages_of
from bimangrasp.validation.scene import GraspPoses, HandPoses, Scene, build_scene, set_pose
from bimangrasp.validation.simulate import penetration, simulate_grasp
from bimangrasp.validation.verdict import DIRECTIONS, Penetration, Reason, Verdict, not_simulated

MAX_LINK_DISTANCE = 0.02
"""Distances of links to the object are measured up to this, m; the metrics need less."""


class ObjectGrasps(NamedTuple):
    """Grasps of one object as the optimizer left them.

    Attributes:
        poses: the poses of N grasps.
        candidate: indices of the chosen contact candidates.
        normal: outward normal of the object at the contacts.
        object_scale: factor on the object's mesh.
    """

    poses: Poses
    candidate: Int[np.ndarray, "grasp 2 contact"]
    normal: Float[np.ndarray, "grasp 2 contact 3"]
    object_scale: Float[np.ndarray, " grasp"]


class Evaluation(NamedTuple):
    """The verdicts of a protocol on N grasps. Directions are those of `verdict.DIRECTIONS`.

    Attributes:
        stages: pre-grasp, grasp and squeeze, as they were simulated.
        reason: number of a `Reason`.
        start_penetration: depth of hand in object, hand in hand, and hand in itself where the simulation starts, m.
        penetration: the same at the grasp, m.
        link_distance: distance of each link to the object at the grasp, m, negative inside; at most
            `MAX_LINK_DISTANCE`.
        displacement, rotation, held, bears_load: see `Verdict`.
    """

    stages: tuple[Poses, Poses, Poses]
    reason: Int[np.ndarray, " grasp"]
    start_penetration: Float[np.ndarray, "grasp 3"]
    penetration: Float[np.ndarray, "grasp 3"]
    link_distance: Float[np.ndarray, "grasp 2 link"]
    displacement: Float[np.ndarray, "grasp direction"]
    rotation: Float[np.ndarray, "grasp direction"]
    held: Bool[np.ndarray, "grasp direction"]
    bears_load: Bool[np.ndarray, "grasp 2"]


class _GraspResult(NamedTuple):
    """The verdict on a grasp, its depths of penetration and its link distances at the grasp."""

    verdict: Verdict
    penetration: np.ndarray
    link_distance: np.ndarray


def evaluate_grasps(
    hands: HandModel,
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    grasps: ObjectGrasps,
    protocol: ProtocolConfig,
    rule: PoseConfig,
    threads: int,
    on_grasp: Callable[[int], None] | None = None,
    skipped_rows: Collection[int] = (),
) -> Evaluation:
    """Returns the verdicts of a protocol on the grasps of one object; the same bits for any number of threads.

    Args:
        hands: both hands, on the CPU.
        pieces: vertices of the object's convex pieces at unit scale, m.
        grasps: the grasps.
        protocol: physics, trial and limits.
        rule: the rule that makes pre-grasp and squeeze.
        threads: number of threads that simulate.
        on_grasp: called with each row when its simulation begins, by the thread that simulates it.
        skipped_rows: rows whose simulation crashes or never ends; they are not simulated and count as failed.

    Raises:
        InputError: grasps of other hands, or pieces that MuJoCo refuses.
    """
    stages = stages_of(hands, grasps.poses, grasps.candidate, grasps.normal, rule)
    left, right = hands.descriptions
    sizes, size_index = np.unique(grasps.object_scale, return_inverse=True)
    scenes = [build_scene(left, right, [float(size) * piece for piece in pieces], protocol) for size in sizes]

    def evaluate_row(row: int) -> _GraspResult:
        poses = GraspPoses(*(_row(stage, row) for stage in stages))
        if row in skipped_rows:
            return _not_evaluated(Reason.SIMULATION_FAILED, len(hands.names))
        if on_grasp:
            on_grasp(row)
        return _evaluate_grasp(hands, scenes[size_index[row]], poses)

    with quiet_mujoco(), ThreadPoolExecutor(threads) as pool:
        results = list(pool.map(evaluate_row, range(grasps.poses.count)))
    return _columns(stages, results, len(hands.names))


def _row(stage: Poses, row: int) -> HandPoses:
    return HandPoses(*(part[row] for part in stage))


def _evaluate_grasp(hands: HandModel, scene: Scene, poses: GraspPoses) -> _GraspResult:
    if not poses.finite:
        return _not_evaluated(Reason.NOT_FINITE, len(hands.names))
    verdict = simulate_grasp(scene, poses)
    return _GraspResult(verdict, np.array(penetration(scene, poses.grasp)), _link_distances(hands, scene, poses.grasp))


def _not_evaluated(reason: Reason, links: int) -> _GraspResult:
    """Returns the result for a grasp that is not simulated: NaN in place of all measurements."""
    verdict = not_simulated(reason, Penetration(np.nan, np.nan, np.nan))
    return _GraspResult(verdict, np.full(3, np.nan), np.full((2, links), np.nan))


def _link_distances(hands: HandModel, scene: Scene, pose: HandPoses) -> Float[np.ndarray, "2 link"]:
    """Returns the least distance of the shapes of each link to the object's pieces, at most MAX_LINK_DISTANCE."""
    model, data = scene.model, mujoco.MjData(scene.model)
    set_pose(scene, data, pose)
    mujoco.mj_kinematics(model, data)
    distances = np.full((2, len(hands.names)), MAX_LINK_DISTANCE)
    for side, geoms in enumerate(scene.hand_geoms):
        for geom, shape in zip(geoms.tolist(), hands.descriptions[side].primitives, strict=True):
            for piece in scene.object_geoms.tolist():
                center_distance = np.linalg.norm(data.geom_xpos[geom] - data.geom_xpos[piece])
                if center_distance < model.geom_rbound[geom] + model.geom_rbound[piece] + MAX_LINK_DISTANCE:
                    distance = mujoco.mj_geomDistance(model, data, geom, piece, MAX_LINK_DISTANCE, None)
                    distances[side, shape.link] = min(distances[side, shape.link], distance)
    return distances


def _columns(stages: tuple[Poses, Poses, Poses], results: list[_GraspResult], links: int) -> Evaluation:
    """Returns the results as columns."""
    verdicts = [result.verdict for result in results]

    def column(values: list, *shape: int) -> np.ndarray:
        return np.array(values).reshape(len(results), *shape)

    return Evaluation(
        stages=stages,
        reason=column([int(verdict.reason) for verdict in verdicts]).astype(np.int32),
        start_penetration=column([verdict.penetration for verdict in verdicts], 3),
        penetration=column([result.penetration for result in results], 3),
        link_distance=column([result.link_distance for result in results], 2, links),
        displacement=column([verdict.displacement for verdict in verdicts], 6),
        rotation=column([verdict.rotation for verdict in verdicts], 6),
        held=column([verdict.held for verdict in verdicts], 6).astype(bool),
        bears_load=column([verdict.bears_load for verdict in verdicts], 2).astype(bool),
    )


def verdict_columns(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Returns verdicts as columns of the file, a row for each grasp."""
    columns = {
        f"pose/{name}": np.stack([getattr(stage, name) for stage in evaluation.stages], axis=1)
        for name in Poses._fields
    }
    columns |= {f"verdict/{name}": getattr(evaluation, name) for name in Evaluation._fields[1:]}
    return {f.name: columns[f.name].astype(f.dtype) for f in VERDICT_FIELDS}


def verdict_attributes(link_names: Sequence[str]) -> dict[str, Any]:
    """Returns attributes that describe the axes and numbers of the verdict columns.

    Args:
        link_names: link names of a hand, in the order of `verdict/link_distance`.
    """
    return {
        "stages": list(STAGES),
        "reasons": [reason.name.lower() for reason in Reason],
        "directions": DIRECTIONS.tolist(),
        "link_names": list(link_names),
    }
