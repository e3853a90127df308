"""Simulates a grasp: measures its penetration, moves the hands to the object, squeezes it and pushes it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple

import mujoco
import numpy as np

from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.validation import verdict
from bimangrasp.validation.config import ProtocolConfig
from bimangrasp.validation.scene import (
    GraspPoses,
    HandPoses,
    Motion,
    Scene,
    check_grasp_poses,
    interpolate,
    motion_between,
    motion_from_start,
    object_state,
    set_pose,
    set_targets,
)

REST_MARGIN = 3.0
"""An object that creeps is at rest only where so many times its last motion would not lose it in the looks ahead."""

_ALL_PUSHES = verdict.Pushes()
_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""All state that the next step depends on, including the warm start of the solver."""


class _WarningError(Exception):
    """MuJoCo has warned of a diverged state or of too many contacts."""


_SIMULATION_ERRORS = (_WarningError, mujoco.FatalError)


def simulate_grasp(scene: Scene, poses: GraspPoses, pushes: verdict.Pushes = _ALL_PUSHES) -> verdict.Verdict:
    """Returns the verdict of the scene's protocol on a grasp. Equal arguments give equal bits, in any thread.

    Each direction is tried until it fails. The approach up to the squeeze is simulated once for all directions.
    MuJoCo's warnings, which it writes to a file in the current folder, are muted for a whole process: the caller does
    that (`quiet_mujoco`).

    Args:
        scene: hands, object and protocol.
        poses: in the object's frame, with the object at the origin.
        pushes: their order, and whether all are made of a grasp that fails one.

    Raises:
        InputError: finite poses that are not those of these hands. Nothing else: a pose that is not finite and a
            simulation that diverges have verdicts.
    """
    start = start_of(scene, poses)
    if start.verdict is not None:
        return start.verdict
    waypoints = [getattr(poses, name) for name in scene.protocol.trial.waypoints]
    physics = scene.protocol.physics
    if physics.noslip == "near":
        slipping = _pushed(replace(scene, model=scene.slipping_model), waypoints, start.penetration, pushes)
        if not verdict.fails_narrowly(slipping, pushes.order, physics):
            return slipping
    return _pushed(scene, waypoints, start.penetration, pushes)


class Trial(NamedTuple):
    """A grasp as it is simulated: its poses and its pushes, see `simulate_grasp`."""

    poses: GraspPoses
    pushes: verdict.Pushes


class Start(NamedTuple):
    """Where a simulation begins: how deep hands stand there, and the verdict where that is too much."""

    penetration: verdict.Penetration
    verdict: verdict.Verdict | None


def start_of(scene: Scene, poses: GraspPoses) -> Start:
    """Returns the start of a simulation. Raises InputError for finite poses that are not those of these hands."""
    if not poses.finite:
        unknown = verdict.Penetration(np.nan, np.nan, np.nan)
        return Start(unknown, verdict.not_simulated(verdict.Reason.NOT_FINITE, unknown))
    check_grasp_poses(poses, scene.joint_qpos.shape[1])
    depth = penetration(scene, getattr(poses, scene.protocol.trial.waypoints[0]))
    if verdict.too_deep(depth, scene.protocol.limits):
        return Start(depth, verdict.not_simulated(verdict.Reason.PENETRATION, depth))
    return Start(depth, None)


def _pushed(
    scene: Scene, waypoints: list[HandPoses], depth: verdict.Penetration, pushes: verdict.Pushes
) -> verdict.Verdict:
    """Returns the verdict on a grasp whose start, of these depths, is allowed."""
    limits, data = scene.protocol.limits, mujoco.MjData(scene.model)
    set_pose(scene, data, waypoints[0])
    try:
        _approach(scene, data, waypoints)
    except _SIMULATION_ERRORS:
        return verdict.not_simulated(verdict.Reason.SIMULATION_FAILED, depth)
    squeezed = _read_state(scene, data)
    ends: dict[int, verdict.PushEnd] = {}
    for direction in pushes.order:
        ends[direction] = _push_object(scene, data, squeezed, verdict.DIRECTIONS[direction])
        if pushes.until_lost and verdict.reason_of(ends[direction], limits) is not verdict.Reason.HELD:
            break
    return verdict.verdict_of(depth, ends, limits)


def _approach(scene: Scene, data: mujoco.MjData, waypoints: list[HandPoses]) -> None:
    """Moves the targets along the waypoints, stage by stage."""
    trial = scene.protocol.trial
    for start, end in pairwise(waypoints):
        for stage in range(1, trial.stages + 1):
            set_targets(scene, data, interpolate(start, end, stage / trial.stages))
            _step(scene, data, trial.steps_per_stage)


