"""Builds two hands and an object as a MuJoCo model, compiled once for all grasps, and sets their poses."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import NamedTuple

import mujoco
import numpy as np
from jaxtyping import Float
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.grasp import LEFT, RIGHT
from bimangrasp.hand_files.read_hand import quiet_mujoco
from bimangrasp.hands.couplings import CoordinateTable
from bimangrasp.hands.description import HandDescription, on_couplings, rigid_parts
from bimangrasp.hands.mujoco_bodies import (
    add_couplings,
    add_links,
    add_mesh,
    add_shape,
    link_name,
    node_names,
    weigh_shapeless,
)
from bimangrasp.validation.config import HandDynamicsConfig, PhysicsConfig, ProtocolConfig

SIDES = ("left", "right")

PARKED = ((-2.0, 0.0, 0.0), (2.0, 0.0, 0.0))
"""Positions of the hands' roots in the model's reference pose, m: far from the object and each other, since MuJoCo
returns to that pose when a simulation diverges."""

ROTATION_TOLERANCE = 1e-3
"""Largest entry of R R^T - 1: float32 gives 1e-6, a matrix that is no rotation about 1."""


@dataclass(frozen=True)
class Scene:
    """The compiled model with its indices. Constant: any number of threads may use it at the same time.

    Attributes:
        model: both hands and the object, whose frame coincides with the world's at the start.
        slipping_model: the same without the passes that undo slip.
        protocol: the protocol for which it was built.
        object_body: index of the object's body.
        object_geoms: indices of the convex pieces.
        hand_geoms: indices of each hand's shapes.
        self_pairs: (P, 2) pairs of shapes of each hand that may touch each other.
        root_qpos: index of the first of seven coordinates of each hand's root; empty where roots do not float.
        joint_qpos: (2, J) indices of the joints' coordinates.
        object_qpos: index of the first of the object's seven coordinates.
        commands: how each hand's targets follow from its joints, see `CoordinateTable`; None where they are the joints.
    """

    model: mujoco.MjModel
    slipping_model: mujoco.MjModel
    protocol: ProtocolConfig
    object_body: int
    object_geoms: np.ndarray
    hand_geoms: tuple[np.ndarray, np.ndarray]
    self_pairs: tuple[np.ndarray, np.ndarray]
    root_qpos: tuple[int, ...]
    joint_qpos: np.ndarray
    object_qpos: int
    commands: tuple[CoordinateTable, CoordinateTable] | None = None


def build_scene(
    left: HandDescription,
    right: HandDescription,
    pieces: Sequence[Float[np.ndarray, "_ 3"]],
    protocol: ProtocolConfig,
) -> Scene:
    """Returns the scene of one object at one size.

    A hand has the links, joints, shapes and couplings of its description; an actuator drives each joint that follows no
    other, and each tendon that does not. Its links do not touch
    neighbors in the tree, nor links that overlap them both with all joints in the middle of their ranges and at the
    mean of their first values: such shapes overlap by design (a finger's root in the palm), and the forces that part
    them would work against the actuators. One posture is not enough: in the middle two fingers may cross.

    Args:
        left: the left hand.
        right: the right hand, with the same joints.
        pieces: vertices of each convex piece of the object, m, in its frame and at the size that is grasped. MuJoCo
            collides their hulls, and the object's mass is spread evenly over these.
        protocol: physics of hands and object.

    Raises:
        InputError: a piece is flat or not finite, there is none, MuJoCo refuses a shape, or the hands differ in their
            joints.
    """
    if left.joint_names != right.joint_names:
        raise InputError(
            f"the left hand has the joints {left.joint_names}, the right one {right.joint_names}; both hands must have "
            "the same, in the same order: use the mirror of one hand for the other"
        )
    spec = _empty_world(protocol.physics)
    _add_object(spec, pieces, protocol)
    for hand, side, parking_place in zip((left, right), SIDES, PARKED, strict=True):
        _add_hand(spec, hand, side, parking_place, protocol)
    with quiet_mujoco():
        model = _compile(spec)
        for hand, side in zip((left, right), SIDES, strict=True):
            for first, second in sorted(_excluded_link_pairs(model, hand, side)):
                spec.add_exclude(bodyname1=link_name(hand, side, first), bodyname2=link_name(hand, side, second))
        model = _compile(spec)
    return _scene(model, (left, right), protocol)


def _empty_world(physics: PhysicsConfig) -> mujoco.MjSpec:
    """Returns a world without bodies. Gravity is off: pushes replace it, and hands carry their own weight."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = physics.timestep
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = physics.impratio
    spec.option.noslip_iterations = physics.noslip_iterations
    spec.option.gravity = np.zeros(3)
    spec.default.geom.condim = physics.contact_dimensions
    spec.default.geom.friction = physics.friction
    return spec


def _add_object(spec: mujoco.MjSpec, pieces: Sequence[np.ndarray], protocol: ProtocolConfig) -> None:
    """Adds the object as a free body of convex pieces."""
    volume = sum(_hull_volume(piece, number) for number, piece in enumerate(pieces))
    if not volume:
        raise InputError("the object has no convex pieces; wanted at least one, such as its convex hull")
    density = protocol.object_density if protocol.object_mass is None else protocol.object_mass / volume
    body = spec.worldbody.add_body(name="object")
    body.add_freejoint(name="object")
    for number, piece in enumerate(pieces):
        add_mesh(spec, body, f"object/{number}", piece, density=density)


def _hull_volume(piece: np.ndarray, number: int) -> float:
    """Returns the volume of a piece's convex hull, m3."""
    if piece.ndim != 2 or piece.shape[1] != 3 or not np.isfinite(piece).all():
        raise InputError(
            f"convex piece {number} of the object is an array of shape {piece.shape}, perhaps with NaN; "
            "wanted finite vertices (V, 3) in m"
        )
    try:
        return float(ConvexHull(piece).volume)
    except QhullError as error:
        extent = np.ptp(piece, axis=0).tolist()
        raise InputError(
            f"convex piece {number} of the object is flat: its {len(piece)} vertices span {extent} m; leave it out or "
            "decompose the mesh again"
        ) from error


def _add_hand(
    spec: mujoco.MjSpec, hand: HandDescription, side: str, parking_place: tuple[float, ...], protocol: ProtocolConfig
) -> None:
    """Adds a hand's links, joints, shapes and actuators, and what holds its root."""
    dynamics = protocol.hand
    root = spec.worldbody.add_body(name=link_name(hand, side, 0), pos=parking_place, mocap=not dynamics.floating)
    if dynamics.floating:
        root.add_freejoint(name=f"{side} root")
        _add_weld(spec, side, root.name, parking_place, dynamics)
    bodies = add_links(root, hand, side)
    names = node_names(hand, side)
    for joint, link in enumerate(hand.joint_link):
        _add_joint(bodies[link], hand, joint, names[joint], dynamics)
    add_couplings(spec, hand, side)
    for node in hand.coordinates.free.tolist():
        is_joint = node < len(hand.joint_names)
        kind = mujoco.mjtTrn.mjTRN_JOINT if is_joint else mujoco.mjtTrn.mjTRN_TENDON
        _add_actuator(spec, names[node], kind, dynamics)
    physics = protocol.physics
    material = {"density": dynamics.density, "solimp": physics.hand_solimp, "solref": physics.hand_solref}
    for number, shape in enumerate(hand.primitives):
        add_shape(spec, bodies[shape.link], f"{side}/{number}", shape, shape.T_link_shape, is_hull=True, **material)
    weigh_shapeless(bodies, hand, dynamics.shapeless_mass, dynamics.shapeless_inertia)


def _add_weld(
    spec: mujoco.MjSpec, side: str, root: str, parking_place: tuple[float, ...], dynamics: HandDynamicsConfig
) -> None:
    """Adds the target body, whose pose is set directly, and welds the floating root to it."""
    target = spec.worldbody.add_body(name=f"{side} target", pos=parking_place, mocap=True)
    weld = spec.add_equality(
        name=f"{side} weld",
        type=mujoco.mjtEq.mjEQ_WELD,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        name1=target.name,
        name2=root,
        solimp=dynamics.weld_solimp,
    )
    anchor, offset, no_turn = np.zeros(3), np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    weld.data[:11] = np.concatenate((anchor, offset, no_turn, [dynamics.weld_torquescale]))


def _add_joint(
    body: mujoco.MjsBody, hand: HandDescription, joint: int, name: str, dynamics: HandDynamicsConfig
) -> None:
    """Adds a hinge."""
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=hand.joint_axis[joint],
        limited=True,
        range=(hand.joint_lower[joint], hand.joint_upper[joint]),
        damping=dynamics.joint_damping,
        armature=dynamics.joint_armature,
        frictionloss=dynamics.joint_frictionloss,
    )


