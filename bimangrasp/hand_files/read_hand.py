"""Reads a hand from an MJCF or URDF file and its YAML, through MuJoCo: links, hinges and collision shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.errors import InputError
from bimangrasp.hand_files.config import HandConfig, find_mjcf
from bimangrasp.hand_files.couplings import coupled, read_couplings
from bimangrasp.hand_files.hulls import Hull, hand_hull
from bimangrasp.hand_files.tables import joint_mean, keypoints, place_candidates, with_tables
from bimangrasp.hand_files.urdf import parsed_hand, prepared_urdf, unread_mimics
from bimangrasp.hands.description import HandDescription, Primitive

WANTED = "Wanted an MJCF that MuJoCo compiles on its own, or a URDF."

_FREE = int(mujoco.mjtJoint.mjJNT_FREE)

_HINGE = int(mujoco.mjtJoint.mjJNT_HINGE)

UNTURNED = Rotation.identity()

_GEOM = mujoco.mjtGeom


def read_mjcf_hand(config: HandConfig) -> HandDescription:
    """Returns the hand of `config.mjcf`.

    `hand_of` and `read_primitives` define what is a link, a joint and a collision shape, `read_couplings` what moves
    together.

    Raises:
        InputError: the file is missing, MuJoCo refuses it, it holds something that a hand cannot have, or the
            YAML names a link or joint that it does not have.
    """
    path = find_mjcf(config.mjcf)
    model = compile_hand(path)
    hand = coupled(hand_of(model, str(path)), model, config.couplings)
    candidates = place_candidates(hand.primitives, hand.link_names, config.candidates)
    mean = joint_mean(config, hand)
    hand = with_tables(hand, config, candidates, keypoints(config, hand.link_names))
    return replace(hand, side=config.side, joint_mean=mean)


def read_bare_hand(mjcf: str) -> HandDescription:
    """Returns tree and shapes of a file, as `hand_of` does, every joint by itself.

    Raises:
        InputError: see `read_mjcf_hand`.
    """
    path = find_mjcf(mjcf)
    return hand_of(compile_hand(path), str(path))


def unread_couplings(mjcf: str) -> list[str]:
    """Returns a phrase for each coupling in a file that is not read, with what it is.

    Raises:
        InputError: see `read_mjcf_hand`.
    """
    path = find_mjcf(mjcf)
    model = compile_hand(path)
    return unread_of(model, path, hand_of(model, str(path)).joint_names)


def unread_of(model: mujoco.MjModel, path: Path, joint_names: Sequence[str]) -> list[str]:
    """Returns a phrase for each coupling of a compiled file that is not read."""
    return [*read_couplings(model, joint_names).unread, *unread_mimics(path)]


@contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Keeps MuJoCo from writing its warnings into MUJOCO_LOG.TXT in the current folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)  # noqa: ARG005 - a hand is only measured, never simulated here
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def compile_hand(path: Path) -> mujoco.MjModel:
    """Returns the model of an MJCF or URDF file.

    A URDF is read without its visual meshes, with every link as a body, and with `package://` paths looked up in the
    folders above the file.

    Raises:
        InputError: no XML, a file that must be expanded first, a missing mesh, or MuJoCo refuses it.
    """
    root = parsed_hand(path)
    urdf = prepared_urdf(root, path) if root.tag == "robot" else None
    try:
        with quiet_mujoco():
            spec = (
                mujoco.MjSpec.from_string(urdf.text, assets=urdf.assets) if urdf else mujoco.MjSpec.from_file(str(path))
            )
            return spec.compile()
    except ValueError as error:
        reason = str(error).strip().removeprefix("Error: ")
        advice = WANTED
        if "opening file" in reason:
            advice = f"Put it there: paths are relative to {path.resolve().parent} and meshdir."
        raise InputError(f"hand.mjcf={str(path)!r}: MuJoCo cannot read it: {reason}. {advice}") from error


class KinematicTree(NamedTuple):
    """The tree of a hand while it is read.

    Attributes:
        links: in depth-first order: name, index of the parent (-1 for the root), (4, 4) pose in it at angle 0.
        joints: in tree order: name, index of the link it moves, unit axis in that link's frame, limits in rad.
        body_link: MuJoCo body -> the link in its place.
    """

    links: list[tuple[str, int, np.ndarray]]
    joints: list[tuple[str, int, np.ndarray, float, float]]
    body_link: dict[int, int]


def hand_of(model: mujoco.MjModel, source: str) -> HandDescription:
    """Returns tree and shapes of a compiled hand: all that can be read from its model.

    Side, palm normal and finger direction are empty, there are no candidates, keypoints and couplings, and the means
    are the joint values nearest to 0. Such a hand can be inspected and drawn, but cannot grasp.

    The root is the one top body whose tree has joints; its pose in the world and a free joint on it do not
    count. A body with several hinges, or with a hinge beside its origin, becomes a chain of links:
    "<body>:<joint>" for each hinge that needs one, and last a link with the body's own name and frame. `ref`
    of a joint is part of the fixed pose, so that joint values mean what they mean in MuJoCo.

    Args:
        model: the hand alone.
        source: what messages call it.

    Raises:
        InputError: no or several roots, a joint that is no hinge, a hinge without name or range; see also
            `read_primitives`.
    """
    root = _root_body(model, source)
    tree = KinematicTree([], [], {})
    for body in np.flatnonzero(model.body_rootid == root):
        _add_body(tree, model, int(body), int(body) == root, source)
    if not tree.joints:
        raise InputError(f"{source}: the hand has no hinge joint; a hand needs at least one.")
    link_names, parents, poses = zip(*tree.links, strict=True)
    joint_names, joint_links, axes, *limits = zip(*tree.joints, strict=True)
    lower, upper = map(np.array, limits)
    return HandDescription(
        side="",
        link_names=link_names,
        parent=np.array(parents, np.int64),
        T_parent_link=np.stack(poses),
        joint_names=joint_names,
        joint_link=np.array(joint_links, np.int64),
        joint_axis=np.stack(axes),
        joint_lower=lower,
        joint_upper=upper,
        joint_mean=np.clip(0.0, lower, upper),
        primitives=read_primitives(model, tree.body_link, source),
        candidate_link=np.zeros(0, np.int64),
        candidate_position=np.zeros((0, 3)),
        keypoint_link=np.zeros(0, np.int64),
        keypoint_position=np.zeros((0, 3)),
        palm_normal=np.zeros(3),
        finger_direction=np.zeros(3),
    )


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
    T_parent_next = np.eye(4) if is_root else pose(model.body_pos[body], _turn(model.body_quat[body]))
    parent = -1 if is_root else tree.body_link[int(model.body_parentid[body])]
    hinges = _hinges(model, body, is_root, source)
    for joint in hinges:
        anchor, axis = model.jnt_pos[joint], model.jnt_axis[joint]
        last = joint == hinges[-1] and not anchor.any()
        name = _body_name(model, body) if last else f"{_body_name(model, body)}:{model.joint(joint).name}"
        reference = model.qpos0[model.jnt_qposadr[joint]]
        T_parent_link = T_parent_next @ pose(anchor) @ pose(np.zeros(3), Rotation.from_rotvec(axis * -reference))
        tree.joints.append((model.joint(joint).name, len(tree.links), axis.copy(), *model.jnt_range[joint]))
        tree.links.append((name, parent, T_parent_link))
        parent, T_parent_next = len(tree.links) - 1, pose(-anchor)
    if not hinges or model.jnt_pos[hinges[-1]].any():
        tree.links.append((_body_name(model, body), parent, T_parent_next))
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
        kind = mujoco.mjtJoint(int(model.jnt_type[joint])).name.removeprefix("mjJNT_").lower()
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


def pose(position: np.ndarray, rotation: Rotation = UNTURNED) -> np.ndarray:
    """Returns the (4, 4) pose of a position and a rotation."""
    T = np.eye(4)
    T[:3, :3] = rotation.as_matrix()
    T[:3, 3] = position
    return T


def _turn(quaternion: np.ndarray) -> Rotation:
    return Rotation.from_quat(quaternion, scalar_first=True)


def read_primitives(model: mujoco.MjModel, body_link: dict[int, int], source: str) -> tuple[Primitive, ...]:
    """Returns the collision shapes of the bodies in `body_link`, in link order.

    A geom is a collision shape if it can touch anything: `contype` or `conaffinity` is not 0, or a contact
    pair names it. A mesh stands for its convex hull, which is what MuJoCo collides, see `hand_hull`.

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
    T_link_shape = pose(model.geom_pos[geom], _turn(model.geom_quat[geom]))
    if kind == _GEOM.mjGEOM_MESH:
        hull = _hull(model, geom)
        return Primitive(link, "mesh", T_link_shape, np.zeros(3), hull.vertices, hull.faces)
    analytic = {
        _GEOM.mjGEOM_CAPSULE: ("capsule", (a, b, 0.0)),
        _GEOM.mjGEOM_SPHERE: ("capsule", (a, 0.0, 0.0)),
        _GEOM.mjGEOM_CYLINDER: ("cylinder", (a, b, 0.0)),
        _GEOM.mjGEOM_BOX: ("box", (a, b, c)),
    }
    if kind not in analytic:
        name = model.geom(geom).name or f"number {geom}"
        body, shape = model.body(int(model.geom_bodyid[geom])).name, kind.name.removeprefix("mjGEOM_").lower()
        raise InputError(
            f"{source}: geom {name!r} of body {body!r} is of type {shape}; known are capsule, sphere, cylinder, "
            "box and mesh. Replace it, or set contype=0 and conaffinity=0 if it is only to be seen."
        )
    shape, size = analytic[kind]
    return Primitive(link, shape, T_link_shape, np.array(size), np.zeros((0, 3)), np.zeros((0, 3), np.int64))


def simplified_meshes(model: mujoco.MjModel) -> list[tuple[str, int, int]]:
    """Returns body, faces of the whole hull and faces of what stands for it, of each mesh that is simplified."""
    meshes = [g for g in range(model.ngeom) if model.geom_type[g] == _GEOM.mjGEOM_MESH and _collides(model, g)]
    hulls = [(_body_name(model, int(model.geom_bodyid[geom])), _hull(model, geom)) for geom in meshes]
    return [(name, hull.whole, len(hull.faces)) for name, hull in hulls if hull.whole > len(hull.faces)]


def _hull(model: mujoco.MjModel, geom: int) -> Hull:
    """Returns the convex hull that stands for the mesh of a geom."""
    mesh = model.geom_dataid[geom]
    first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
    return hand_hull(model.mesh_vert[first : first + count])
