"""Reads links, hinges and collision shapes of a compiled MuJoCo model.

Links have fixed poses, hinges go through their origins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.hands.description import HandDescription, Primitive

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)
_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)
_JOINT_KINDS = {
    int(mujoco.mjtJoint.mjJNT_SLIDE): "slide",
    int(mujoco.mjtJoint.mjJNT_BALL): "ball",
    _FREE: "free",
}

NO_VERTICES, NO_FACES = np.zeros((0, 3)), np.zeros((0, 3), np.int64)

_GEOM = mujoco.mjtGeom


class Link(NamedTuple):
    """One link: its name, the index of its parent (-1 for the root) and its (4, 4) pose in it at angle 0."""

    name: str
    parent: int
    T_parent_link: np.ndarray


class Joint(NamedTuple):
    """One hinge: its name, the index of the link it moves, unit axis in that link's frame, limits in rad."""

    name: str
    link: int
    axis: np.ndarray
    lower: float
    upper: float


class KinematicTree(NamedTuple):
    """Links in depth-first order, joints in tree order, and for each MuJoCo body the link in its place."""

    links: list[Link]
    joints: list[Joint]
    body_link: dict[int, int]


def hand_of(model: mujoco.MjModel, source: str) -> HandDescription:
    """Returns tree and shapes of a compiled hand: all that can be read from its model.

    Side, palm normal and finger direction are empty, there are no candidates and keypoints, and the means are the joint
    values nearest to 0. Such a hand can be inspected and drawn, but cannot grasp.

    Args:
        model: the hand alone.
        source: what messages call it.

    Raises:
        InputError: see `read_tree` and `read_primitives`.
    """
    links, joints, body_link = read_tree(model, source)
    lower, upper = (np.array([getattr(joint, end) for joint in joints]) for end in ("lower", "upper"))
    return HandDescription(
        side="",
        link_names=tuple(link.name for link in links),
        parent=np.array([link.parent for link in links], np.int64),
        T_parent_link=np.stack([link.T_parent_link for link in links]),
        joint_names=tuple(joint.name for joint in joints),
        joint_link=np.array([joint.link for joint in joints], np.int64),
        joint_axis=np.stack([joint.axis for joint in joints]),
        joint_lower=lower,
        joint_upper=upper,
        joint_mean=np.clip(0.0, lower, upper),
        primitives=read_primitives(model, body_link, source),
        candidate_link=np.zeros(0, np.int64),
        candidate_position=np.zeros((0, 3)),
        keypoint_link=np.zeros(0, np.int64),
        keypoint_position=np.zeros((0, 3)),
        palm_normal=np.zeros(3),
        finger_direction=np.zeros(3),
    )


def read_tree(model: mujoco.MjModel, source: str) -> KinematicTree:
    """Returns the hand's tree.

    The root is the one top body whose tree has joints; its pose in the world and a free joint on it do not
    count. A body with several hinges, or with a hinge beside its origin, becomes a chain of links:
    "<body>:<joint>" for each hinge that needs one, and last a link with the body's own name and frame. `ref`
    of a joint is part of the fixed pose, so that joint values mean what they mean in MuJoCo.

    Raises:
        InputError: no or several roots, a joint that is no hinge, or a hinge without name or range.
    """
    root = _root_body(model, source)
    tree = KinematicTree([], [], {})
    for body in np.flatnonzero(model.body_rootid == root):
        _add_body(tree, model, int(body), int(body) == root, source)
    if not tree.joints:
        raise InputError(f"{source}: the hand has no hinge joint; a hand needs at least one.")
    return tree


def _root_body(model: mujoco.MjModel, source: str) -> int:
    """Returns the top body whose tree has joints."""
    if model.nbody < 2:
        raise InputError(
            f"{source}: compiles to a model without bodies, as files do that are meant for <include>. "
            "Give the complete MJCF of one hand, with a <worldbody>."
        )
    moved = model.jnt_bodyid[model.jnt_type != _FREE]
    roots = sorted({int(body) for body in model.body_rootid[moved]})
    if len(roots) == 1:
        return roots[0]
    if not roots:
        raise InputError(f"{source}: no body has a joint; wanted the hinge joints of one hand.")
    names = ", ".join(repr(_body_name(model, body)) for body in roots)
    raise InputError(f"{source}: {len(roots)} separate trees have joints ({names}); keep only the right hand's.")


def _add_body(tree: KinematicTree, model: mujoco.MjModel, body: int, is_root: bool, source: str) -> None:
    """Appends a body's links and joints."""
    T_parent_next = np.eye(4) if is_root else pose(model.body_pos[body], model.body_quat[body])
    parent = -1 if is_root else tree.body_link[int(model.body_parentid[body])]
    hinges = _hinges(model, body, is_root, source)
    for joint in hinges:
        anchor, axis = model.jnt_pos[joint], model.jnt_axis[joint]
        last = joint == hinges[-1] and not anchor.any()
        name = _body_name(model, body) if last else f"{_body_name(model, body)}:{model.joint(joint).name}"
        reference = model.qpos0[model.jnt_qposadr[joint]]
        T_parent_link = T_parent_next @ pose(anchor) @ _turn(axis, -reference)
        tree.joints.append(Joint(model.joint(joint).name, len(tree.links), axis.copy(), *model.jnt_range[joint]))
        tree.links.append(Link(name, parent, T_parent_link))
        parent, T_parent_next = len(tree.links) - 1, pose(-anchor)
    if not hinges or model.jnt_pos[hinges[-1]].any():
        tree.links.append(Link(_body_name(model, body), parent, T_parent_next))
    tree.body_link[body] = len(tree.links) - 1