def _add_actuator(spec: mujoco.MjSpec, target: str, kind: mujoco.mjtTrn, dynamics: HandDynamicsConfig) -> None:
    """Adds the actuator of a joint or tendon; a tendon's value is an angle, so it has the same gains.

    Targets are not clamped to the joint's range: a squeeze beyond it presses on, up to the force limit.
    """
    actuator = spec.add_actuator(name=target, target=target, trntype=kind)
    actuator.gainprm[0] = dynamics.kp  # with the affine bias: torque = kp (target - joint) - kd speed
    actuator.biastype = mujoco.mjtBias.mjBIAS_AFFINE
    actuator.biasprm[:3] = (0.0, -dynamics.kp, -dynamics.kd)
    if np.isfinite(dynamics.force_limit):
        actuator.forcelimited = True
        actuator.forcerange = (-dynamics.force_limit, dynamics.force_limit)


def _compile(spec: mujoco.MjSpec) -> mujoco.MjModel:
    try:
        return spec.compile()
    except ValueError as error:
        raise InputError(
            f"MuJoCo cannot simulate these hands with this object: {str(error).strip()}. Names such as 'left/3' are "
            "shapes of a hand, 'object/3' convex pieces of the object."
        ) from error


def _excluded_link_pairs(model: mujoco.MjModel, hand: HandDescription, side: str) -> set[tuple[int, int]]:
    """Returns the pairs of links of a hand that must not collide with each other."""
    parts = rigid_parts(hand)
    parent_part = {part: parts[hand.parent[part]] for part in set(parts) if part}
    pairs = {
        (first, second)
        for first in range(len(parts))
        for second in range(first + 1, len(parts))
        if parts[first] == parts[second]
        or parent_part.get(parts[second]) == parts[first]
        or parent_part.get(parts[first]) == parts[second]
    }
    mid_range = on_couplings(hand, (hand.joint_lower + hand.joint_upper) / 2)
    overlapping = _overlapping_links(model, hand, side, mid_range)
    return pairs | (overlapping & _overlapping_links(model, hand, side, hand.joint_mean))


