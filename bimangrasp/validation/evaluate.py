"""All grasps of one object before a protocol: stages, simulation, and the distances that the metrics want."""

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
from bimangrasp.validation.penetration import penetration
from bimangrasp.validation.pregrasp import stages_of
from bimangrasp.validation.scene import Scene, build_scene, place
from bimangrasp.validation.sim_poses import GraspPoses, HandPoses
from bimangrasp.validation.simulate import validate_muted
from bimangrasp.validation.verdict import DIRECTIONS, Penetration, Reason, Verdict, not_simulated

FARTHEST_LINK = 0.02
"""Distances of links to the object are looked for up to here, m; the metrics ask for less."""


class Subject(NamedTuple):
    """Grasps of one object, as they were optimized.

    Attributes:
        poses: N grasps.
        candidate: the chosen contacts.
        normal: outward from the object at the contacts.
        object_scale: factor on the object's mesh.
    """

    poses: Poses
    candidate: Int[np.ndarray, "grasp 2 contact"]
    normal: Float[np.ndarray, "grasp 2 contact 3"]
    object_scale: Float[np.ndarray, " grasp"]


class Judged(NamedTuple):
    """What a protocol says of N grasps. Directions are those of `verdict.DIRECTIONS`.

    Attributes:
        stages: pre-grasp, grasp and squeeze, as they were simulated.
        reason: a `Reason` each.
        start_penetration: of hand in object, of hand in hand, of hand in itself, where the simulation starts, m.
        penetration: the same at the grasp.
        link_distance: of each link to the object at the grasp, m, negative inside; at most `FARTHEST_LINK`.
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


class _Look(NamedTuple):
    """What is found out about one grasp."""

    verdict: Verdict
    penetration: np.ndarray
    link_distance: np.ndarray


def judge(
    hands: HandModel,
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    subject: Subject,
    protocol: ProtocolConfig,
    rule: PoseConfig,
    threads: int,
    on_grasp: Callable[[int], None] | None = None,
    deadly: Collection[int] = (),
) -> Judged:
    """Returns what a protocol says of the grasps of one object; the same bits for any number of threads.

    Args:
        hands: both hands, on the CPU.
        pieces: vertices of the object's convex pieces at unit scale.
        subject: the grasps.
        protocol: see there.
        rule: makes pre-grasp and squeeze.
        threads: that simulate.
        on_grasp: called with each row, as its simulation begins, by the thread that does it.
        deadly: rows that are not simulated, for that does not end; their verdict is that it failed.

    Raises:
        InputError: grasps of other hands, or pieces that MuJoCo refuses.
    """
    stages = stages_of(hands, subject.poses, subject.candidate, subject.normal, rule)
    left, right = hands.descriptions
    sizes, of_size = np.unique(subject.object_scale, return_inverse=True)
    scenes = [build_scene(left, right, [float(size) * piece for piece in pieces], protocol) for size in sizes]

    def look(row: int) -> _Look:
        poses = GraspPoses(*(_row(stage, row) for stage in stages))
        if row in deadly:
            return _unknown(Reason.SIMULATION_FAILED, len(hands.names))
        if on_grasp:
            on_grasp(row)
        return _look(hands, scenes[of_size[row]], poses)

    with quiet_mujoco(), ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(look, range(subject.poses.count)))
    return _columns(stages, found, len(hands.names))


def _row(stage: Poses, row: int) -> HandPoses:
    return HandPoses(*(part[row] for part in stage))


def _look(hands: HandModel, scene: Scene, poses: GraspPoses) -> _Look:
    if not poses.finite:
        return _unknown(Reason.NOT_FINITE, len(hands.names))
    verdict = validate_muted(scene, poses)
    return _Look(verdict, np.array(penetration(scene, poses.grasp)), _link_distances(hands, scene, poses.grasp))


def _unknown(reason: Reason, links: int) -> _Look:
    """Returns what is known of a grasp that is not simulated."""
    verdict = not_simulated(reason, Penetration(np.nan, np.nan, np.nan))
    return _Look(verdict, np.full(3, np.nan), np.full((2, links), np.nan))


def _link_distances(hands: HandModel, scene: Scene, pose: HandPoses) -> Float[np.ndarray, "2 link"]:
    """Returns the least distance of the shapes of each link to the object's pieces, at most FARTHEST_LINK."""
    model, data = scene.model, mujoco.MjData(scene.model)
    place(scene, data, pose)
    mujoco.mj_kinematics(model, data)
    found = np.full((2, len(hands.names)), FARTHEST_LINK)
    for side, geoms in enumerate(scene.hand_geoms):
        for geom, shape in zip(geoms.tolist(), hands.descriptions[side].primitives, strict=True):
            for piece in scene.object_geoms.tolist():
                away = np.linalg.norm(data.geom_xpos[geom] - data.geom_xpos[piece])
                if away < model.geom_rbound[geom] + model.geom_rbound[piece] + FARTHEST_LINK:
                    distance = mujoco.mj_geomDistance(model, data, geom, piece, FARTHEST_LINK, None)
                    found[side, shape.link] = min(found[side, shape.link], distance)
    return found


def _columns(stages: tuple[Poses, Poses, Poses], found: list[_Look], links: int) -> Judged:
    """Returns what was found as columns."""
    verdicts = [one.verdict for one in found]

    def column(values: list, *shape: int) -> np.ndarray:
        return np.array(values).reshape(len(found), *shape)

    return Judged(
        stages,
        column([int(one.reason) for one in verdicts]).astype(np.int32),
        column([one.penetration for one in verdicts], 3),
        column([one.penetration for one in found], 3),
        column([one.link_distance for one in found], 2, links),
        column([one.displacement for one in verdicts], 6),
        column([one.rotation for one in verdicts], 6),
        column([one.held for one in verdicts], 6).astype(bool),
        column([one.bears_load for one in verdicts], 2).astype(bool),
    )


def verdict_columns(judged: Judged) -> dict[str, np.ndarray]:
    """Returns verdicts as columns of the file, a row for each grasp."""
    parts = zip(Poses._fields, zip(*judged.stages, strict=True), strict=True)
    columns = {f"pose/{name}": np.stack(stages, axis=1) for name, stages in parts}
    columns |= {f"verdict/{name}": getattr(judged, name) for name in Judged._fields[1:]}
    return {f.name: columns[f.name].astype(f.dtype) for f in VERDICT_FIELDS}


def reading(link_names: Sequence[str]) -> dict[str, Any]:
    """Returns what a reader must know of the columns' axes and numbers.

    Args:
        link_names: of a hand, in the order of `verdict/link_distance`.
    """
    return {
        "stages": list(STAGES),
        "reasons": [reason.name.lower() for reason in Reason],
        "directions": DIRECTIONS.tolist(),
        "link_names": list(link_names),
    }