def _hinges(model: mujoco.MjModel, body: int, is_root: bool, source: str) -> list[int]:
    """Returns the body's hinge joints; everything else is refused, but for a free joint of the root."""
    first, count = int(model.body_jntadr[body]), int(model.body_jntnum[body])
    joints = [j for j in range(first, first + count) if not (is_root and model.jnt_type[j] == _FREE)]
    for joint in joints:
        _check_joint(model, joint, is_root, source)
    return joints


def _check_joint(model: mujoco.MjModel, joint: int, is_root: bool, source: str) -> None:
    """Refuses a joint that is no named, limited hinge of a moving body."""
    name, body = model.joint(joint).name, _body_name(model, int(model.jnt_bodyid[joint]))
    where = f"{source}: joint {name!r} of body {body!r}"
    if model.jnt_type[joint] != _HINGE:
        kind = _JOINT_KINDS[int(model.jnt_type[joint])]
        raise InputError(f"{where} is a {kind} joint; only hinges are known. Make it a hinge or remove it.")
    if not name:
        raise InputError(f"{where} has no name; give it one, so that hand.joint_mean can speak of it.")
    if is_root:
        raise InputError(
            f"{where} moves the root itself, whose frame is the hand's frame. Wrap {body!r} in a body without joints."
        )
    if not model.jnt_limited[joint]:
        raise InputError(f'{where} has no limits; give it a range="lower upper" in the file.')


def _body_name(model: mujoco.MjModel, body: int) -> str:
    return model.body(body).name or f"body_{body}"


def pose(position: np.ndarray, quaternion: Sequence[float] | np.ndarray = (1.0, 0.0, 0.0, 0.0)) -> np.ndarray:
    """Returns the (4, 4) pose of a position and a (w, x, y, z) quaternion."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
    T[:3, 3] = position
    return T


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    """Returns the (4, 4) rotation about an axis through the origin."""
    T = np.eye(4)
    T[:3, :3] = Rotation.from_rotvec(axis * angle).as_matrix()
    return T


def read_primitives(model: mujoco.MjModel, body_link: dict[int, int], source: str) -> tuple[Primitive, ...]:
    """Returns the collision shapes of the bodies in `body_link`, in link order.

    A geom is a collision shape if it can touch anything: `contype` or `conaffinity` is not 0, or a contact
    pair names it. A mesh stands for its convex hull, which is what MuJoCo collides.

    Raises:
        InputError: a shape of an unknown type, or no collision shape at all.
    """
    geoms = [g for g in range(model.ngeom) if int(model.geom_bodyid[g]) in body_link and _collides(model, g)]
    if not geoms:
        raise InputError(
            f"{source}: the hand has no collision geometry (every geom has contype=0 and conaffinity=0). "
            "Give contype=1 to the geoms that may touch something."
        )
    shapes = [_primitive(model, geom, body_link[int(model.geom_bodyid[geom])], source) for geom in geoms]
    return tuple(sorted(shapes, key=lambda shape: shape.link))


def _collides(model: mujoco.MjModel, geom: int) -> bool:
    paired = geom in model.pair_geom1 or geom in model.pair_geom2
    return bool(model.geom_contype[geom] or model.geom_conaffinity[geom] or paired)


def _primitive(model: mujoco.MjModel, geom: int, link: int, source: str) -> Primitive:
    """Returns a geom as a primitive of its link."""
    kind = _GEOM(int(model.geom_type[geom]))
    a, b, c = model.geom_size[geom]
    T_link_shape = pose(model.geom_pos[geom], model.geom_quat[geom])
    if kind == _GEOM.mjGEOM_MESH:
        hull = _convex_hull(model, int(model.geom_dataid[geom]))
        return Primitive(link, "mesh", T_link_shape, np.zeros(3), *hull)
    analytic = {
        _GEOM.mjGEOM_CAPSULE: ("capsule", (a, b, 0.0)),
        _GEOM.mjGEOM_SPHERE: ("capsule", (a, 0.0, 0.0)),
        _GEOM.mjGEOM_CYLINDER: ("cylinder", (a, b, 0.0)),
        _GEOM.mjGEOM_BOX: ("box", (a, b, c)),
    }
    if kind not in analytic:
        raise InputError(_unknown_shape(model, geom, kind, source))
    shape, size = analytic[kind]
    return Primitive(link, shape, T_link_shape, np.array(size), NO_VERTICES, NO_FACES)


def _unknown_shape(model: mujoco.MjModel, geom: int, kind: mujoco.mjtGeom, source: str) -> str:
    name = model.geom(geom).name or f"number {geom}"
    body, shape = model.body(int(model.geom_bodyid[geom])).name, kind.name.removeprefix("mjGEOM_").lower()
    return (
        f"{source}: geom {name!r} of body {body!r} is of type {shape}; known are capsule, sphere, cylinder, "
        "box and mesh. Replace it, or set contype=0 and conaffinity=0 if it is only to be seen."
    )


def _convex_hull(model: mujoco.MjModel, mesh: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and outward faces of a mesh's convex hull."""
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    hull = trimesh.convex.convex_hull(model.mesh_vert[first : first + count].astype(np.float64))
    return np.array(hull.vertices), np.array(hull.faces, np.int64)