def _overlapping_links(
    model: mujoco.MjModel, hand: HandDescription, side: str, joints: np.ndarray
) -> set[tuple[int, int]]:
    """Returns the pairs of links whose shapes overlap at these joint values, (J,) rad."""
    data = mujoco.MjData(model)
    for name, angle in zip(hand.joint_names, joints, strict=True):
        data.joint(f"{side}/{name}").qpos = angle
    mujoco.mj_kinematics(model, data)
    geoms = [model.geom(f"{side}/{number}").id for number in range(len(hand.primitives))]
    pairs = set()
    for number, (shape, geom) in enumerate(zip(hand.primitives, geoms, strict=True)):
        for other, below in zip(hand.primitives[:number], geoms[:number], strict=True):
            if other.link != shape.link and mujoco.mj_geomDistance(model, data, below, geom, 0.0, None) < 0:
                pairs.add((min(other.link, shape.link), max(other.link, shape.link)))
    return pairs


def _scene(model: mujoco.MjModel, hands: tuple[HandDescription, HandDescription], protocol: ProtocolConfig) -> Scene:
    """Returns the model with its indices."""
    geoms = [
        np.array([model.geom(f"{side}/{number}").id for number in range(len(hand.primitives))])
        for side, hand in zip(SIDES, hands, strict=True)
    ]
    excluded = {int(signature) for signature in model.exclude_signature}
    roots = tuple(int(model.joint(f"{side} root").qposadr[0]) for side in SIDES) if protocol.hand.floating else ()
    joints = [
        [int(model.joint(f"{side}/{name}").qposadr[0]) for name in hand.joint_names]
        for side, hand in zip(SIDES, hands, strict=True)
    ]
    body = model.body("object").id
    slipping_model = copy(model)
    slipping_model.opt.noslip_iterations = 0
    return Scene(
        model=model,
        slipping_model=slipping_model,
        protocol=protocol,
        object_body=body,
        object_geoms=np.flatnonzero(model.geom_bodyid == body),
        hand_geoms=(geoms[LEFT], geoms[RIGHT]),
        self_pairs=(_self_pairs(model, geoms[LEFT], excluded), _self_pairs(model, geoms[RIGHT], excluded)),
        root_qpos=roots,
        joint_qpos=np.array(joints),
        object_qpos=int(model.joint("object").qposadr[0]),
        commands=tuple(hand.coordinates for hand in hands) if hands[LEFT].couplings else None,
    )


