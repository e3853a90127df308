"""Adds hands and meshes as bodies to a MuJoCo model specification. Meters, (w, x, y, z) quaternions."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.hands.couplings import FIXED
from bimangrasp.hands.description import HandDescription, Primitive

NO_CONTACT = {"contype": 0, "conaffinity": 0}
"""Attributes of a geom that is displayed and never collides."""

COUPLING_SOLREF, COUPLING_SOLIMP = (0.01, 1.0), (0.99, 0.999, 0.001, 0.5, 2.0)
"""Reference and impedance of couplings: as stiff as the steps of 4 ms bear, since linkages hardly yield."""

_KINDS = {
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


def add_links(root: mujoco.MjsBody, hand: HandDescription, side: str) -> list[mujoco.MjsBody]:
    """Adds the links `<side>/<link>` below the root and returns all of them, the root first.

    Links are added in depth-first order. MuJoCo numbers joints in that order too, so they match the joint axis.
    """
    bodies = [root]
    for link in range(1, len(hand.parent)):
        above = bodies[hand.parent[link]]
        bodies.append(above.add_body(name=link_name(hand, side, link), **pose_attributes(hand.T_parent_link[link])))
    return bodies


def link_name(hand: HandDescription, side: str, link: int) -> str:
    """Returns the name of a link's body."""
    return f"{side}/{hand.link_names[link]}"


def add_couplings(spec: mujoco.MjSpec, hand: HandDescription, side: str) -> None:
    """Adds the couplings of a hand whose joints `<side>/<joint>` are there: equalities, and tendons `<side>/<tendon>`.

    Joints of the scene have their reference at 0, so that polynomials are of joint values and tendon values.
    """
    names, joints = node_names(hand, side), len(hand.joint_names)
    pulled = {joints + number: tendon for number, tendon in enumerate(hand.couplings.tendons)}
    for node, tendon in pulled.items():
        _add_tendon(spec, names[node], [(names[joint], c) for joint, c in zip(*tendon[1:], strict=True)])
    for follower in hand.couplings.followers:
        ends = [node for node in (follower.node, follower.leader) if node != FIXED]
        kind = mujoco.mjtEq.mjEQ_JOINT, mujoco.mjtObj.mjOBJ_JOINT
        objects = [names[node] for node in ends]
        if any(node in pulled for node in ends):  # an equality is of two tendons; a joint gets one of its own
            kind = mujoco.mjtEq.mjEQ_TENDON, mujoco.mjtObj.mjOBJ_TENDON
            for place, node in enumerate(ends):
                if node not in pulled:
                    objects[place] = f"{names[follower.node]} to {names[node]}"
                    _add_tendon(spec, objects[place], [(names[node], 1.0)])
        equality = spec.add_equality(type=kind[0], objtype=kind[1], name1=objects[0])
        if len(objects) > 1:
            equality.name2 = objects[1]
        equality.data[: len(follower.polynomial)] = follower.polynomial
        equality.solref, equality.solimp = COUPLING_SOLREF, COUPLING_SOLIMP


def _add_tendon(spec: mujoco.MjSpec, name: str, members: list[tuple[str, float]]) -> None:
    tendon = spec.add_tendon(name=name)
    for joint, coefficient in members:
        tendon.wrap_joint(joint, coefficient)


def node_names(hand: HandDescription, side: str) -> list[str]:
    """Returns the names of a hand's joints and then of its tendons, as they are in a scene."""
    return [f"{side}/{name}" for name in (*hand.joint_names, *(tendon.name for tendon in hand.couplings.tendons))]


def weigh_shapeless(bodies: list[mujoco.MjsBody], hand: HandDescription, mass: float, inertia: float) -> None:
    """Sets mass, kg, and inertia, kg m2 about each axis, of links without a shape; MuJoCo computes the others."""
    for link in set(range(len(bodies))) - {shape.link for shape in hand.primitives}:
        bodies[link].explicitinertial = True
        bodies[link].mass, bodies[link].inertia = mass, np.full(3, inertia)


def add_shape(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    shape: Primitive,
    T_body_shape: np.ndarray,
    is_hull: bool = False,
    **attributes: Any,
) -> mujoco.MjsGeom:
    """Adds a collision shape of a hand and returns its geom.

    Args:
        spec: the model that is being built.
        body: the body that gets the geom.
        name: name of the geom and of its mesh.
        shape: the collision shape; its pose in the link is ignored.
        T_body_shape: (4, 4) pose of the shape in the body.
        is_hull: a mesh stands for the convex hull of its vertices, else for its triangles.
        attributes: further attributes of the geom.
    """
    placement = pose_attributes(T_body_shape)
    if shape.shape == "mesh":
        return add_mesh(spec, body, name, shape.vertices, None if is_hull else shape.faces, **placement, **attributes)
    is_sphere = shape.shape == "capsule" and not shape.size[1]
    kind = mujoco.mjtGeom.mjGEOM_SPHERE if is_sphere else _KINDS[shape.shape]
    return body.add_geom(name=name, type=kind, size=shape.size, **placement, **attributes)


def add_mesh(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray | None = None,
    **attributes: Any,
) -> mujoco.MjsGeom:
    """Adds (V, 3) vertices with (F, 3) faces, as a shell since it may be open; without faces their convex hull."""
    mesh = spec.add_mesh(name=name, uservert=vertices.ravel(), inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX)
    if faces is not None:
        mesh.userface, mesh.inertia = faces.ravel(), mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
    return body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, **attributes)


def pose_attributes(T: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the MuJoCo attributes `pos` and `quat` of a (4, 4) pose."""
    return {"pos": T[:3, 3], "quat": quaternion(T[:3, :3])}


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Returns the (w, x, y, z) quaternion of a rotation matrix."""
    return Rotation.from_matrix(rotation).as_quat(scalar_first=True)
