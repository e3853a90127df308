"""Evaluates all grasps of an object under a protocol: makes their three poses, simulates them, measures distances."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import Any, NamedTuple

import mujoco
import numpy as np
from jaxtyping import Bool, Float, Int

from bimangrasp.files.schema import VERDICT_FIELDS
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.hands.model import HandModel
from bimangrasp.poses import Poses
from bimangrasp.validation.config import STAGES, PoseConfig, ProtocolConfig
from bimangrasp.validation.contact_forces import push_order
from bimangrasp.validation.piece_surface import PieceSurface
from bimangrasp.validation.pose_rules import ObjectGrasps, Stages, stages_of
from bimangrasp.validation.scene import GraspPoses, HandPoses, Scene, build_scene, set_pose
from bimangrasp.validation.simulate import Trial, penetration, simulate_grasp
from bimangrasp.validation.verdict import DIRECTIONS, Penetration, Pushes, Reason, Verdict, not_simulated

MAX_LINK_DISTANCE = 0.02
"""Distances of links to the object are measured up to this, m; the metrics need less."""
NO_CHOICE = -1
"""The opening of a rule that knows a single one, and of a grasp that was not tested."""


def _nothing(*_: object) -> None:
    """Hears of progress and does nothing about it."""


class Evaluation(NamedTuple):
    """The verdicts of a protocol on N grasps. Directions are those of `verdict.DIRECTIONS`.

    Attributes:
        stages: pre-grasp, grasp and squeeze, as they were simulated.
        opening: which of `PoseConfig.openings` the pre-grasp has, `NO_CHOICE` where the rule has one.
        residual: see `Stages`.
        reason: number of a `Reason`.
        start_penetration: depth of hand in object, hand in hand, and hand in itself where the simulation starts, m.
        penetration: the same at the grasp, m.
        link_distance: distance of each link to the object at the grasp, m, negative inside; at most
            `MAX_LINK_DISTANCE`.
        displacement, rotation, held, bears_load: see `Verdict`.
    """

    stages: tuple[Poses, Poses, Poses]
    opening: Int[np.ndarray, " grasp"]
    residual: Float[np.ndarray, " grasp"]
    reason: Int[np.ndarray, " grasp"]
    start_penetration: Float[np.ndarray, "grasp 3"]
    penetration: Float[np.ndarray, "grasp 3"]
    link_distance: Float[np.ndarray, "grasp 2 link"]
    displacement: Float[np.ndarray, "grasp direction"]
    rotation: Float[np.ndarray, "grasp direction"]
    held: Bool[np.ndarray, "grasp direction"]
    bears_load: Bool[np.ndarray, "grasp 2"]


class _GraspResult(NamedTuple):
    """The verdict on a grasp, its depths of penetration and its link distances at the grasp, and how it opened."""

    verdict: Verdict
    penetration: np.ndarray
    link_distance: np.ndarray
    opening: int


SimulateTogether = Callable[[Scene, Sequence[Trial], Executor], list[Verdict]]
"""Simulates grasps of one scene together; where MuJoCo has to decide, in the executor's threads."""


class Simulations(NamedTuple):
    """How the simulations of an object's grasps are run.

    Attributes:
        threads: how many at once, and of what else there is to do.
        until_lost: see `Pushes`.
        largest_residual: grasps whose forces leave more of a wrench are not simulated, and fail.
        on_grasp: called with each row when its simulation begins, by the thread that simulates it; after those that are
            simulated together.
        skipped_rows: rows whose simulation crashes or never ends; they are not simulated and count as failed.
        together: simulates the grasps of one scene together, see `on_device.simulate`; None simulates each by itself.
    """

    threads: int = 1
    until_lost: bool = False
    largest_residual: float = np.inf
    on_grasp: Callable[[int], None] = _nothing
    skipped_rows: Collection[int] = ()
    together: SimulateTogether | None = None