def _self_pairs(model: mujoco.MjModel, geoms: np.ndarray, excluded: set[int]) -> np.ndarray:
    """Returns the pairs of a hand's shapes, (P, 2), whose links may touch."""
    first, second = (geoms[side] for side in np.triu_indices(len(geoms), 1))
    low, high = np.sort(np.stack((model.geom_bodyid[first], model.geom_bodyid[second])), axis=0)
    allowed = [a != b and (a << 16) + b not in excluded for a, b in zip(low.tolist(), high.tolist(), strict=True)]
    return np.stack((first, second), axis=1)[allowed]


def set_pose(scene: Scene, data: mujoco.MjData, pose: HandPoses) -> None:
    """Sets the pose of both hands, at rest and with the pose as their target, and the object where it starts."""
    set_targets(scene, data, pose)
    data.qpos[:] = coordinates_at(scene, pose)


def set_targets(scene: Scene, data: mujoco.MjData, target: HandPoses) -> None:
    """Sets the targets of both roots and of all motors."""
    for name, values in target_of(scene, target)._asdict().items():
        getattr(data, name)[:] = values


class Target(NamedTuple):
    """What hands are pulled to, as MuJoCo has it; poses of several grasps have a first axis for them.

    Attributes:
        mocap_pos, mocap_quat: of both roots, quaternions scalar first.
        ctrl: of the joints and tendons with a motor of the left hand, then of the right.
    """

    mocap_pos: Float[np.ndarray, "*grasp hand 3"]
    mocap_quat: Float[np.ndarray, "*grasp hand 4"]
    ctrl: Float[np.ndarray, "*grasp actuator"]


def target_of(scene: Scene, pose: HandPoses) -> Target:
    """Returns the targets at a pose, or at a pose of each of several grasps."""
    commands = pose.joints
    if scene.commands:
        sides = enumerate(scene.commands)
        commands = np.stack([table.coordinates_of(pose.joints[..., side, :]) for side, table in sides], axis=-2)
    quaternions = Rotation.from_matrix(pose.rotation.reshape(-1, 3, 3)).as_quat(scalar_first=True)
    grasps = pose.joints.shape[:-2]
    return Target(pose.translation, quaternions.reshape(*grasps, 2, 4), commands.reshape(*grasps, -1))


def coordinates_at(scene: Scene, pose: HandPoses) -> Float[np.ndarray, "*grasp coordinate"]:
    """Returns all coordinates with both hands at a pose and the object where it starts; see `target_of`."""
    target = target_of(scene, pose)
    qpos = np.broadcast_to(scene.model.qpos0, (*target.ctrl.shape[:-1], scene.model.nq)).copy()
    qpos[..., scene.joint_qpos] = pose.joints
    for hand, first in enumerate(scene.root_qpos):
        qpos[..., first : first + 3] = target.mocap_pos[..., hand, :]
        qpos[..., first + 3 : first + 7] = target.mocap_quat[..., hand, :]
    return qpos