def _push_object(scene: Scene, data: mujoco.MjData, squeezed: np.ndarray, direction: np.ndarray) -> verdict.PushEnd:
    """Pushes the object at its center of mass from the squeezed state; returns how far it has moved at the end.

    The end is that of the last look, or earlier where the object is lost or has come to rest.
    """
    trial = scene.protocol.trial
    mujoco.mj_resetData(scene.model, data)  # clears the warnings of a direction that diverged
    mujoco.mj_setState(scene.model, data, squeezed, _STATE)
    mass = scene.model.body_mass[scene.object_body]
    data.xfrc_applied[scene.object_body, :3] = mass * trial.push_acceleration * direction
    for look in range(trial.looks):
        before = object_state(scene, data)
        try:
            _step(scene, data, trial.steps_per_look)
        except _SIMULATION_ERRORS:
            return verdict.PushEnd(np.nan, np.nan, np.zeros(2))
        state = object_state(scene, data)
        from_start = motion_from_start(state)
        if has_ended(scene.protocol, look, from_start, motion_between(before, state)):
            break
    return verdict.PushEnd(float(from_start.displacement), float(from_start.rotation), _hand_forces(scene, data))


def has_ended(protocol: ProtocolConfig, look: Any, from_start: Motion, since_look: Motion) -> Any:
    """Returns whether a push ends with a look: the last one, or the object is lost, or at rest. Arrays for several.

    Args:
        protocol: its trial and limits.
        look: how many looks there were before.
        from_start: how far the object has moved since the trial began.
        since_look: the same since the look before.
    """
    trial, limits = protocol.trial, protocol.limits
    is_lost = (from_start.displacement >= limits.displacement) | (from_start.rotation >= limits.rotation)
    ahead = REST_MARGIN * (trial.looks - 1 - look)
    stays = (from_start.displacement + ahead * since_look.displacement < limits.displacement) & (
        from_start.rotation + ahead * since_look.rotation < limits.rotation
    )
    rests = (since_look.displacement < trial.rest_displacement) & (since_look.rotation < trial.rest_rotation)
    return is_lost | (stays & rests) | (look == trial.looks - 1)


def _read_state(scene: Scene, data: mujoco.MjData) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(scene.model, _STATE))
    mujoco.mj_getState(scene.model, data, state, _STATE)
    return state


def _step(scene: Scene, data: mujoco.MjData, steps: int) -> None:
    """Simulates these steps in one call, which MuJoCo runs without Python's lock."""
    mujoco.mj_step(scene.model, data, nstep=steps)
    if data.warning.number.any() or not np.isfinite(data.qpos).all():
        raise _WarningError


def _hand_forces(scene: Scene, data: mujoco.MjData) -> np.ndarray:
    """Returns the normal force of each hand on the object in the last step, (2,) N."""
    forces, wrench = np.zeros(2), np.zeros(6)
    for index in range(data.ncon):
        pair = data.contact.geom[index]
        if not np.isin(pair, scene.object_geoms).any():
            continue
        mujoco.mj_contactForce(scene.model, data, index, wrench)
        for hand, geoms in enumerate(scene.hand_geoms):
            forces[hand] += wrench[0] * np.isin(pair, geoms).any()
    return forces


def penetration(scene: Scene, pose: HandPoses) -> verdict.Penetration:
    """Returns the greatest depths of a pose, with the object where it starts.

    The depth of a pair of convex shapes is the shortest translation that separates them, exact up to MuJoCo's
    tolerance; it does not depend on contact margins, so it means the same in every protocol.
    """
    data = mujoco.MjData(scene.model)
    set_pose(scene, data, pose)
    mujoco.mj_kinematics(scene.model, data)
    left, right = scene.hand_geoms
    pairs = {
        "hand_object": _pairs(np.concatenate((left, right)), scene.object_geoms),
        "hand_hand": _pairs(left, right),
        "self_hand": np.concatenate((scene.self_pairs[LEFT], scene.self_pairs[RIGHT])),
    }
    return verdict.Penetration(**{name: _deepest(scene.model, data, geoms) for name, geoms in pairs.items()})


def _pairs(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Returns all pairs, (P, 2)."""
    return np.stack(np.meshgrid(first, second), axis=-1).reshape(-1, 2)


def _deepest(model: mujoco.MjModel, data: mujoco.MjData, pairs: np.ndarray) -> float:
    """Returns the greatest depth over pairs of geoms, m; pairs with disjoint bounding spheres are skipped."""
    first, second = pairs.T
    center_distance = np.linalg.norm(data.geom_xpos[first] - data.geom_xpos[second], axis=1)
    near = pairs[center_distance < model.geom_rbound[first] + model.geom_rbound[second]]
    return max((-mujoco.mj_geomDistance(model, data, a, b, 0.0, None) for a, b in near.tolist()), default=0.0)