def evaluate_grasps(
    hands: HandModel,
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    grasps: ObjectGrasps,
    protocol: ProtocolConfig,
    rule: PoseConfig,
    simulations: Simulations,
) -> Evaluation:
    """Returns the verdicts of a protocol on the grasps of one object; the same bits for any number of threads.

    Args:
        hands: both hands, on the CPU.
        pieces: vertices of the object's convex pieces at unit scale, m.
        grasps: the grasps.
        protocol: physics, trial and limits.
        rule: the rule that makes pre-grasp and squeeze.
        simulations: how they are run.

    Raises:
        InputError: grasps of other hands, or pieces that MuJoCo refuses.
        ValueError: the protocol simulates on a device, and `simulations` do not, or the other way.
    """
    if protocol.simulator.is_on_device != (simulations.together is not None):
        raise ValueError(f"protocol {protocol.name!r} has simulator.engine={protocol.simulator.engine}: see `together`")
    left, right = hands.descriptions
    sizes, size_index = np.unique(grasps.object_scale, return_inverse=True)
    scenes = [build_scene(left, right, [float(size) * piece for piece in pieces], protocol) for size in sizes]
    surface = PieceSurface(pieces) if rule.rule == "forces" else None
    stages = stages_of(hands, grasps, rule, protocol.hand, surface)

    def task_of(row: int) -> _Task | Reason:
        if row in simulations.skipped_rows:
            return Reason.SIMULATION_FAILED
        if stages.residual[row] > simulations.largest_residual:
            return Reason.UNBALANCED
        pushes = Pushes(push_order(stages.force[row]), simulations.until_lost)
        return _task_of(scenes[size_index[row]], _stages_of_row(stages, row, rule.free_depth), pushes)

    def evaluate_row(row: int) -> _GraspResult:
        if row not in simulations.skipped_rows:
            simulations.on_grasp(row)
        task = task_of(row)
        if isinstance(task, Reason):
            return _not_evaluated(task, len(hands.names))
        return _measured(hands, task, simulate_grasp(task.scene, task.trial.poses, task.trial.pushes))

    rows = range(grasps.poses.count)
    with quiet_mujoco(), ThreadPoolExecutor(simulations.threads) as pool:
        if simulations.together:
            results = _evaluated_together(hands, list(pool.map(task_of, rows)), simulations, pool)
        else:
            results = list(pool.map(evaluate_row, rows))
    return _columns(stages, results, len(hands.names))


def _evaluated_together(
    hands: HandModel, tasks: list[_Task | Reason], simulations: Simulations, pool: Executor
) -> list[_GraspResult]:
    """Returns the results of all grasps, of which those of one size are simulated together."""
    verdicts: dict[int, Verdict] = {}
    by_scene: dict[int, list[int]] = {}
    for row, task in enumerate(tasks):
        if not isinstance(task, Reason):
            by_scene.setdefault(id(task.scene), []).append(row)
    for rows in by_scene.values():
        together = simulations.together(tasks[rows[0]].scene, [tasks[row].trial for row in rows], pool)
        verdicts |= zip(rows, together, strict=True)

    def finish(row: int) -> _GraspResult:
        simulations.on_grasp(row)
        task = tasks[row]
        if isinstance(task, Reason):
            return _not_evaluated(task, len(hands.names))
        return _measured(hands, task, verdicts[row])

    return list(pool.map(finish, range(len(tasks))))


class _RowStages(NamedTuple):
    """The poses of one grasp, see `Stages`; a pre-grasp that is less deep than `free_depth`, m, is free."""

    pre_grasps: list[HandPoses]
    grasp: HandPoses
    squeeze: HandPoses
    free_depth: float


def _stages_of_row(stages: Stages, row: int, free_depth: float) -> _RowStages:
    *pre_grasps, grasp, squeeze = (
        HandPoses(*(part[row] for part in poses)) for poses in (*stages.pre_grasps, stages.grasp, stages.squeeze)
    )
    return _RowStages(pre_grasps, grasp, squeeze, free_depth)