def object_state(scene: Scene, data: mujoco.MjData) -> Float[np.ndarray, "7"]:
    """Returns the object's position, m, and its rotation as a quaternion, scalar first."""
    return data.qpos[scene.object_qpos : scene.object_qpos + 7].copy()


class Motion(NamedTuple):
    """How far the object has moved, m, and turned, rad; arrays for several states."""

    displacement: np.floating | Float[np.ndarray, " world"]
    rotation: np.floating | Float[np.ndarray, " world"]


def motion_from_start(state: Float[np.ndarray, "*world 7"]) -> Motion:
    """Returns how far the object is from where it starts."""
    turn = 2 * np.arctan2(np.linalg.norm(state[..., 4:], axis=-1), np.abs(state[..., 3]))
    return Motion(np.linalg.norm(state[..., :3], axis=-1), turn)


def motion_between(first: Float[np.ndarray, "*world 7"], second: Float[np.ndarray, "*world 7"]) -> Motion:
    """Returns the motion from one state of the object to another."""
    chords = [np.linalg.norm(first[..., 3:] - sign * second[..., 3:], axis=-1) for sign in (1, -1)]
    turn = 4 * np.arcsin(np.minimum(np.minimum(*chords) / 2, 1.0))
    return Motion(np.linalg.norm(first[..., :3] - second[..., :3], axis=-1), turn)


class HandPoses(NamedTuple):
    """A pose of both hands in the object's frame, or of each of several grasps. Hand axis 0 = left, 1 = right.

    Attributes:
        translation: origin of the root link, m.
        rotation: hand frame to object frame, proper.
        joints: rad.
    """

    translation: Float[np.ndarray, "*grasp hand 3"]
    rotation: Float[np.ndarray, "*grasp hand 3 3"]
    joints: Float[np.ndarray, "*grasp hand joint"]

    @property
    def finite(self) -> bool:
        """Whether every number is finite."""
        return all(bool(np.isfinite(part).all()) for part in self)


class GraspPoses(NamedTuple):
    """The poses by which two hands take an object.

    Attributes:
        pre_grasp: hands open, beside the object.
        grasp: hands on the object.
        squeeze: targets beyond the grasp, which press on the object; reached only where it gives way.
    """

    pre_grasp: HandPoses
    grasp: HandPoses
    squeeze: HandPoses

    @property
    def finite(self) -> bool:
        """Whether every number is finite."""
        return all(pose.finite for pose in self)


def check_grasp_poses(poses: GraspPoses, joint_count: int) -> None:
    """Refuses finite poses that are not those of two hands with `joint_count` joints.

    Raises:
        InputError: naming the pose, what it has and what is wanted.
    """
    shapes = ((2, 3), (2, 3, 3), (2, joint_count))
    for name, pose in zip(poses._fields, poses, strict=True):
        for part, given, wanted in zip(pose._fields, pose, shapes, strict=True):
            if given.shape != wanted:
                raise InputError(
                    f"{name}.{part} has shape {given.shape}; these hands want {wanted} (hand axis first, 0 = left): "
                    "is the grasp of another hand?"
                )
        error = np.abs(pose.rotation @ pose.rotation.swapaxes(-1, -2) - np.eye(3)).max()
        if error > ROTATION_TOLERANCE or (np.linalg.det(pose.rotation) < 0).any():
            raise InputError(
                f"{name}.rotation is no proper rotation (R R^T is {error:.2g} off 1); wanted (2, 3, 3) matrices from "
                "the hand's frame to the object's: a 6D rotation goes through "
                "bimangrasp.geometry.rotation.rot6d_to_matrix"
            )


def interpolate(start: HandPoses, end: HandPoses, share: float) -> HandPoses:
    """Returns the pose that lies `share` (0 to 1) of the way between two: lines, and turns about one axis."""
    first, last = (Rotation.from_matrix(pose.rotation.reshape(-1, 3, 3)) for pose in (start, end))
    turn = Rotation.from_rotvec(share * (first.inv() * last).as_rotvec())
    return HandPoses(
        start.translation + share * (end.translation - start.translation),
        (first * turn).as_matrix().reshape(start.rotation.shape),
        start.joints + share * (end.joints - start.joints),
    )
