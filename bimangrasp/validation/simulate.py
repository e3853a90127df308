"""Simulates a grasp: to the object, squeeze, push it in six directions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import mujoco
import numpy as np

from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.validation.penetration import penetration
from bimangrasp.validation.scene import Scene, aim, object_motion, place
from bimangrasp.validation.sim_poses import GraspPoses, HandPoses, check_poses, interpolate
from bimangrasp.validation.verdict import (
    DIRECTIONS,
    Penetration,
    PushEnd,
    Reason,
    Verdict,
    not_simulated,
    too_deep,
    verdict_of,
)

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""All that the next step depends on, the solver's warm start included."""


class _WarningError(Exception):
    """MuJoCo has warned of a state or of contacts that it cannot go on with."""


_BLOWN_UP = (_WarningError, mujoco.FatalError)


def validate(scene: Scene, poses: GraspPoses) -> Verdict:
    """Returns what the scene's protocol says of one grasp. Equal arguments give equal bits.

    Each direction is tried until it fails. They share the way to the squeeze, which is simulated once. For several
    threads use `validate_all`: MuJoCo's warnings are muted for the whole process meanwhile.

    Args:
        scene: hands, object and protocol.
        poses: in the object's frame, with the object at the origin.

    Raises:
        InputError: finite poses that are not those of these hands. Nothing else: a pose that is not finite and a
            simulation that blows up are verdicts.
    """
    with quiet_mujoco():
        return validate_muted(scene, poses)


def validate_all(scene: Scene, grasps: Iterable[GraspPoses], threads: int) -> Iterator[Verdict]:
    """Yields the verdicts on grasps in their order, simulated in `threads` threads; see `validate`.

    The verdicts do not depend on the order or the number of threads: grasps share nothing that changes.
    """
    with quiet_mujoco(), ThreadPoolExecutor(threads) as pool:
        yield from pool.map(partial(validate_muted, scene), grasps)


def validate_muted(scene: Scene, poses: GraspPoses) -> Verdict:
    """Returns what `validate` does, for callers that have muted MuJoCo's warnings themselves, for all threads."""
    if not poses.finite:
        return not_simulated(Reason.NOT_FINITE, Penetration(np.nan, np.nan, np.nan))
    check_poses(poses, scene.joint_qpos.shape[1])
    waypoints = [getattr(poses, name) for name in scene.protocol.trial.waypoints]
    depth = penetration(scene, waypoints[0])
    if too_deep(depth, scene.protocol.limits):
        return not_simulated(Reason.PENETRATION, depth)
    data = mujoco.MjData(scene.model)
    place(scene, data, waypoints[0])
    try:
        _approach(scene, data, waypoints)
    except _BLOWN_UP:
        return not_simulated(Reason.SIMULATION_FAILED, depth)
    squeezed = _read_state(scene, data)
    ends = [_push(scene, data, squeezed, direction) for direction in DIRECTIONS]
    return verdict_of(depth, ends, scene.protocol.limits)


def _approach(scene: Scene, data: mujoco.MjData, waypoints: list[HandPoses]) -> None:
    """Moves the targets along the waypoints, each leg on its own."""
    trial = scene.protocol.trial
    for start, end in pairwise(waypoints):
        for stage in range(1, trial.stages + 1):
            aim(data, interpolate(start, end, stage / trial.stages))
            _step(scene, data, trial.steps_per_stage)


def _push(scene: Scene, data: mujoco.MjData, squeezed: np.ndarray, direction: np.ndarray) -> PushEnd:
    """Returns how the object fared in one direction, pushed at its center of mass from the squeezed state."""
    trial, limits = scene.protocol.trial, scene.protocol.limits
    mujoco.mj_resetData(scene.model, data)  # a direction that blew up has left its warnings
    mujoco.mj_setState(scene.model, data, squeezed, _STATE)
    mass = scene.model.body_mass[scene.object_body]
    data.xfrc_applied[scene.object_body, :3] = mass * trial.push_acceleration * direction
    for _ in range(trial.looks):
        try:
            _step(scene, data, trial.steps_per_look)
        except _BLOWN_UP:
            return PushEnd(np.nan, np.nan, np.zeros(2))
        displacement, rotation = object_motion(scene, data)
        if displacement >= limits.displacement or rotation >= limits.rotation:
            break
    return PushEnd(displacement, rotation, _hand_forces(scene, data))


def _read_state(scene: Scene, data: mujoco.MjData) -> np.ndarray:
    state = np.empty(mujoco.mj_stateSize(scene.model, _STATE))
    mujoco.mj_getState(scene.model, data, state, _STATE)
    return state


def _step(scene: Scene, data: mujoco.MjData, steps: int) -> None:
    """Simulates on. One call for all steps: MuJoCo runs them without Python's lock."""
    mujoco.mj_step(scene.model, data, nstep=steps)
    if data.warning.number.any() or not np.isfinite(data.qpos).all():
        raise _WarningError


def _hand_forces(scene: Scene, data: mujoco.MjData) -> np.ndarray:
    """Returns the normal force of each hand on the object, (2,) N, of the last step."""
    forces, wrench = np.zeros(2), np.zeros(6)
    for index in range(data.ncon):
        pair = data.contact.geom[index]
        if not np.isin(pair, scene.object_geoms).any():
            continue
        mujoco.mj_contactForce(scene.model, data, index, wrench)
        for hand, geoms in enumerate(scene.hand_geoms):
            forces[hand] += wrench[0] * np.isin(pair, geoms).any()
    return forces