class _Task(NamedTuple):
    """A grasp that is to be simulated, and which of the openings its pre-grasp has."""

    scene: Scene
    trial: Trial
    opening: int


def _task_of(scene: Scene, stages: _RowStages, pushes: Pushes) -> _Task | Reason:
    """Returns what is to be simulated of a grasp; a reason where there is nothing."""
    if not all(pose.finite for pose in (*stages.pre_grasps, stages.grasp, stages.squeeze)):
        return Reason.NOT_FINITE
    opening = _free_opening(scene, stages.pre_grasps, stages.free_depth) if len(stages.pre_grasps) > 1 else NO_CHOICE
    poses = GraspPoses(stages.pre_grasps[max(opening, 0)], stages.grasp, stages.squeeze)
    return _Task(scene, Trial(poses, pushes), opening)


def _measured(hands: HandModel, task: _Task, verdict: Verdict) -> _GraspResult:
    """Returns the result of a simulated grasp."""
    grasp = task.trial.poses.grasp
    depth, distance = np.array(penetration(task.scene, grasp)), _link_distances(hands, task.scene, grasp)
    return _GraspResult(verdict, depth, distance, task.opening)


def _free_opening(scene: Scene, pre_grasps: list[HandPoses], free_depth: float) -> int:
    """Returns the first pre-grasp of which no hand stands deep in the object or the other hand, else the least deep."""
    depths = []
    for opening, pre_grasp in enumerate(pre_grasps):
        depth = penetration(scene, pre_grasp)
        depths.append(max(depth.hand_object, depth.hand_hand))
        if depths[-1] < free_depth:
            return opening
    return int(np.argmin(depths))


def _not_evaluated(reason: Reason, links: int) -> _GraspResult:
    """Returns the result for a grasp that is not simulated: NaN in place of all measurements."""
    verdict = not_simulated(reason, Penetration(np.nan, np.nan, np.nan))
    return _GraspResult(verdict, np.full(3, np.nan), np.full((2, links), np.nan), NO_CHOICE)


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


def _columns(stages: Stages, results: list[_GraspResult], links: int) -> Evaluation:
    """Returns the results as columns."""
    verdicts = [result.verdict for result in results]

    def column(values: list, *shape: int) -> np.ndarray:
        return np.array(values).reshape(len(results), *shape)

    opening = column([result.opening for result in results]).astype(np.int32)
    return Evaluation(
        stages=(_chosen(stages.pre_grasps, opening), stages.grasp, stages.squeeze),
        opening=opening,
        residual=stages.residual,
        reason=column([int(verdict.reason) for verdict in verdicts]).astype(np.int32),
        start_penetration=column([verdict.penetration for verdict in verdicts], 3),
        penetration=column([result.penetration for result in results], 3),
        link_distance=column([result.link_distance for result in results], 2, links),
        displacement=column([verdict.displacement for verdict in verdicts], 6),
        rotation=column([verdict.rotation for verdict in verdicts], 6),
        held=column([verdict.held for verdict in verdicts], 6).astype(bool),
        bears_load=column([verdict.bears_load for verdict in verdicts], 2).astype(bool),
    )


def _chosen(pre_grasps: tuple[Poses, ...], opening: Int[np.ndarray, " grasp"]) -> Poses:
    """Returns for each grasp the pre-grasp of its opening."""
    row = np.arange(len(opening))
    return Poses(*(np.stack(parts)[np.maximum(opening, 0), row] for parts in zip(*pre_grasps, strict=True)))


def verdict_columns(evaluation: Evaluation) -> dict[str, np.ndarray]:
    """Returns verdicts as columns of the file, a row for each grasp."""
    columns = {
        f"pose/{name}": np.stack([getattr(stage, name) for stage in evaluation.stages], axis=1)
        for name in Poses._fields
    }
    columns |= {"pose/opening": evaluation.opening}
    columns |= {f"verdict/{name}": getattr(evaluation, name) for name in Evaluation._fields[2:]}
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
