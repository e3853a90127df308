"""Hands and meshes as bodies of a MuJoCo model that is being written. Meters, (w, x, y, z) quaternions."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from scipy.spatial.transform import Rotation

from bimangrasp.hands.description import HandDescription, Primitive

UNTOUCHING = {"contype": 0, "conaffinity": 0}
"""Of a geom that is only looked at."""

_KINDS = {
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
}


def add_links(root: mujoco.MjsBody, hand: HandDescription, side: str) -> list[mujoco.MjsBody]:
    """Adds the links `<side>/<link>` below the root and returns all of them, the root first.

    They are added in depth-first order, in which MuJoCo numbers joints too: that of the joint axis.
    """
    bodies = [root]
    for link in range(1, len(hand.parent)):
        above = bodies[hand.parent[link]]
        bodies.append(above.add_body(name=link_name(hand, side, link), **place(hand.T_parent_link[link])))
    return bodies


def link_name(hand: HandDescription, side: str, link: int) -> str:
    """Returns the name of a link's body."""
    return f"{side}/{hand.link_names[link]}"


def weigh_shapeless(bodies: list[mujoco.MjsBody], hand: HandDescription, mass: float, inertia: float) -> None:
    """Gives links without a shape, which have none of their own, mass, kg, and inertia, kg m2, about each axis."""
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
    **what: Any,
) -> mujoco.MjsGeom:
    """Adds a collision shape of a hand and returns its geom.

    Args:
        spec: the model.
        body: of the model.
        name: of the geom, and of its mesh.
        shape: without its place.
        T_body_shape: (4, 4) its place.
        is_hull: a mesh is the convex hull of its vertices, else its triangles.
        what: attributes of the geom.
    """
    where = place(T_body_shape)
    if shape.shape == "mesh":
        return add_mesh(spec, body, name, shape.vertices, None if is_hull else shape.faces, **where, **what)
    is_ball = shape.shape == "capsule" and not shape.size[1]
    kind = mujoco.mjtGeom.mjGEOM_SPHERE if is_ball else _KINDS[shape.shape]
    return body.add_geom(name=name, type=kind, size=shape.size, **where, **what)


def add_mesh(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    vertices: np.ndarray,
    faces: np.ndarray | None = None,
    **what: Any,
) -> mujoco.MjsGeom:
    """Adds (V, 3) vertices with (F, 3) faces, as a shell since it may be open; without faces their convex hull."""
    shell, hull = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL, mujoco.mjtMeshInertia.mjMESH_INERTIA_CONVEX
    if faces is None:
        spec.add_mesh(name=name, uservert=vertices.ravel(), inertia=hull)
    else:
        spec.add_mesh(name=name, uservert=vertices.ravel(), userface=faces.ravel(), inertia=shell)
    return body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, **what)


def place(T: np.ndarray) -> dict[str, np.ndarray]:
    """Returns `pos` and `quat` of a (4, 4) transform."""
    return {"pos": T[:3, 3], "quat": quaternion(T[:3, :3])}


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """Returns the quaternion of a rotation matrix."""
    return Rotation.from_matrix(rotation).as_quat(scalar_first=True)
